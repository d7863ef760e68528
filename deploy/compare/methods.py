"""The methods that are compared: ours over the tables; whole-network weight sharing with a search by evaluation.

Beside them stand the controls (`deploy.compare.controls`), which search nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from deploy.compare import controls
from deploy.compare.records import ScoredArchitecture, Spent
from deploy.compare.setup import SearchComparison, Selecting, Winner, block_tables, spent_in
from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.run.folder import Progress, cpu_seconds
from deploy.run.keys import settings_of
from deploy.run.quantizing import quantize_network
from deploy.run.settings.deployment import TEACHER_PLUS
from nas.errors import ConfigError
from nas.search.front import front
from nas.search.traversal import traverse
from nas.sharing.evolution import Evaluated, Evolution, Fitness, evolve, random_search
from nas.sharing.supernet import Supernet
from nas.sharing.training import SAMPLERS, shared_losses
from nas.space import Architecture
from nas.tasks.task import network, score_integer
from nas.training.train import Schedule, restore, train

MOST_VISITS = 10_000_000  # about 40 s


def blockwise(comparison: SearchComparison) -> Selecting:
    """Ours: the best of the exact front over the tables."""
    started = time.perf_counter(), cpu_seconds()
    best = front(comparison.candidates).best(comparison.limits)
    spent = Spent(time.perf_counter() - started[0], cpu_seconds() - started[1])
    yield Progress("blockwise", 1, 1, str(best))
    return [Winner(best, {**block_tables(comparison), "search": spent})]


def dna(comparison: SearchComparison) -> Selecting:
    """DNA's traversal of the same tables, as published; cut off after MOST_VISITS."""
    started = time.perf_counter(), cpu_seconds()
    traversal = traverse(comparison.candidates, comparison.limits, MOST_VISITS)
    spent = Spent(time.perf_counter() - started[0], cpu_seconds() - started[1])
    if traversal.best is None:
        raise ConfigError(f"dna: nothing within the budget after {MOST_VISITS} visits; leave it out of --methods")
    best = traversal.best.architecture
    yield Progress("dna", 1, 1, str(best))
    return [Winner(best, {**block_tables(comparison), "search": spent}, complete=traversal.complete)]


def spos(comparison: SearchComparison) -> Selecting:
    """Uniform single paths, then evolution."""
    return (yield from _shared(comparison, "spos", "spos", _evolution))


def fairnas(comparison: SearchComparison) -> Selecting:
    """Strict fairness, then evolution."""
    return (yield from _shared(comparison, "fairnas", "fairnas", _evolution))


def random_paths(comparison: SearchComparison) -> Selecting:
    """SPOS's supernet without evolution: as many architectures evaluated, all random."""
    return (yield from _shared(comparison, "random", "spos", _random))


METHODS: Mapping[str, Callable[[SearchComparison], Selecting]] = {
    "blockwise": blockwise,
    "dna": dna,
    "spos": spos,
    "fairnas": fairnas,
    "random": random_paths,
    TEACHER_PLUS: controls.teacher_plus,
    "random_blocks": controls.random_blocks,
    "uniform": controls.uniform,
    "fewer_layers": controls.fewer_layers,
}

Search = Callable[[SearchComparison, Fitness], Iterator[Evaluated]]


def _evolution(comparison: SearchComparison, fitness: Fitness) -> Iterator[Evaluated]:
    settings = comparison.context.experiment.compare
    evolution = Evolution(settings.evaluations, settings.population, settings.parents)
    return evolve(comparison.affordable, fitness, evolution, comparison.context.experiment.seed)


def _random(comparison: SearchComparison, fitness: Fitness) -> Iterator[Evaluated]:
    e = comparison.context.experiment
    return random_search(comparison.affordable, fitness, e.compare.evaluations, e.seed)


def sharing_schedule(comparison: SearchComparison, sampler: str) -> Schedule:
    """Equal paths for every method: where a step trains m of them, there are 1/m as many steps, rounded up."""
    e = comparison.context.experiment
    base = e.compare.supernet or e.teacher.schedule
    m = len(SAMPLERS[sampler](comparison.context.space, 0, 0))
    return replace(base, steps=-(-base.steps // m), warmup_steps=-(-base.warmup_steps // m))


def _shared(comparison: SearchComparison, name: str, sampler: str, search: Search) -> Selecting:
    context, e = comparison.context, comparison.context.experiment
    schedule = sharing_schedule(comparison, sampler)
    from_teacher = e.compare.start == "teacher"
    built_on = context.keys["teacher"] if from_teacher else comparison.data_key
    key = digest(built_on, sampler, settings_of(schedule), settings_of(e.compute))
    torch.manual_seed(e.seed + 1)
    model = Supernet(network(context.train_data, context.space, [], e.teacher.head))
    if from_teacher:
        model.start(context.teacher)
    checkpoint, stage = comparison.run.path / f"{sampler}.pt", f"train {sampler}"
    if not (comparison.run.is_done(stage, key) and checkpoint.exists()):
        model.to(e.compute.place())
        losses = shared_losses(
            model, context.train_data, SAMPLERS[sampler], batch_size=schedule.batch_size, seed=e.seed
        )
        with comparison.run.stage(stage, key):
            yield Progress(sampler, 0, schedule.steps, "starts")
            for step in train(model, losses, schedule, checkpoint, key, compute=e.compute):
                yield Progress(sampler, step.step, schedule.steps, f"supernet, loss {step.loss:.3f}")
        yield Progress(sampler, schedule.steps, schedule.steps, "done")
    restore(model.cpu(), checkpoint, key)  # quantized and simulated on the CPU

    def evaluate(architecture: Architecture) -> float:
        student = model.extract(context.student(architecture), architecture, context.calibration)
        return score_integer(quantize_network(context, student, architecture), context.held_out_data)

    quantized = digest(key, settings_of(e.quantization), list(context.resize_factors))
    evaluations = Evaluations.of(comparison.run.path / f"{sampler}-{quantized}.jsonl")
    evaluated: list[Evaluated] = []
    stage = f"{name}, search"
    yield Progress(stage, 0, e.compare.evaluations, "starts")
    for done in search(comparison, evaluations.once(evaluate)):
        evaluated.append(done)
        yield Progress(stage, len(evaluated), e.compare.evaluations, f"{done.fitness:.2f} % {done.architecture}")
    yield Progress(stage, 1, 1, "done")
    best = max(evaluated, key=lambda one: one.fitness)
    spent = {
        **({"teacher": spent_in(context.run, "teacher")} if from_teacher else {}),
        "train": spent_in(comparison.run, f"train {sampler}"),
        "search": sum((evaluations.spent(one.architecture) for one in evaluated), Spent()),
    }
    return [Winner(best.architecture, spent, len(evaluated), best.fitness)]


@dataclass(frozen=True)
class Evaluations:
    """What a supernet's architectures scored and what evaluating each took, durable as it is known."""

    journal: Journal[ScoredArchitecture]
    known: dict[str, ScoredArchitecture] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Evaluations:
        journal = Journal(path, ScoredArchitecture)
        return cls(journal, {scored.subnet: scored for scored in journal.read()})

    def once(self, evaluate: Fitness) -> Fitness:
        """`evaluate`, called once for each architecture."""

        def fitness(architecture: Architecture) -> float:
            name = str(architecture)
            if name not in self.known:
                started, started_cpu = time.perf_counter(), cpu_seconds()
                score = evaluate(architecture)
                spent = time.perf_counter() - started, cpu_seconds() - started_cpu
                self.known[name] = ScoredArchitecture(name, score, *spent)
                self.journal.append(self.known[name])
            return self.known[name].score

        return fitness

    def spent(self, architecture: Architecture) -> Spent:
        scored = self.known[str(architecture)]
        return Spent(scored.wall_s, scored.cpu_s)
