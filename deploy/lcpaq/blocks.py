"""LCPAQ's refined model in QA-BWNAS's terms: each block's NSR and size at policy.json's bits, in blocks.json.

NSRs are of the supernets' weights, as the tables' are, so that `hilnas search` can compare them.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

from deploy.compile.artifact import IN_A_BLOCK
from deploy.compile.subtrees import IMAGES, Population
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import kept_policy
from deploy.run.folder import Progress
from deploy.search.refined import RefinedBlock, RefinedRecord, refined_key
from nas.data.batches import images_of
from nas.lcpaq.blocks import evaluate_refined
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, network_digest
from nas.lcpaq.tied import kept_at_8
from nas.space import Architecture
from nas.table import Table
from nas.training.threads import one_thread


def evaluate_blocks(subject: RunNetwork, _: StepSettings) -> Iterator[Progress]:
    """blocks.json of a selected model; of other networks none.

    Nor of a policy whose activations are not all of 8 bits, as the tables' are.
    """
    context, architecture, path = subject.context, subject.architecture, subject.folder / RefinedRecord.FILE
    policy = kept_policy(subject)
    if architecture is None or set(policy.activations.values()) != {INT8}:
        path.unlink(missing_ok=True)
        return
    network = network_digest(subject.nodes)
    key = refined_key(context.keys, context.supernets_digest, str(architecture), network, policy)
    if RefinedRecord.current(subject.folder, key):
        return
    yield Progress("lcpaq blocks", 0, 1, "starts")
    record = RefinedRecord(
        key=key,
        network=network,
        policy=str(policy),
        outside_bits=outside_bits(subject, policy),
        blocks=tuple(_evaluated(subject, architecture, policy)),
    )
    record.write(path)
    yield Progress("lcpaq blocks", 1, 1, "done")


def inside_blocks(options: Options) -> Options:
    """Layers outside the blocks keep 8 bits, as the search counts them: the bits of the blocks stay in the blocks."""
    return kept_at_8(options, [i for i, layer in enumerate(options.layers) if not IN_A_BLOCK.match(layer.name)])


def outside_bits(subject: RunNetwork, policy: Policy) -> int:
    """Bits of what lies outside the blocks, at the policy's widths."""
    layers = layers_of(subject.nodes, subject.input_shape, subject.scheme)
    return sum(layer.size_bits(policy.bits[layer.name]) for layer in layers if not IN_A_BLOCK.match(layer.name))


def _evaluated(subject: RunNetwork, architecture: Architecture, policy: Policy) -> Iterator[RefinedBlock]:
    """Each block's numbers; the plain subnet's NSR is its entry in the table."""
    context = subject.context
    quantization, table = context.experiment.quantization, Table.load(context.path / "tables" / "nsr.parquet")
    population = Population(context.space, quantization.scheme, subject.folder / "blocks", subject.key)
    shutil.rmtree(population.folder, ignore_errors=True)  # of one that was killed
    population.prepare(
        context.teacher,
        context.supernets,
        images_of(context.train_data, quantization.calibration_images, batch_size=IMAGES),
        images_of(
            context.train_data,
            quantization.evaluation_images,
            besides=quantization.calibration_images,
            batch_size=IMAGES,
        ),
    )
    with one_thread():
        for subnet in architecture.subnets:
            supernet = copy.deepcopy(context.supernets[subnet.block - 1])  # whose batch norms are overwritten
            refined = evaluate_refined(supernet, population.data(subnet.block), subnet, policy, quantization.scheme)
            yield RefinedBlock(str(subnet), refined.nsr, refined.graph.size_bits, table[subnet])
    shutil.rmtree(population.folder)
