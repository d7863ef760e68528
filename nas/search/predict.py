"""The accuracy predictor: block NSRs to the final score, by ridge regression with second-order terms.

The paper's weak spot is that the sum of block NSRs does not order accuracy well, as if a unit of noise cost the same
in every block. Regressing on block NSRs is DONNA's idea (arXiv 2012.08859, section 3.3). Here the ridge draws towards
a line over the plain sum, not towards a constant: what few models cannot tell from noise is left as the sum has it.
The first-order model is additive over blocks: it is the NSR table reweighted, and searched exactly. The second-order
one is not, and ranks given candidates anew.
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
class BlockFeatures:
    """What is known of every subnet without fine-tuning.

    Attributes:
        nsr: the table.
        names: of the features of a whole architecture, `b2 nsr`, `b2 bits`, ...
        values: of a subnet, (features of a block,), standardized over its block: its NSR at the space's widest
            weights, which training can mend, and where there are several widths what its own adds, which it cannot.
    """

    nsr: Table
    names: tuple[str, ...]
    values: Mapping[Subnet, Vector]

    @classmethod
    def of(cls, space: SearchSpace, nsr: Table) -> BlockFeatures:
        """Raises `TableError` unless the table is of this space, whole and finite."""
        nsr.check(space)
        widest, several = max(space.bits), len(space.bits) > 1
        values: dict[Subnet, Vector] = {}
        for block in range(1, len(space.blocks) + 1):
            subnets = list(space.subnets(block))
            at_widest = np.array([nsr[Subnet(block, subnet.choices, widest)] for subnet in subnets])
            added = np.array([nsr[subnet] for subnet in subnets]) - at_widest
            columns = np.column_stack([at_widest, added] if several else [at_widest])
            spread = columns.std(axis=0)
            scaled = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
            values.update(zip(subnets, scaled, strict=True))
        kinds = ("nsr", "bits") if several else ("nsr",)
        return cls(nsr, tuple(f"b{i + 1} {kind}" for i in range(len(space.blocks)) for kind in kinds), values)

    def design(self, architectures: Sequence[Architecture], order: Order) -> Design:
        """What a predictor of this order reads of architectures (n)."""
        sums = np.array([self.nsr.total(a) for a in architectures])
        z = np.array([np.concatenate([self.values[s] for s in a.subnets]) for a in architectures])
        return Design(np.column_stack([np.ones(len(sums)), sums]), z if order == 1 else second_order(z))


def second_order(z: Matrix) -> Matrix:
    """`z` (n, d) and the products of every two of its columns, squares too: (n, d + d (d + 1) / 2)."""
    first, second = np.triu_indices(z.shape[1])
    return np.hstack([z, z[:, first] * z[:, second]])


@dataclass(frozen=True, eq=False)
class Design:
    """What a score is linear in: score = base @ slopes + terms @ weights, where only weights cost something.

    Attributes:
        base: (n, 2) ones and the NSR sums: with strong ridges the prediction is a line over the plain sum.
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
    """Each of y (n,) as `fit` on all the others predicts it, from one decomposition: y - residual / (1 - leverage)."""
    basis = _basis(of.base)
    u, s, _ = np.linalg.svd(_beside(basis, of.terms), full_matrices=False)
    shrunk = u * (s**2 / (s**2 + strength))
    fitted = basis @ (basis.T @ y) + shrunk @ (u.T @ y)
    leverage = np.square(basis).sum(axis=1) + (shrunk * u).sum(axis=1)
    predicted: Vector = y - (y - fitted) / (1 - leverage)
    return predicted


def _basis(base: Matrix) -> Matrix:
    """Orthonormal columns that span the base's; fewer where those are not independent (all sums equal)."""
    u, s, _ = np.linalg.svd(base, full_matrices=False)
    basis: Matrix = u[:, s > 1e-12 * s[0]]
    return basis


def _beside(basis: Matrix, x: Matrix) -> Matrix:
    """What the basis leaves of x (n, ...)."""
    rest: Matrix = x - basis @ (basis.T @ x)
    return rest


def best_strength(of: Design, y: Vector, strengths: Sequence[float] = STRENGTHS) -> float:
    """The strength with the least squared error on what is left out; of equal ones the greatest."""
    return min(sorted(strengths, reverse=True), key=lambda s: float(np.square(left_out(of, y, s) - y).sum()))


def held_out(of: Design, y: Vector) -> Vector:
    """Each of y (n,) predicted by the others, which alone choose the strength too."""
    predicted = np.empty(len(y))
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        slopes, weights = fit(of[others], y[others], best_strength(of[others], y[others]))
        predicted[i] = of.base[i] @ slopes + of.terms[i] @ weights
    return predicted


@dataclass(frozen=True, eq=False)
class Predictor:
    """score = slopes . (1, NSR sum) + weights . terms, in the score's unit.

    Attributes:
        order: of the terms: the features, or also the products of every two.
        slopes: (2,); weights: (terms,).
        strength: the ridge's.
    """

    features: BlockFeatures
    order: Order
    slopes: Vector
    weights: Vector
    strength: float

    @classmethod
    def fitted(
        cls, features: BlockFeatures, architectures: Sequence[Architecture], scores: Vector, order: Order
    ) -> Predictor:
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
        """The candidates and their expected accuracies, best first; equal ones by name."""
        given = list(candidates)
        paired = zip(given, self.predict(given).tolist(), strict=True) if given else ()
        return sorted(paired, key=lambda pair: (-pair[1], str(pair[0])))

    def table(self, space: SearchSpace) -> Table:
        """What each subnet costs: expected score = intercept - the sum over blocks. To be minimised.

        Raises `ConfigError` for the second order, whose products no sum over blocks can hold.
        """
        if self.order != 1:
            raise ConfigError("predictor: only order 1 is additive over blocks; of order 2, rank candidates anew")
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
    predictors: tuple[Predictor, Predictor],
    costs: Sequence[Table],
    limits: Limits,
    neighbours: int,
) -> list[tuple[Architecture, float]]:
    """Up to `neighbours` architectures within `limits`, and what the second of `predictors` expects, best first.

    They are the exact best of the first of `predictors` (order 1) over the tables in `costs`. Where both are the same,
    the first found is the optimum; a second-order one ranks this neighbourhood anew.

    Raises `ConfigError` saying the smallest if nothing fits.
    """
    additive, final = predictors
    tables = [additive.table(space), *costs]
    return final.ranked(found.architecture for found in k_best(candidates(space, tables), limits, neighbours))
