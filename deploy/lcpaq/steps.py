"""LCPAQ's steps over a run's trained network; each leaves a record in RUN/lcpaq/MODEL/ and is not done twice.

sensitivity.json -> (latency.json) -> solve.json, policy.json -> refine.json -> proxy.json -> shipped.json and bundle/.
A record holds the key of what it was made from; another key makes it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.lcpaq import latency
from deploy.lcpaq.blocks import inside_blocks
from deploy.lcpaq.records import (
    LayerLatencies,
    Perturbations,
    RefinedPolicy,
    RefineRecord,
    ScoredPolicy,
    SensitivityRecord,
    SolveRecord,
)
from deploy.lcpaq.settings import BLOCKS, StepSettings
from deploy.lcpaq.subject import Subject, limits_of
from deploy.run.folder import Progress
from nas.data import Dataset
from nas.data.batches import load
from nas.data.part import evenly_spaced
from nas.lcpaq import refine
from nas.lcpaq.activations import ACTIVATION_SENSITIVITIES
from nas.lcpaq.hessian import Problem
from nas.lcpaq.options import int8_costs, options_of
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, policy_of, ties
from nas.lcpaq.program import solve, totals
from nas.lcpaq.sensitivity import SENSITIVITIES
from nas.lcpaq.tied import ends_exempt
from nas.quant.float_graph import Node
from nas.tasks.task import score_integer
from nas.training.threads import one_thread


def sensitivity(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """sensitivity.json: each layer's perturbation at every width, and what it cost in CPU seconds.

    With "activations", by the width of what the layer reads, where that may be other than 8 bits.
    """
    context, narrows = subject.context, settings.narrows_activations
    narrow = [settings.activation_widths] if narrows else []
    key = digest(subject.key, settings.kind, settings.widths, settings.images, *narrow)
    if SensitivityRecord.current(subject.folder, key):
        return
    yield Progress("lcpaq sensitivity", 0, 1, settings.kind)
    data = context.train_data
    batches = [
        load(data, part)
        for part in _batched(_indices(data, settings.images), context.experiment.distil.schedule.batch_size)
    ]
    problem = Problem(subject.nodes, batches, context.task.loss)
    scheme, started = context.experiment.quantization.scheme, time.process_time()
    with one_thread():
        layers = SENSITIVITIES[settings.kind](problem, settings.widths, scheme).table
        activations: Perturbations | None = None
        if narrows:
            of_kind = ACTIVATION_SENSITIVITIES[settings.kind]
            activations = of_kind(problem, settings.activation_widths, scheme).table
    cpu_s = round(time.process_time() - started, 2)
    record = SensitivityRecord(key, settings.kind, settings.images, cpu_s, layers, activations)
    record.write(subject.folder / record.FILE)
    yield Progress("lcpaq sensitivity", 1, 1, f"{len(layers)} layers in {cpu_s:.1f} s of CPU")


def _indices(data: Dataset, count: int) -> list[int]:
    """`count` places at even distances, a quarter of which they are moved, as calibration starts at the first."""
    count = min(count, len(data))
    return [int((i + 0.25) * len(data) / count) for i in range(count)]


def _batched(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def measure_latency(subject: Subject) -> Iterator[Progress]:
    """latency.json: every layer, isolated, on the run's board."""
    image = subject.context.evaluation[:1]
    yield from latency.measure(subject.context, subject.graph(_uniform(subject.nodes, INT8)), image, subject.folder)


def _uniform(nodes: list[Node], bits: int) -> Policy:
    return Policy(dict.fromkeys(policy_of(nodes).bits, bits))


def options_for(subject: Subject, settings: StepSettings) -> Options:
    """What may be chosen, at what cost; the latency where it was measured."""
    record = SensitivityRecord.read(subject.folder / SensitivityRecord.FILE)
    narrow = settings.narrows_activations
    size = subject.context.experiment.data.size
    options = options_of(
        layers_of(subject.nodes, (*size, 3), subject.context.experiment.quantization.scheme),
        settings.choices,
        record.layers,
        activation_perturbation=record.activations if narrow else None,
        latency_us=latency.load(subject.folder) if _has_latency(subject) else None,
        groups=ties(subject.nodes, activations=narrow),
    )
    options = ends_exempt(options) if settings.exempt_ends else options
    return inside_blocks(options) if settings.limits.get("size_bits") == BLOCKS else options


def solve_policy(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """solve.json and policy.json: the integer program's answer."""
    options = options_for(subject, settings)
    limits = limits_of(subject, settings, options)
    started = time.perf_counter()
    policy = solve(options, limits)
    seconds = time.perf_counter() - started
    record = SolveRecord(
        key=_solve_key(subject, settings),
        limits=limits,
        int8=int8_costs(options),
        totals=totals(options, policy),
        seconds=round(seconds, 4),
        bits=dict(policy.bits),
        policy=str(policy),
    )
    record.write(subject.folder / record.FILE)
    subject.save_policy(policy)
    yield Progress("lcpaq solve", 1, 1, f"{len(policy.bits)} layers in {seconds:.3f} s")


def _solve_key(subject: Subject, settings: StepSettings) -> str:
    made = [SensitivityRecord.read(subject.folder / SensitivityRecord.FILE).key]
    if _has_latency(subject):
        made.append(LayerLatencies.read(subject.folder / LayerLatencies.FILE).key)
    return digest(subject.key, *made, sorted(settings.limits.items()), settings.choices, settings.exempt_ends)


def _has_latency(subject: Subject) -> bool:
    return (subject.folder / LayerLatencies.FILE).exists()


def scorer(subject: Subject, settings: StepSettings) -> Callable[[Policy], float]:
    """The deployed integers' metric on held-out training images; scores.jsonl keeps each."""
    images = evenly_spaced(subject.context.held_out_data, settings.scoring_images)
    key = digest(subject.key, settings.scoring_images)
    journal = Journal(subject.folder / "scores.jsonl", ScoredPolicy, key)
    known = {scored.policy: scored.score for scored in journal.read()}

    def score(policy: Policy) -> float:
        text = str(policy)
        if text not in known:
            with one_thread():
                known[text] = score_integer(subject.graph(policy), images)
            journal.append(ScoredPolicy(text, known[text]))
        return known[text]

    return score


def refine_policy(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """refine.json, and policy.json anew: the best of the program's answer, greedy descent's and the frontier's."""
    options = options_for(subject, settings)
    key = digest(_solve_key(subject, settings), settings.k, settings.factor, settings.scoring_images)
    record = RefineRecord.current(subject.folder, key)
    if record is None:
        limits = limits_of(subject, settings, options)
        scored = []
        for one in refine.refine(options, limits, scorer(subject, settings), settings.k, settings.factor):
            scored.append(one)
            yield Progress("lcpaq refine", one.done, one.total, f"{one.origin} {one.score:.2f}")
        best = refine.best(scored)
        record = RefineRecord(
            key=key,
            metric=subject.context.task.metric,
            images=min(settings.scoring_images, len(subject.context.held_out_data)),
            scored=tuple(RefinedPolicy(one.origin, str(one.policy), one.costs, one.score) for one in scored),
            best=str(best.policy),
            origin=best.origin,
        )
        record.write(subject.folder / record.FILE)
    subject.save_policy(Policy.parse(record.best))
    yield Progress("lcpaq refine", 1, 1, "done")
