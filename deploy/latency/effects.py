"""Which of many possible effects a few latencies show: forward selection that noise does not pass.

    y = base . a + sum of the selected columns . b + noise

Each step takes the column of largest partial correlation with what is left of y. It is kept if so large a maximum over
all columns is rare where the rows of y are exchanged (permutation of residuals, Freedman and Lane 1983; the maximum
accounts for the number of columns tried, Westfall and Young 1993), and if the same choice made on the other folds
predicts those left out better than without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.latency.features import Matrix, Vector

ALPHA = 0.01  # chance that noise alone passes a step
PERMUTATIONS = 2000
FOLDS = 5
MOST = 6  # effects
ALIASED = 1e-9  # of a column's length: what is left of one that others add up to
ALIKE = 1e-9  # of correlations: the first named counts


@dataclass(frozen=True, eq=False)
class Effects:
    """The selected effects, in the order of selection.

    Attributes:
        names: of their columns.
        sizes: (effects,) least squares, in the unit of y.
        covariance: (effects, effects) of the sizes.
        p_values: (effects,) adjusted for all columns that were tried.
    """

    names: tuple[str, ...]
    sizes: Vector
    covariance: Matrix
    p_values: tuple[float, ...]

    def of(self, columns: Mapping[str, float]) -> tuple[float, float]:
        """What these columns' values add, and its standard error; columns that are not named are zero."""
        x = np.array([columns.get(name, 0.0) for name in self.names])
        return float(x @ self.sizes), float(np.sqrt(max(x @ self.covariance @ x, 0.0)))


def effects(y: Vector, base: Matrix, columns: Mapping[str, Vector], noise: Vector, seed: int = 0) -> Effects:
    """The effects that y (n,) shows beyond a linear function of `base` (n, k); `columns`: what is tried, (n,) each.

    `noise`: (n,) that each y has, up to a factor. Of columns that say the same the first is named, and of two opposite
    ones that which adds.
    """
    rng, names = np.random.default_rng(seed), list(columns)
    y, base, x = y / noise, base / noise[:, None], np.column_stack([*columns.values()]) / noise[:, None]
    chosen: list[int] = []
    p_values: list[float] = []
    while len(chosen) < min(MOST, len(y) - base.shape[1] - 2):
        fitted = np.column_stack([base, x[:, chosen]])
        best = _largest(y, fitted, x)
        if best is None:
            break
        p = _p_value(y, fitted, x, rng)
        if p > ALPHA or not _predicts(y, fitted, x):
            break
        chosen.append(best)
        p_values.append(p)
    design = np.column_stack([base, x[:, chosen]])
    inverse = np.linalg.pinv(design.T @ design)
    sizes = inverse @ design.T @ y
    variance = float(np.square(y - design @ sizes).sum()) / max(len(y) - design.shape[1], 1)
    first = base.shape[1]
    return Effects(tuple(names[i] for i in chosen), sizes[first:], variance * inverse[first:, first:], tuple(p_values))


def _beside(basis: Matrix, values: Matrix) -> Matrix:
    """The part of `values` (n, ...) that no linear function of `basis` (n, k) explains."""
    q, _ = np.linalg.qr(basis)
    rest: Matrix = values - q @ (q.T @ values)
    return rest


def _directions(fitted: Matrix, x: Matrix) -> Matrix:
    """The columns of x beside `fitted`, of length 1; of length 0 where nothing is left of one."""
    rest = _beside(fitted, x)
    lengths = np.linalg.norm(rest, axis=0)
    left = lengths > ALIASED * np.linalg.norm(x, axis=0)
    directions: Matrix = np.where(left, rest / np.where(left, lengths, 1.0), 0.0)
    return directions


def _largest(y: Vector, fitted: Matrix, x: Matrix) -> int | None:
    """The column of the largest partial correlation with y; None where none is left or y is explained."""
    rest = _beside(fitted, y)
    length = float(np.linalg.norm(rest))
    if length <= ALIASED * float(np.linalg.norm(y)):
        return None
    correlation = _directions(fitted, x).T @ rest / length
    largest = np.abs(correlation).max()
    if largest == 0:
        return None
    alike = np.flatnonzero(np.abs(correlation) >= largest - ALIKE)
    adding = alike[correlation[alike] > 0]
    return int(adding[0] if len(adding) else alike[0])


def _p_value(y: Vector, fitted: Matrix, x: Matrix, rng: np.random.Generator) -> float:
    """How often permuted residuals have as large a partial correlation with any column."""
    rest, directions = _beside(fitted, y), _directions(fitted, x)
    permuted = _beside(fitted, np.column_stack([rng.permutation(rest) for _ in range(PERMUTATIONS)]))
    largest = np.abs(directions.T @ (permuted / np.linalg.norm(permuted, axis=0))).max(axis=0)
    observed = np.abs(directions.T @ rest).max() / np.linalg.norm(rest)
    return float((1 + (largest >= observed - ALIKE).sum()) / (1 + PERMUTATIONS))


def _predicts(y: Vector, fitted: Matrix, x: Matrix) -> bool:
    """Whether one more column, chosen anew without each fold, predicts the folds better than none."""
    errors = np.zeros((2, len(y)))
    for number in range(min(FOLDS, len(y))):
        out = np.arange(len(y)) % FOLDS == number
        plain = fitted[~out]
        errors[0, out] = y[out] - fitted[out] @ np.linalg.lstsq(plain, y[~out])[0]
        best = _largest(y[~out], plain, x[~out])
        wider = fitted if best is None else np.column_stack([fitted, x[:, best]])
        errors[1, out] = y[out] - wider[out] @ np.linalg.lstsq(wider[~out], y[~out])[0]
    return bool(np.square(errors[1]).sum() < np.square(errors[0]).sum())
