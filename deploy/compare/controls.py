"""Controls: what a search has to be better than. Nothing here is searched.

The teacher trained on says what longer training gives, random architectures within the budget what any choice gives,
and two families of hand-made networks what an engineer gets without a search: one expansion and kernel everywhere, and
the teacher with layers left out. Of a family the largest network within the budget is taken. Its size is known exactly;
its latency, where that is limited, is measured beside the teacher's, since no table has these networks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from deploy.compare.records import Spent
from deploy.compare.setup import SearchComparison, Selecting, Winner, block_tables, spent_in, started
from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.formats.digest import digest
from deploy.latency.shares import enough_rounds, latency_shares
from deploy.latency.table import summaries
from deploy.run.context import protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measure_with_progress
from deploy.run.quantizing import quantize_network
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture, Choice, SearchSpace, Subnet

Layers: TypeAlias = Sequence[Sequence[Choice]]

TEACHER_BITS = 8
UNIFORM = Choice(3, 3)
MOST_MEASURED = 12
"""Networks of a family that are measured to find the largest within a budget of latency."""
TRIES = 1000  # draws in a row that are known, before there are no others


def teacher_plus(comparison: SearchComparison) -> Selecting:
    """The teacher, trained on by the same recipe and steps; no budget holds for it."""
    yield Progress(TEACHER_PLUS, 1, 1)
    layers = comparison.context.space.teacher_layers
    return [Winner(network_of(layers, TEACHER_BITS), _teacher_alone(comparison), start="teacher")]


def random_blocks(comparison: SearchComparison) -> Selecting:
    """Random architectures within the budget, from the same supernets as the block-wise winner."""
    e = comparison.context.experiment
    rng, drawn, tries = random.Random(f"{e.seed}/random_blocks"), dict[Architecture, None](), 0
    while len(drawn) < e.compare.random_blocks and tries < TRIES:
        before = len(drawn)
        drawn[comparison.affordable.sample(rng)] = None
        tries = 0 if len(drawn) > before else tries + 1
    yield Progress("random_blocks", 1, 1, f"{len(drawn)} architectures")
    return [Winner(architecture, block_tables(comparison)) for architecture in drawn]


def uniform(comparison: SearchComparison) -> Selecting:
    """The largest network of k3e3 layers alone within the budget."""
    space = comparison.affordable.space
    networks = family(space, [[UNIFORM] * block.layers for block in space.blocks])
    return (yield from _largest(comparison, "uniform", networks))


def fewer_layers(comparison: SearchComparison) -> Selecting:
    """The largest network within the budget that is the teacher with layers left out."""
    space = comparison.affordable.space
    _, *networks = family(space, space.teacher_layers)  # the first is the teacher
    return (yield from _largest(comparison, "fewer_layers", networks))


def network_of(layers: Layers, bits: int) -> Architecture:
    """A network as an architecture, which need not be in the space."""
    return Architecture(tuple(Subnet(i, tuple(choices), bits) for i, choices in enumerate(layers, start=1)))


def family(space: SearchSpace, layers: Layers) -> Iterator[Architecture]:
    """The network of these layers, and those with layers left out at the ends of blocks; one is left in each."""
    bits = max(space.bits)
    for depths in itertools.product(*(range(len(block), 0, -1) for block in layers)):
        yield network_of([block[:depth] for block, depth in zip(layers, depths, strict=True)], bits)


def _teacher_alone(comparison: SearchComparison) -> Mapping[str, Spent]:
    return {"teacher": spent_in(comparison.context.run, "teacher")}


def _largest(comparison: SearchComparison, name: str, networks: Iterable[Architecture]) -> Selecting:
    """Of a family, the largest network within the budget; nothing where none is."""
    budget, spent = comparison.budget, _teacher_alone(comparison)
    most = comparison.cost_tables.teacher["size"] * (budget.size or 1.0)
    sizes = {network: comparison.size_bits(network) for network in networks}
    fitting = sorted((n for n, size in sizes.items() if size <= most), key=lambda n: -sizes[n])
    if budget.latency is None:
        yield Progress(name, 1, 1, str(fitting[0]) if fitting else "nothing is within the budget")
        return [Winner(network, spent) for network in fitting[:1]]
    measured = yield from _measured(comparison, name, thinned(fitting, MOST_MEASURED))
    within = [(network, share) for network, share in measured.items() if share.value <= budget.latency]
    return [Winner(network, spent, latency_share=share) for network, share in within[:1]]


def thinned(networks: Sequence[Architecture], count: int) -> list[Architecture]:
    """`count` of them evenly spaced, with both ends; all if they are fewer."""
    if len(networks) <= count:
        return list(networks)
    return [networks[round(i * (len(networks) - 1) / (count - 1))] for i in range(count)]


def _measured(
    comparison: SearchComparison, name: str, networks: Sequence[Architecture]
) -> Generator[Progress, None, dict[Architecture, Estimate]]:
    """The latency of each network as a share of the teacher's, measured side by side, in their order."""
    if not networks:
        return {}
    context, e = comparison.context, comparison.context.experiment
    made_from = (context.keys["distil"], settings_of(e.quantization), list(context.resize_factors))
    folder = comparison.run.path / "controls"
    teacher = _compiled(comparison, comparison.teacher, Artifact.at(folder, TEACHER), TEACHER)
    artifacts = []
    for i, network in enumerate(networks):
        artifact = Artifact.at(folder, digest(*made_from, str(network)))
        if not artifact.exists:
            graph = quantize_network(context, started(context, network), network)
            _compiled(comparison, graph, artifact, str(network))
        artifacts.append(artifact)
        yield Progress(name, i + 1, len(networks), "compiled")
    jobs = [teacher.job(), *(artifact.job() for artifact in artifacts)]
    settings = enough_rounds(protocol(e.agreement.measuring))
    measurements = yield from measure_with_progress(context, jobs, settings, name, together=True)
    summaries(measurements)  # refuses models that failed
    shares = latency_shares(measurements, TEACHER)
    return {network: shares[artifact.name] for network, artifact in zip(networks, artifacts, strict=True)}


def _compiled(comparison: SearchComparison, graph: IntegerGraph, artifact: Artifact, subnet: str) -> Artifact:
    context = comparison.context
    metadata = model_metadata(graph, subnet, context.keys["distil"])
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target, tail=context.tail)
