"""LCPAQ's steps over a trained network; each leaves a record in its folder and is not done twice.

sensitivity.json -> (latency.json) -> solve.json, policy.json -> refine.json -> what the network's own steps add: of a
run proxy.json, shipped.json and bundle/, of the user's own network widths.json and the quantized file. A record holds
the key of what it was made from; another key makes it anew.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.lcpaq import latency
from deploy.lcpaq.blocks import inside_blocks
from deploy.lcpaq.records import (
    LayerLatencies,
    Perturbations,
    ProbeRound,
    RefinedPolicy,
    RefineRecord,
    ScoredPolicy,
    SensitivityRecord,
    SolveRecord,
)
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import BLOCKS, StepSettings
from deploy.lcpaq.subject import Scoring, Subject, keep_policy, limits_of
from deploy.run.folder import Progress
from nas.lcpaq import refine
from nas.lcpaq.activations import ACTIVATION_SENSITIVITIES, ActivationHessian
from nas.lcpaq.hessian import Problem
from nas.lcpaq.options import int8_costs, options_of
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, policy_of, ties
from nas.lcpaq.program import solve, totals
from nas.lcpaq.sensitivity import SENSITIVITIES, Hessian, Sensitivity, ready
from nas.lcpaq.tied import ends_exempt
from nas.lcpaq.traces import Samples, Trace
from nas.training.threads import one_thread

ESTIMATOR = 2
"""Raise when the Hessian's traces come to be estimated otherwise: they are computed again."""


def sensitivity(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """sensitivity.json: each layer's perturbation at every width, and what it cost in CPU seconds.

    With "activations", by the width of what the layer reads, where that may be other than 8 bits. The Hessian's probes
    are kept round by round in sensitivity.jsonl and activations.jsonl: killed, it goes on.
    """
    kind, narrows = settings.kind, settings.narrows_activations
    narrow = [settings.activation_widths] if narrows else []
    traced = [ESTIMATOR] if isinstance(SENSITIVITIES[kind], Hessian) else []
    key = digest(subject.key, kind, settings.widths, settings.images, *narrow, *traced)
    if SensitivityRecord.current(subject.folder, key):
        return
    yield Progress("lcpaq sensitivity", 0, 1, kind)
    problem, started = subject.problem(settings.images), time.process_time()
    activations: Perturbations | None = None
    with one_thread():
        journal = Journal(subject.folder / "sensitivity.jsonl", ProbeRound, key)
        layers, spent = yield from _perturbations(SENSITIVITIES[kind], problem, settings.widths, subject, journal)
        if narrows:
            of_activations, widths = ACTIVATION_SENSITIVITIES[kind], settings.activation_widths
            journal = Journal(subject.folder / "activations.jsonl", ProbeRound, key)
            activations, more = yield from _perturbations(of_activations, problem, widths, subject, journal)
            spent += more
    cpu_s = round(spent + time.process_time() - started, 2)
    record = SensitivityRecord(key, kind, settings.images, cpu_s, layers, activations, subject.loss)
    record.write(subject.folder / record.FILE)
    yield Progress("lcpaq sensitivity", 1, 1, f"{len(layers)} layers in {cpu_s:.1f} s of CPU")


def _perturbations(
    of_kind: Sensitivity, problem: Problem, widths: Sequence[int], subject: Subject, journal: Journal[ProbeRound]
) -> Generator[Progress, None, tuple[Perturbations, float]]:
    """The perturbations, and what rounds of probes of earlier, killed calls took in CPU seconds."""
    if not isinstance(of_kind, Hessian | ActivationHessian):
        return of_kind(problem, widths, subject.scheme).table, 0.0
    prepared = ready(problem, subject.scheme)
    before, started = journal.read(), time.process_time()

    def keep(samples: Samples) -> None:
        nonlocal started
        now = time.process_time()
        journal.append(ProbeRound({name: tuple(of_layer) for name, of_layer in samples.items()}, now - started))
        started = now

    estimates: dict[str, Trace] = {}
    for estimates in of_kind.estimated(prepared, [one.samples for one in before], keep):
        enough = sum(trace.converged for trace in estimates.values())
        probes = max(trace.probes for trace in estimates.values())
        yield Progress("lcpaq sensitivity", enough, len(estimates), f"{probes} probes: enough for {enough} tensors")
    return of_kind.by_trace(prepared, widths, subject.scheme, estimates).table, sum(one.cpu_s for one in before)


def measure_latency(subject: RunNetwork, _: StepSettings) -> Iterator[Progress]:
    """latency.json: every layer, isolated, on the run's board."""
    image = subject.context.evaluation[:1]
    graph = subject.graph(Policy(dict.fromkeys(policy_of(subject.nodes).bits, INT8)))
    yield from latency.measure(subject.context, graph, image, subject.folder)


def options_for(subject: Subject, settings: StepSettings) -> Options:
    """What may be chosen, at what cost; the latency where it was measured."""
    record = SensitivityRecord.read(subject.folder / SensitivityRecord.FILE)
    narrow = settings.narrows_activations
    options = options_of(
        layers_of(subject.nodes, subject.input_shape, subject.scheme),
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
    keep_policy(subject, policy)
    yield Progress("lcpaq solve", 1, 1, f"{len(policy.bits)} layers in {seconds:.3f} s")


def _solve_key(subject: Subject, settings: StepSettings) -> str:
    made = [SensitivityRecord.read(subject.folder / SensitivityRecord.FILE).key]
    if _has_latency(subject):
        made.append(LayerLatencies.read(subject.folder / LayerLatencies.FILE).key)
    return digest(subject.key, *made, sorted(settings.limits.items()), settings.choices, settings.exempt_ends)


def _has_latency(subject: Subject) -> bool:
    return (subject.folder / LayerLatencies.FILE).exists()


def scoring_of(subject: Subject, settings: StepSettings) -> Scoring:
    """The subject's; scores.jsonl keeps each score."""
    scoring = subject.scoring(settings.scoring_images)
    journal = Journal(subject.folder / "scores.jsonl", ScoredPolicy, digest(subject.key, settings.scoring_images))
    known = {scored.policy: scored.score for scored in journal.read()}

    def score(policy: Policy) -> float:
        text = str(policy)
        if text not in known:
            with one_thread():
                known[text] = scoring.score(policy)
            journal.append(ScoredPolicy(text, known[text]))
        return known[text]

    return replace(scoring, score=score)


def refine_policy(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """refine.json, and policy.json anew: the best of the program's answer, greedy descent's and the frontier's."""
    options = options_for(subject, settings)
    key = digest(_solve_key(subject, settings), settings.k, settings.factor, settings.scoring_images)
    record = RefineRecord.current(subject.folder, key)
    if record is None:
        limits, scoring = limits_of(subject, settings, options), scoring_of(subject, settings)
        scored = []
        for one in refine.refine(options, limits, scoring.score, settings.k, settings.factor):
            scored.append(one)
            yield Progress("lcpaq refine", one.done, one.total, f"{one.origin} {one.score:.2f}")
        best = refine.best(scored)
        record = RefineRecord(
            key=key,
            metric=scoring.metric,
            images=scoring.images,
            scored=tuple(RefinedPolicy(one.origin, str(one.policy), one.costs, one.score) for one in scored),
            best=str(best.policy),
            origin=best.origin,
            unit=scoring.unit,
        )
        record.write(subject.folder / record.FILE)
    keep_policy(subject, Policy.parse(record.best))
    yield Progress("lcpaq refine", 1, 1, "done")
