"""What a store's measurements come to: a summary for each model and its conditions.

Only the latest attempt at a job counts, and a model that failed in one round has no latency under those conditions
(see hil.measure.pooled).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from hil.errors import Incomparable, UsageError
from hil.measure import pooled
from hil.measurement import Conditions, Measurement, Status
from hil.names import Known
from hil.stats import LatencySummary, summarize


@dataclass(frozen=True)
class Wanted:
    """Which results.

    Attributes:
        model: a glob over the models' names and paths, case and all.
        board: the board's name or its fleet's; None: any.
        status: "failed" where any round failed; None: any.
        since: measurements that began earlier do not count.
    """

    model: str = "*"
    board: str | None = None
    status: Status | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Result:
    """All rounds of one model under one set of conditions.

    Attributes:
        latency: None where a round failed.
        flags: each that any round has, with the number of rounds that have it.
        reason: of the first failure; None where there is none.
    """

    measurements: tuple[Measurement, ...]
    latency: LatencySummary | None
    flags: Mapping[str, int]
    reason: str | None

    @property
    def model(self) -> str:
        return self.measurements[-1].model

    @property
    def model_sha256(self) -> str:
        return self.measurements[-1].model_sha256

    @property
    def known(self) -> Known:
        last = self.measurements[-1]
        return Known(last.model, last.path, last.model_sha256)

    @property
    def conditions(self) -> Conditions:
        """Of the last round; earlier ones may differ in what is not compared."""
        return self.measurements[-1].conditions

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "path": self.known.path,
            "measured_from": min(m.started_at for m in self.measurements),
            "measured_to": max(m.started_at for m in self.measurements),
            "status": "ok" if self.latency else "failed",
            "rounds": len(self.measurements),
            **(asdict(self.latency) if self.latency else {}),
            "flags": dict(self.flags),
            "reason": self.reason,
            "conditions_key": self.conditions.key(),
            "conditions": self.conditions.to_json(),
        }


def moment(text: str) -> datetime:
    """An ISO 8601 date or time, UTC where it names no zone. Raises UsageError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text}: no ISO 8601 time; for example 2026-01-31 or 2026-01-31T20:00+01:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def days(measurements: Iterable[Measurement]) -> str:
    """When they were taken, in UTC: a day, or the first and the last one."""
    taken = sorted({moment(m.started_at).astimezone(UTC).date().isoformat() for m in measurements})
    return " to ".join(dict.fromkeys((taken[0], taken[-1])))


def minutes(measurements: Iterable[Measurement]) -> str:
    """As `days`, with the time of the first one."""
    kept = list(measurements)
    first = min(moment(m.started_at) for m in kept).astimezone(UTC)
    day, *last = days(kept).split(" to ")
    return " to ".join([f"{day} {first:%H:%M}", *last])


def results(measurements: Iterable[Measurement], wanted: Wanted) -> list[Result]:
    """By board, conditions and model. Raises Incomparable when there is none."""
    latest: dict[str, Measurement] = {}
    for m in measurements:
        if m.job_id not in latest or latest[m.job_id].attempt < m.attempt:
            latest[m.job_id] = m
    alike: dict[str, list[Measurement]] = {}
    for m in latest.values():
        if _is_wanted(m, wanted):
            alike.setdefault(m.conditions.key(), []).append(m)
    found = [result for group in alike.values() for result in _results_of(group)]
    kept = [result for result in found if wanted.status in (None, "ok" if result.latency else "failed")]
    if not kept:
        raise Incomparable("no such measurement in the store: ask for less (--model, --board, --status, --since)")
    return sorted(kept, key=lambda result: (result.conditions.board, result.conditions.key(), result.model))


def _is_wanted(m: Measurement, wanted: Wanted) -> bool:
    names = (m.model, PurePath(m.model).name, m.path)
    return (
        any(fnmatchcase(name, wanted.model) for name in names)
        and wanted.board in (None, m.conditions.board, m.conditions.unit)
        and (wanted.since is None or moment(m.started_at) >= wanted.since)
    )


def _results_of(alike: Sequence[Measurement]) -> Iterable[Result]:
    """Of measurements under the same conditions."""
    pools = pooled(alike)
    models: dict[str, list[Measurement]] = {}
    for m in alike:
        models.setdefault(m.model_sha256, []).append(m)
    for sha256, group in models.items():
        reasons = [m.failure.reason for m in group if m.failure is not None]
        yield Result(
            measurements=tuple(group),
            latency=summarize(pools[sha256]) if sha256 in pools else None,
            flags=dict(sorted(Counter(flag for m in group for flag in m.flags).items())),
            reason=reasons[0] if reasons else None,
        )
