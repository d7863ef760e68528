"""A model's latency over time on one kind of board: occasions, what changed between them, which are slower.

An occasion is compared with the first one under the same conditions, as `hilnas regress` compares stored samples, so
that a slow drift shows too. Occasions under different conditions are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np

from hil.errors import Incomparable
from hil.measurement import NOT_COMPARED, Conditions, Measurement
from hil.names import shortest
from hil.regression import Comparison, compare, levels
from hil.results import moment


@dataclass(frozen=True)
class Occasion:
    """Rounds of one file under one set of conditions, one after another.

    Attributes:
        comparison: with the first occasion under these conditions; None for that one, where this one failed, and where
            either has too few rounds.
        changed: the conditions that are not those of the occasion before, "kernel 6.6.36 -> 6.6.52".
        new_file: the file's content is not that of the occasion before.
    """

    rounds: tuple[Measurement, ...]
    comparison: Comparison | None = None
    changed: tuple[str, ...] = ()
    new_file: bool = False

    @property
    def at(self) -> datetime:
        """When it began, in UTC."""
        return moment(self.rounds[0].started_at).astimezone(UTC)

    @property
    def conditions(self) -> Conditions:
        return self.rounds[0].conditions

    @property
    def sha256(self) -> str:
        return self.rounds[0].model_sha256

    @property
    def failure(self) -> str:
        """Of the first round that failed; "" where none did."""
        return next((m.failure.reason for m in self.rounds if m.failure is not None), "")

    @property
    def levels_us(self) -> tuple[float, ...]:
        """Each round's level (`hil.regression`); none where the occasion failed."""
        if self.failure:
            return ()
        return tuple(float(levels(np.asarray(m.latencies_us, dtype=np.float64))) for m in self.rounds)

    @property
    def level_us(self) -> float:
        return float(np.median(self.levels_us))

    @property
    def slower(self) -> bool:
        return self.comparison is not None and self.comparison.slower


@dataclass(frozen=True)
class History:
    """One model's occasions on one kind of board, the oldest first."""

    model: str
    board: str
    occasions: tuple[Occasion, ...]

    def first_like(self, occasion: Occasion) -> Occasion:
        """The first occasion under the conditions of this one that did not fail: what it was compared with."""
        key = occasion.conditions.key()
        return next(s for s in self.occasions if s.conditions.key() == key and not s.failure)


def histories(measurements: Iterable[Measurement], threshold: float) -> list[History]:
    """By board and model. `threshold`: the share by which an occasion may be slower; UsageError if not above 0."""
    alike: dict[tuple[str, str], list[Measurement]] = {}
    for m in sorted(measurements, key=lambda m: moment(m.started_at)):
        alike.setdefault((m.conditions.board, m.model), []).append(m)
    return [
        History(name, board, _compared(_occasions(rounds), threshold))
        for (board, model), group in sorted(alike.items())
        for name, rounds in _files(model, group)
    ]


def _files(model: str, measurements: Sequence[Measurement]) -> list[tuple[str, list[Measurement]]]:
    """The measurements of one name: of one file that may have moved, or by path where several take turns."""
    paths = [m.path for m in measurements]
    visited = [path for i, path in enumerate(paths) if i == 0 or path != paths[i - 1]]
    if len(visited) == len(set(visited)):
        return [(model, list(measurements))]
    each = sorted(set(paths))
    names = [short if path else model for path, short in zip(each, shortest(each), strict=True)]
    return [(name, [m for m in measurements if m.path == path]) for name, path in zip(names, each, strict=True)]


def _occasions(measurements: Sequence[Measurement]) -> list[tuple[Measurement, ...]]:
    """An occasion ends where the file or the conditions change, and where the rounds are counted anew."""
    found: list[list[Measurement]] = []
    for m in measurements:
        last = found[-1][-1] if found else None
        goes_on = last is not None and m.round > last.round and m.model_sha256 == last.model_sha256
        if last is not None and goes_on and m.conditions.key() == last.conditions.key():
            found[-1].append(m)
        else:
            found.append([m])
    return [tuple(rounds) for rounds in found]


def _compared(occasions: Iterable[tuple[Measurement, ...]], threshold: float) -> tuple[Occasion, ...]:
    found: list[Occasion] = []
    first: dict[str, Occasion] = {}
    for rounds in occasions:
        occasion, before = Occasion(rounds), found[-1] if found else None
        key = occasion.conditions.key()
        comparison = _comparison(first[key], occasion, threshold) if key in first and not occasion.failure else None
        changed = _changes(before.conditions, occasion.conditions) if before else ()
        new_file = before is not None and before.sha256 != occasion.sha256
        found.append(Occasion(rounds, comparison, changed, new_file))
        if not occasion.failure:
            first.setdefault(key, occasion)
    return tuple(found)


def _comparison(base: Occasion, head: Occasion, threshold: float) -> Comparison | None:
    before, now = ([m.latencies_us for m in occasion.rounds] for occasion in (base, head))
    try:
        return compare(before, now, threshold, interleaved=False)
    except Incomparable:  # too few rounds
        return None


def _changes(before: Conditions, now: Conditions) -> tuple[str, ...]:
    names = [field.name for field in fields(Conditions) if field.name not in NOT_COMPARED]
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in names]
    return tuple(f"{name} {old or 'none'} -> {new or 'none'}" for name, old, new in pairs if old != new)
