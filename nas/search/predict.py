"""The accuracy predictor: block NSRs to the final score, by ridge regression with second-order terms.

The paper's weakness is that the sum of block NSRs does not rank accuracy well: a unit of noise does not cost the same
in every block. Regression on block NSRs is DONNA's idea (arXiv 2012.08859, section 3.3). Here the ridge shrinks towards
a line over the plain sum, not towards a constant: effects that few models cannot distinguish from noise stay as in the
sum. The first-order model is additive over blocks: it is the NSR table reweighted, and searched exactly. The
second-order one is not additive, and reranks given candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.search.candidates import Limits, candidates
from nas.search.k_best import k_best
from nas.space import Architecture, SearchSpace, Subnet
from nas.table import Table

Order = Literal[1, 2]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(float(s) for s in np.logspace(-2, 4, 25))


@dataclass(frozen=True, eq=False)
class NsrFeatures:
    """Features of every subnet that need no fine-tuning.

    Attributes:
        nsr: the table.
        names: of the features of an architecture, `b2 nsr`, `b2 bits`, ...
        values: of a subnet, (features of a block,), standardized over its block: its NSR at the space's widest
            weights, which training can reduce, and where there are several widths the NSR that its own width adds,
            which training cannot reduce.
    """

    nsr: Table
    names: tuple[str, ...]
    values: Mapping[Subnet, Vector]

    @classmethod
    def of(cls, space: SearchSpace, nsr: Table) -> NsrFeatures:
        """Raises `TableError` unless the table is of this space, complete and finite."""
        nsr.check(space)
        widest, several = max(space.bits), len(space.bits) > 1
        values: dict[Subnet, Vector] = {}
        for block in range(1, len(space.blocks) + 1):
            subnets = list(space.subnets(block))
            at_widest = np.array([nsr[Subnet(block, subnet.choices, widest)] for subnet in subnets])
            added = np.array([nsr[subnet] for subnet in subnets]) - at_widest
            columns = np.column_stack([at_widest, added] if several else [at_widest])
            std = columns.std(axis=0)
            scaled = (columns - columns.mean(axis=0)) / np.where(std > 0, std, 1.0)
            values.update(zip(subnets, scaled, strict=True))
        kinds = ("nsr", "bits") if several else ("nsr",)
        return cls(nsr, tuple(f"b{i + 1} {kind}" for i in range(len(space.blocks)) for kind in kinds), values)

    def design(self, architectures: Sequence[Architecture], order: Order) -> Design:
        """The inputs of a predictor of this order for architectures (n)."""
        sums = np.array([self.nsr.total(a) for a in architectures])
        z = np.array([np.concatenate([self.values[s] for s in a.subnets]) for a in architectures])
        return Design(np.column_stack([np.ones(len(sums)), sums]), z if order == 1 else second_order(z))


def second_order(z: Matrix) -> Matrix:
    """`z` (n, d) and the products of every two of its columns, squares too: (n, d + d (d + 1) / 2)."""
    first, second = np.triu_indices(z.shape[1])
    return np.hstack([z, z[:, first] * z[:, second]])


@dataclass(frozen=True, eq=False)
class Design:
    """A design matrix in two parts: score = base @ slopes + terms @ weights, where only the weights are penalised.

    Attributes:
        base: (n, 2) ones and the NSR sums: with a strong ridge the prediction is a line over the plain sum.
        terms: (n, terms) standardized features, and in the second order their products.
    """

    base: Matrix
    terms: Matrix

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Design:
        return Design(self.base[rows], self.terms[rows])


def fit(of: Design, y: Vector, strength: float) -> tuple[Vector, Vector]:
    """Slopes (2,) and weights (terms,) that minimise |y - base slopes - terms weights|^2 + strength |weights|^2."""
    basis = _basis(of.base)
    u, s, vt = np.linalg.svd(_beside(basis, of.terms), full_matrices=False)
    weights: Vector = vt.T @ (s / (s**2 + strength) * (u.T @ _beside(basis, y)))
    slopes: Vector = np.linalg.lstsq(of.base, y - of.terms @ weights)[0].astype(np.float64)
    return slopes, weights


def left_out(of: Design, y: Vector, strength: float) -> Vector:
    """Each of y (n,) as predicted by `fit` on all others, from one decomposition: y - residual / (1 - leverage)."""
    basis = _basis(of.base)
    u, s, _ = np.linalg.svd(_beside(basis, of.terms), full_matrices=False)
    shrunk = u * (s**2 / (s**2 + strength))
    fitted = basis @ (basis.T @ y) + shrunk @ (u.T @ y)
    leverage = np.square(basis).sum(axis=1) + (shrunk * u).sum(axis=1)
    predicted: Vector = y - (y - fitted) / (1 - leverage)
    return predicted


def _basis(base: Matrix) -> Matrix:
    """Orthonormal columns that span those of the base; fewer where they are not independent (all sums equal)."""
    u, s, _ = np.linalg.svd(base, full_matrices=False)
    basis: Matrix = u[:, s > 1e-12 * s[0]]
    return basis


def _beside(basis: Matrix, x: Matrix) -> Matrix:
    """The part of x (n, ...) that is orthogonal to the basis."""
    rest: Matrix = x - basis @ (basis.T @ x)
    return rest


def best_strength(of: Design, y: Vector, strengths: Sequence[float] = STRENGTHS) -> float:
    """The strength with the least squared leave-one-out error; of equal ones the greatest."""
    return min(sorted(strengths, reverse=True), key=lambda s: float(np.square(left_out(of, y, s) - y).sum()))


def held_out(of: Design, y: Vector) -> Vector:
    """Each of y (n,) predicted from the others, which also choose the strength."""
    predicted = np.empty(len(y))
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        slopes, weights = fit(of[others], y[others], best_strength(of[others], y[others]))
        predicted[i] = of.base[i] @ slopes + of.terms[i] @ weights
    return predicted


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """score = slopes . (1, NSR sum) + weights . terms, in the score's unit.

    Attributes:
        features: of the subnets.
        order: 1: the terms are the features; 2: also the products of every two.
        slopes: (2,).
        weights: (terms,).
        strength: of the ridge.
    """

    features: NsrFeatures
    order: Order
    slopes: Vector
    weights: Vector
    strength: float

    @classmethod
    def fitted(
        cls, features: NsrFeatures, architectures: Sequence[Architecture], scores: Vector, order: Order
    ) -> AccuracyPredictor:
        """Fitted to fine-tuned `architectures` (n) and their scores (n,)."""
        of = features.design(architectures, order)
        strength = best_strength(of, scores)
        return cls(features, order, *fit(of, scores, strength), strength)

    def predict(self, architectures: Sequence[Architecture]) -> Vector:
        """The expected score of each, (n,)."""
        of = self.features.design(architectures, self.order)
        predicted: Vector = of.base @ self.slopes + of.terms @ self.weights
        return predicted

    def ranked(self, candidates: Iterable[Architecture]) -> list[tuple[Architecture, float]]:
        """The candidates and their expected scores, best first; equal ones by name."""
        given = list(candidates)
        paired = zip(given, self.predict(given).tolist(), strict=True) if given else ()
        return sorted(paired, key=lambda pair: (-pair[1], str(pair[0])))

    def table(self, space: SearchSpace) -> Table:
        """The cost of each subnet: expected score = intercept - the sum over blocks. To be minimised.

        Raises `ConfigError` for the second order, whose products are not additive over blocks.
        """
        if self.order != 1:
            raise ConfigError("predictor: only order 1 is additive over blocks; with order 2, rerank candidates")
        intercept, slope = (float(value) for value in self.slopes)
        weights = self.weights.reshape(len(space.blocks), -1)
        nsr = self.features.nsr
        entries = {
            s: Estimate.exact(float(-slope * nsr[s] - z @ weights[s.block - 1]))
            for s, z in self.features.values.items()
        }
        return Table("loss", "points", entries, {**nsr.provenance, "intercept": intercept})

    def record(self) -> dict[str, Any]:
        """The weights by term, largest first."""
        names = list(self.features.names)
        if self.order == 2:
            first, second = np.triu_indices(len(names))
            names += [f"{names[i]} * {names[j]}" for i, j in zip(first.tolist(), second.tolist(), strict=True)]
        weights = sorted(zip(names, self.weights.tolist(), strict=True), key=lambda pair: -abs(pair[1]))
        intercept, slope = self.slopes.tolist()
        known = {"order": self.order, "strength": self.strength, "intercept": intercept, "nsr_sum": slope}
        return {**known, "weights": dict(weights)}


def search(
    space: SearchSpace,
    predictors: tuple[AccuracyPredictor, AccuracyPredictor],
    costs: Sequence[Table],
    limits: Limits,
    neighbours: int,
) -> list[tuple[Architecture, float]]:
    """Up to `neighbours` architectures within `limits`, and their scores by the second of `predictors`, best first.

    They are the exact best of the first of `predictors` (order 1) over the tables in `costs`. Where both are the same,
    the first architecture is the optimum; a second-order predictor reranks this neighbourhood.

    Raises `ConfigError` naming the smallest if nothing fits.
    """
    additive, final = predictors
    tables = [additive.table(space), *costs]
    return final.ranked(ranked.architecture for ranked in k_best(candidates(space, tables), limits, neighbours))
