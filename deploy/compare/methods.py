"""The methods that are compared: ours over the tables; whole-network weight sharing with a search by evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from deploy.compare.setup import Comparison, Finding, Found, Spent, spent_in
from deploy.formats.digest import digest
from deploy.formats.files import write_atomically
from deploy.run.folder import Progress, cpu_seconds
from deploy.run.keys import settings_of
from deploy.run.quantizing import quantize_network
from nas.data.part import held_out
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


def blockwise(comparison: Comparison) -> Finding:
    """Ours: the best of the exact front over the tables."""
    started = time.perf_counter(), cpu_seconds()
    best = front(comparison.of).best(comparison.limits)
    spent = Spent(time.perf_counter() - started[0], cpu_seconds() - started[1])
    yield Progress("blockwise", 1, 1, str(best))
    return Found(best, {**_block_tables(comparison), "search": spent})


def dna(comparison: Comparison) -> Finding:
    """DNA's traversal of the same tables, as published; cut off after MOST_VISITS."""
    started = time.perf_counter(), cpu_seconds()
    found = traverse(comparison.of, comparison.limits, MOST_VISITS)
    spent = Spent(time.perf_counter() - started[0], cpu_seconds() - started[1])
    if found.best is None:
        raise ConfigError(f"dna: nothing within the budget after {MOST_VISITS} visits; leave it out of --methods")
    yield Progress("dna", 1, 1, str(found.best.architecture))
    return Found(found.best.architecture, {**_block_tables(comparison), "search": spent}, complete=found.complete)


def _block_tables(comparison: Comparison) -> dict[str, Spent]:
    """What the run spent on everything that a search over tables needs."""
    stages = {"teacher": "teacher", "train": "distil", "tables": "tables"}
    return {column: spent_in(comparison.context.run, stage) for column, stage in stages.items()}


def spos(comparison: Comparison) -> Finding:
    """Uniform single paths, then evolution."""
    return (yield from _shared(comparison, "spos", "spos", _evolution))


def fairnas(comparison: Comparison) -> Finding:
    """Strict fairness, then evolution."""
    return (yield from _shared(comparison, "fairnas", "fairnas", _evolution))


def random_paths(comparison: Comparison) -> Finding:
    """SPOS's supernet without evolution: as many architectures judged, all random."""
    return (yield from _shared(comparison, "random", "spos", _random))


METHODS: Mapping[str, Callable[[Comparison], Finding]] = {
    "blockwise": blockwise,
    "dna": dna,
    "spos": spos,
    "fairnas": fairnas,
    "random": random_paths,
}

Search = Callable[[Comparison, Fitness], Iterator[Evaluated]]


def _evolution(comparison: Comparison, fitness: Fitness) -> Iterator[Evaluated]:
    settings = comparison.context.experiment.compare
    evolution = Evolution(settings.evaluations, settings.population, settings.parents)
    return evolve(comparison.affordable, fitness, evolution, comparison.context.experiment.seed)


def _random(comparison: Comparison, fitness: Fitness) -> Iterator[Evaluated]:
    e = comparison.context.experiment
    return random_search(comparison.affordable, fitness, e.compare.evaluations, e.seed)


def sharing_schedule(comparison: Comparison, sampler: str) -> Schedule:
    """Equal paths for every method: where a step trains m of them, there are 1/m as many steps, rounded up."""
    e = comparison.context.experiment
    base = e.compare.supernet or e.teacher.schedule
    m = len(SAMPLERS[sampler](comparison.context.space, 0, 0))
    return replace(base, steps=-(-base.steps // m), warmup_steps=-(-base.warmup_steps // m))


def _shared(comparison: Comparison, name: str, sampler: str, search: Search) -> Finding:
    context, e = comparison.context, comparison.context.experiment
    schedule = sharing_schedule(comparison, sampler)
    trained = (settings_of(schedule), e.compare.held_out, settings_of(e.compute))
    key = digest(comparison.data_key, sampler, *trained)
    torch.manual_seed(e.seed + 1)
    model = Supernet(network(context.train_data, context.space, [], e.teacher.head))
    seen, apart = held_out(context.train_data, e.compare.held_out)
    checkpoint, stage = comparison.run.path / f"{sampler}.pt", f"train {sampler}"
    if not (comparison.run.is_done(stage, key) and checkpoint.exists()):
        model.to(e.compute.place())
        losses = shared_losses(model, seen, SAMPLERS[sampler], batch_size=schedule.batch_size, seed=e.seed)
        with comparison.run.stage(stage, key):
            yield Progress(sampler, 0, schedule.steps, "starts")
            for step in train(model, losses, schedule, checkpoint, key, compute=e.compute):
                yield Progress(sampler, step.step, schedule.steps, f"supernet, loss {step.loss:.3f}")
        yield Progress(sampler, schedule.steps, schedule.steps, "done")
    restore(model.cpu(), checkpoint, key)  # quantized and simulated on the CPU

    def judge(architecture: Architecture) -> float:
        candidate = model.extract(context.student(architecture), architecture, context.calibration)
        return score_integer(quantize_network(context, candidate, architecture), apart)

    quantized = digest(key, settings_of(e.quantization), list(context.resize_factors))
    journal = Journal(comparison.run.path / f"{sampler}-{quantized}.jsonl")
    judged: list[Evaluated] = []
    stage = f"{name}, search"
    yield Progress(stage, 0, e.compare.evaluations, "starts")
    for done in search(comparison, journal.keeping(judge)):
        judged.append(done)
        yield Progress(stage, len(judged), e.compare.evaluations, f"{done.fitness:.2f} % {done.architecture}")
    yield Progress(stage, 1, 1, "done")
    best = max(judged, key=lambda evaluated: evaluated.fitness)
    costs = sum((journal.spent(evaluated.architecture) for evaluated in judged), Spent())
    spent = {"train": spent_in(comparison.run, f"train {sampler}"), "search": costs}
    return Found(best.architecture, spent, len(judged), best.fitness)


class Journal:
    """What a supernet's architectures scored and what judging each took: a line each, appended as it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, dict[str, float]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a damaged line is judged again
                entry = json.loads(line)
                self._known[entry.pop("subnet")] = {name: float(entry[name]) for name in ("score", "wall_s", "cpu_s")}
        if whole != content:
            write_atomically(path, whole)

    def keeping(self, judge: Fitness) -> Fitness:
        """`judge`, asked once for each architecture."""

        def fitness(architecture: Architecture) -> float:
            if str(architecture) not in self._known:
                started = time.perf_counter(), cpu_seconds()
                score = judge(architecture)
                entry = {
                    "score": score,
                    "wall_s": time.perf_counter() - started[0],
                    "cpu_s": cpu_seconds() - started[1],
                }
                with self.path.open("a", encoding="utf8") as file:
                    file.write(json.dumps({"subnet": str(architecture), **entry}) + "\n")
                self._known[str(architecture)] = entry
            return self._known[str(architecture)]["score"]

        return fitness

    def spent(self, architecture: Architecture) -> Spent:
        entry = self._known[str(architecture)]
        return Spent(entry["wall_s"], entry["cpu_s"])
