"""Board time where it counts: which blocks, and which full networks, to measure next.

The aim is the front of (NSR, latency), not the table. `deploy.latency.acquisition` chooses each batch. It ends when the
front is stable: when choosing by the mean table is expected to lose next to nothing of the hypervolume, and to rank
architectures as the true one does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.latency.acquisition import Networks, PosteriorFronts, next_batch
from deploy.latency.context_model import BlockLatencies, ContextModel
from deploy.latency.features import BlockFeatures
from deploy.latency.latency_source import LatencySource, Observations
from deploy.latency.predictor import BlockModel, fit
from nas.space import SearchSpace, Subnet
from nas.table import Table

NOTHING = Observations()


@dataclass(frozen=True)
class Plan:
    """How to spend board time.

    Attributes:
        budget_s: of the board; None: until the front is stable.
        most_blocks: to be measured; None: all of the space.
        batch: measurements between two fits.
        tolerance: expected loss of hypervolume, as a share, below which the front is stable.
        tau_tolerance: the largest expected distance from 1 of tau-b between the mean table and the drawn ones.
        everywhere: share of the relevance that random architectures have.
        patience: successive fits that must find the front stable.
        draws: tables drawn from the posterior.
        seed: of all random choices.
    """

    budget_s: float | None = None
    most_blocks: int | None = None
    batch: int = 24
    tolerance: float = 0.002
    tau_tolerance: float = 0.01
    everywhere: float = 0.5
    patience: int = 2
    draws: int = 12
    seed: int = 0

    def finds_stable(self, fronts: PosteriorFronts) -> bool:
        return fronts.expected_loss < self.tolerance and fronts.expected_tau > 1 - self.tau_tolerance

    def ended(self, observed: Observations, cells: int, stable_fits: int) -> str:
        """Why no more is measured; empty: it continues."""
        blocks = len(observed.blocks)
        if stable_fits >= self.patience:
            return "the front is stable"
        if self.budget_s is not None and observed.seconds >= self.budget_s:
            return "the budget is spent"
        if blocks >= min(self.most_blocks or cells, cells):
            return "every block is measured" if blocks >= cells else "as many blocks as were asked for"
        return ""


@dataclass(frozen=True, eq=False)
class ActiveStep:
    """After a batch.

    Attributes:
        observed: everything measured so far.
        model: fitted to it.
        fronts: what is expected of it.
        ended: why no more is measured; empty: it continues.
    """

    observed: Observations
    model: BlockModel
    fronts: PosteriorFronts
    ended: str

    def __str__(self) -> str:
        """What is expected of the table."""
        loss, tau = self.fronts.expected_loss, self.fronts.expected_tau
        expected = f"expected loss of the front {loss:.2%}, tau-b {tau:.3f}"
        return f"{expected}; {self.ended}" if self.ended else expected


def measure_actively(
    space: SearchSpace,
    features: BlockFeatures,
    nsr: Table,
    source: LatencySource,
    plan: Plan,
    *,
    observed: Observations = NOTHING,
) -> Iterator[ActiveStep]:
    """Measure until the front is stable or the plan's limits are reached; one step per batch. Deterministic by seed.

    `observed`: what was measured before; it is not measured again.
    """
    rng = np.random.default_rng(plan.seed)
    first = [s for s in covering(space, tuple(features.rows), random.Random(plan.seed)) if s not in observed.blocks]
    observed = observed.extended(source, first[: plan.most_blocks], ())
    stable_fits = 0
    while True:
        model = fit(features, observed.blocks, seed=plan.seed)
        fronts = PosteriorFronts.drawn(model, nsr, plan.draws, rng)
        stable_fits = stable_fits + 1 if plan.finds_stable(fronts) else 0
        ended = plan.ended(observed, len(model.cells), stable_fits)
        yield ActiveStep(observed, model, fronts, ended)
        if ended:
            return
        context = ContextModel.fitted(space, BlockLatencies.of_model(model), observed.networks)
        networks = Networks.of(context, fronts, model, source, observed)
        size = min(plan.batch, (plan.most_blocks or len(model.cells)) - int(model.measured.sum()))
        blocks, architectures = next_batch(model, fronts, source, networks, size=size, random_share=plan.everywhere)
        observed = observed.extended(source, blocks, architectures)


def covering(space: SearchSpace, cells: Sequence[Subnet], rng: random.Random) -> list[Subnet]:
    """A first batch with every choice twice in every layer of every block, as far as `cells` allow."""
    chosen: dict[Subnet, None] = {}
    by_choices = {(s.block, s.choices): s for s in cells}
    for block, spec in enumerate(space.blocks, start=1):
        for _ in range(2):
            columns = [rng.sample(space.choices, len(space.choices)) for _ in range(spec.layers)]
            for choices in zip(*columns, strict=True):
                if (block, choices) in by_choices:
                    chosen[by_choices[block, choices]] = None
    return list(chosen)
