"""The candidates within budgets, best first: by a sum over blocks, or by what their integers compute.

The k least sums are exact (`nas.search.k_best`). They may then be assembled from the supernets, quantized, and ranked
by the divergence of their integers' outputs from the teacher's on held-out training images (`nas.tasks.divergence`).
RUN/search/divergences.jsonl gets lines as parts of the tree end; what is there is not computed again.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from deploy.compile.artifact import calibration_batch, kernels_of
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.run.borrowed import BorrowedRun
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.networks import assembled
from deploy.search.candidate import Candidate
from deploy.search.estimates import estimate_table
from nas.data.batches import images_of
from nas.errors import ConfigError
from nas.search.candidates import Limits
from nas.search.front import front
from nas.search.union import CostTables, k_best_of_schemes, limits_of_schemes
from nas.space import Architecture
from nas.tasks.divergence import NetworkTree
from nas.training.threads import one_thread

IMAGES = 16  # held-out ones, or all if there are fewer
PART = 25  # candidates of a task: fewer share less of the tree, more are lost by a kill


@dataclass(frozen=True)
class DivergenceRecord:
    """A line of divergences.jsonl."""

    subnet: str
    divergence: float


@dataclass(frozen=True)
class CandidateTree:
    """Architectures of one scheme that mostly begin alike, as they travel to a worker."""

    run: BorrowedRun
    scheme: QuantizationScheme
    architectures: tuple[Architecture, ...]

    def __str__(self) -> str:
        return f"{len(self.architectures)} candidates from {self.architectures[0]} on"


def ranked(
    context: Context, schemes: Sequence[CostTables], limits: Limits, count: int, whose: str = ""
) -> Generator[Progress, None, list[Candidate]]:
    """The `count` best candidates within `limits` on full networks (by quantity, in the tables' units), best first.

    Raises `ConfigError`, beginning with `whose`, if no scheme has a model that fits.
    """
    wanted = context.experiment.search.candidates
    found = least_sums(context, schemes, limits, max(count, wanted), whose)
    if wanted:
        diverging = yield from divergences(context, found)
        found = sorted(diverging, key=lambda candidate: candidate.estimate)
    return found[:count]


def least_sums(
    context: Context, schemes: Sequence[CostTables], limits: Limits, count: int, whose: str = ""
) -> list[Candidate]:
    """The exact `count` best by the sum of `[search] estimate` over all schemes."""
    name = context.experiment.search.estimate
    estimated = [
        replace(tables, tables={**tables.tables, "estimate": estimate_table(tables.tables, name)}) for tables in schemes
    ]
    quantities = ["estimate", *(quantity for quantity in ("size", "latency") if quantity in limits)]
    candidates = [tables.candidates(context.space, quantities) for tables in estimated]
    within = limits_of_schemes(estimated, [front(each) for each in candidates], limits, whose)
    points = k_best_of_schemes(estimated, candidates, within, count)
    several = len(schemes) > 1
    return [
        Candidate(point.architecture, QuantizationScheme.parse(point.scheme) if several else None, point.costs[0])
        for point in points
    ]


def divergences(context: Context, candidates: Sequence[Candidate]) -> Generator[Progress, None, list[Candidate]]:
    """`candidates` with their divergences as estimates, in their order."""
    main = context.experiment.quantization.main_scheme
    by_scheme: dict[QuantizationScheme, list[Architecture]] = {}
    for candidate in candidates:
        by_scheme.setdefault(candidate.scheme or main, []).append(candidate.architecture)
    journals = {scheme: _journal(context, scheme) for scheme in by_scheme}
    known = {
        (scheme, record.subnet): record.divergence for scheme, journal in journals.items() for record in journal.read()
    }
    trees = [
        tree
        for scheme, architectures in by_scheme.items()
        for tree in _trees(context, scheme, [a for a in architectures if (scheme, str(a)) not in known])
    ]
    with closing(context.engine.each(_work, trees)) as ended:
        for tree, records in ended:
            journals[tree.scheme].append(*records)
            known |= {(tree.scheme, record.subnet): record.divergence for record in records}
            done = sum((candidate.scheme or main, str(candidate.architecture)) in known for candidate in candidates)
            yield Progress("search", done, len(candidates), f"divergence from the teacher: {tree}")
    return [replace(c, estimate=known[c.scheme or main, str(c.architecture)]) for c in candidates]


def _journal(context: Context, scheme: QuantizationScheme) -> Journal[DivergenceRecord]:
    key = digest(context.keys["tables"], "divergence", *scheme.key(context.arithmetic), IMAGES)
    return Journal(context.path / "search" / "divergences.jsonl", DivergenceRecord, key)


def _trees(context: Context, scheme: QuantizationScheme, architectures: Sequence[Architecture]) -> list[CandidateTree]:
    """Parts of the tree, in its order."""
    ordered = sorted(architectures, key=lambda architecture: architecture.subnets)
    parts = (ordered[start : start + PART] for start in range(0, len(ordered), PART))
    return [CandidateTree(BorrowedRun.of(context), scheme, tuple(part)) for part in parts]


def _work(task: CandidateTree) -> list[DivergenceRecord]:
    context = task.run.context()
    if len(context.calibration) < 2:
        raise ConfigError(
            "search.candidates: one image calibrates no pooled branch; raise quantization.calibration_images"
        )
    scheme = task.scheme.scheme(context.experiment.quantization.scheme)
    with one_thread(), torch.no_grad():
        images = calibration_batch(images_of(context.held_out_data, IMAGES))
        targets = context.teacher(images)
        network = assembled(context, task.architectures[0])
        kernels = kernels_of(task.scheme.form, context.arithmetic)
        tree = NetworkTree(network, copy.deepcopy(context.supernets), scheme, kernels)
        found = tree.divergences(context.calibration, images, targets, task.architectures)
        return [DivergenceRecord(str(architecture), divergence) for architecture, divergence in found]
