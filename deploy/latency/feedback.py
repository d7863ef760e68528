"""Whole-model measurements correct the latency table: a slope for each block and one constant.

Isolated blocks lose fusion and pay the graph's edges; both show as a block's slope and a common constant.
Ridge regression towards slope 1, strength chosen by leave-one-out, judged only on models left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import Sample, tau_b
from nas.table import Entry, Table

STRENGTHS = (1e-2, 1e-1, 1.0, 10.0, 100.0)
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Correction:
    """latency = constant + sum of slope[block] x entry; errors in percent and tau on models left out."""

    constant_us: float
    slopes: tuple[float, ...]
    strength: float
    tau_b_before: float
    tau_b_held_out: float
    error_before: float
    error_held_out: float
    applied: bool

    def record(self) -> dict[str, object]:
        return asdict(self)


def _fit(x: Matrix, y: Matrix, strength: float) -> Matrix:
    """(constant, slopes...) by least squares with slopes drawn to 1 and kept from going negative."""
    from scipy.optimize import lsq_linear

    spread = np.sqrt(strength) * np.maximum(x.std(axis=0), 1e-9)
    rows = np.vstack([np.column_stack([np.ones(len(x)), x]), np.column_stack([np.zeros(len(spread)), np.diag(spread)])])
    lower = np.r_[-np.inf, np.zeros(x.shape[1])]
    solution: Matrix = lsq_linear(rows, np.r_[y, spread], bounds=(lower, np.inf)).x
    return solution


def _left_out(x: Matrix, y: Matrix, strength: float) -> Matrix:
    """Each model predicted by a fit on all the others."""
    predicted = np.empty(len(y))
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        solution = _fit(x[others], y[others], strength)
        predicted[i] = solution[0] + x[i] @ solution[1:]
    return predicted


def _offset_only(x: Matrix, y: Matrix) -> Matrix:
    """Each model predicted by the plain sum plus the median offset of all the others."""
    gap = y - x.sum(axis=1)
    offset: Matrix = np.array([np.median(np.delete(gap, i)) for i in range(len(y))])
    predicted: Matrix = x.sum(axis=1) + offset
    return predicted


def _error(predicted: Matrix, y: Matrix) -> float:
    return float(100 * np.mean(np.abs(predicted - y) / y))


def correct(table: Table, samples: Sequence[Sample]) -> tuple[Table, Correction]:
    """The corrected table, and what was learnt; the plain table with a constant where slopes do not help."""
    x = np.array([[table[subnet] for subnet in s.architecture.subnets] for s in samples])
    y = np.array([s.measured_us for s in samples])
    held_out = {strength: _left_out(x, y, strength) for strength in STRENGTHS}
    strength = min(STRENGTHS, key=lambda s: _error(held_out[s], y))
    before = _offset_only(x, y)
    applied = _error(held_out[strength], y) < _error(before, y)
    solution = _fit(x, y, strength) if applied else np.r_[np.median(y - x.sum(axis=1)), np.ones(x.shape[1])]
    correction = Correction(
        float(solution[0]),
        tuple(float(s) for s in solution[1:]),
        strength,
        tau_b(x.sum(axis=1), y),
        tau_b(held_out[strength], y),
        _error(before, y),
        _error(held_out[strength], y),
        applied,
    )
    entries = {}
    for subnet, entry in table.entries.items():
        slope = correction.slopes[subnet.block - 1]
        scaled = Entry(entry.value * slope, entry.low * slope, entry.high * slope, entry.n, "corrected")
        entries[subnet] = scaled if applied else entry
    provenance = {**table.provenance, "correction": correction.record()}
    return Table(table.quantity, table.unit, entries, provenance), correction
