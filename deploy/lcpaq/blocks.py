"""LCPAQ's refined model in QA-BWNAS's own terms: each block's NSR and size at policy.json's bits, in blocks.json.

NSRs are of the supernets' weights, as the tables' are, so that `hilnas search` can set the refined model beside them.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

from deploy.compile.artifact import IN_A_BLOCK
from deploy.compile.subtrees import IMAGES, Population
from deploy.formats.files import read_json, write_json
from deploy.lcpaq.subject import Subject, Wanted, stored_policy
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.search.cost_tables import REFINED, refined_key
from nas.data.batches import images_of
from nas.lcpaq.blocks import evaluate_refined
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, network_digest
from nas.lcpaq.tied import kept_at_8
from nas.space import Architecture
from nas.table import Table
from nas.training.threads import one_thread


def judge_blocks(subject: Subject, _: Wanted) -> Iterator[Progress]:
    """blocks.json of a found model; of other networks none.

    Nor of a policy whose activations are not all of 8 bits, as the tables' are.
    """
    context, architecture, path = subject.context, subject.architecture, subject.folder / REFINED
    policy = stored_policy(subject)
    if architecture is None or set(policy.activations.values()) != {INT8}:
        path.unlink(missing_ok=True)
        return
    network = network_digest(subject.nodes)
    key = refined_key(context.keys, context.supernets_digest, str(architecture), network, policy)
    if path.exists() and read_json(path, ("key",))["key"] == key:
        return
    yield Progress("lcpaq blocks", 0, 1, "starts")
    record = {
        "key": key,
        "network": network,
        "policy": str(policy),
        "around_bits": around_bits(subject, policy),
        "blocks": _judged(context, architecture, policy, subject),
    }
    write_json(path, record)
    yield Progress("lcpaq blocks", 1, 1, "done")


def inside_blocks(options: Options) -> Options:
    """Layers around the blocks keep 8 bits, as the search counts them: the bits of the blocks stay in the blocks."""
    return kept_at_8(options, [i for i, layer in enumerate(options.layers) if not IN_A_BLOCK.match(layer.name)])


def around_bits(subject: Subject, policy: Policy) -> int:
    """Bits of what lies around the blocks, at the policy's widths."""
    layers = layers_of(subject.nodes, (*subject.context.experiment.data.size, 3))
    return sum(layer.size_bits(policy.bits[layer.name]) for layer in layers if not IN_A_BLOCK.match(layer.name))


def _judged(
    context: Context, architecture: Architecture, policy: Policy, subject: Subject
) -> list[dict[str, str | float]]:
    """Each block's numbers; the plain subnet's NSR is its entry in the table."""
    quantization, table = context.experiment.quantization, Table.load(context.path / "tables" / "nsr.parquet")
    task = Population(context.space, quantization.scheme, subject.folder / "blocks", subject.key)
    shutil.rmtree(task.folder, ignore_errors=True)  # of one that was killed
    task.prepare(
        context.teacher,
        context.supernets,
        images_of(context.train_data, quantization.calibration_images, batch_size=IMAGES),
        images_of(context.train_data, quantization.evaluation_images, shift=0.5, batch_size=IMAGES),
    )
    found: list[dict[str, str | float]] = []
    with one_thread():
        for subnet in architecture.subnets:
            supernet = copy.deepcopy(context.supernets[subnet.block - 1])  # whose batch norms are overwritten
            judged = evaluate_refined(supernet, task.data(subnet.block), subnet, policy, quantization.scheme)
            found.append(
                {
                    "subnet": str(subnet),
                    "nsr": judged.nsr,
                    "size_bits": judged.graph.size_bits,
                    "plain_nsr": table[subnet],
                }
            )
    shutil.rmtree(task.folder)
    return found
