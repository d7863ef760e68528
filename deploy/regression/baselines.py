"""The latency suite of one kind of board: `baselines/<kind>/NAME.tflite`, its golden pair, and NAME.json.

NAME.json holds the samples, round by round, with their conditions, and may hold a threshold of that model. Without the
.tflite the samples alone are the baseline.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, ClassVar

from pydantic import StrictFloat, StrictStr

from deploy.compile.artifact import Artifact
from deploy.formats.files import read_json, write_atomically
from deploy.run.records.base import OMITTED, VERSION, Record
from hil.boards.config import BoardConfig
from hil.errors import Incomparable, UsageError
from hil.measurement import Conditions, Measurement
from hil.results import moment
from hil.stage import sha256_of
from hil.trust import Timer
from nas.errors import ConfigError

FORMER = "hilnas-baseline/2"
"""The `format` of baselines that have no schema version, and the same fields otherwise."""


@dataclass(frozen=True)
class BaselineRecord(Record):
    """NAME.json of a suite.

    Attributes:
        threshold: the share by which a head may be slower; None: the caller's.
        model_sha256: of the .tflite that was measured.
        conditions: of the samples.
        rounds_us: latencies, microseconds, one tuple per round.
        measured_at: when the first round began, ISO 8601 in UTC; None: not known, an earlier version wrote it.
        resolution_us: the smallest difference between two samples; None: whole microseconds, as earlier versions timed.
    """

    threshold: StrictFloat | None
    model_sha256: str
    conditions: Conditions
    rounds_us: tuple[tuple[StrictFloat, ...], ...]
    measured_at: StrictStr | None = field(default=None, metadata=OMITTED)
    resolution_us: StrictFloat | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "NAME.json"
    COMMAND: ClassVar[str] = "regress --update"

    def __post_init__(self) -> None:
        if self.threshold is not None and not self.threshold > 0:
            raise ConfigError(f"'threshold': {self.threshold}: give a share above 0, or null")
        if any(us < 0 for latencies_us in self.rounds_us for us in latencies_us):
            raise ConfigError("'rounds_us': a latency is below 0")
        if self.resolution_us is not None and not self.resolution_us > 0:
            raise ConfigError(f"'resolution_us': {self.resolution_us}: give microseconds above 0, or leave it out")

    @classmethod
    def read(cls, path: Path) -> BaselineRecord:
        raw = read_json(path)
        if raw.get("format") == FORMER and VERSION not in raw:
            raw = {VERSION: cls.SCHEMA, **{name: value for name, value in raw.items() if name != "format"}}
        return cls.from_json(raw, str(path))

    @classmethod
    def arranged(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Conditions are read strictly too."""
        conditions = raw.get("conditions")
        return raw | ({"conditions": Conditions.from_json(conditions)} if isinstance(conditions, dict) else {})


@dataclass(frozen=True)
class Baseline:
    """One model of a suite.

    Attributes:
        artifact: where its files are, if they are kept.
        record: its samples.
    """

    artifact: Artifact
    record: BaselineRecord

    @property
    def taken(self) -> str:
        """When its samples were taken, for people."""
        at = self.record.measured_at
        return f"{moment(at).astimezone(UTC):%Y-%m-%d %H:%M}" if at else "at an unknown time"

    @property
    def too_coarse(self) -> str:
        """Why its samples are too coarse to compare with, or ""; what is timed now is not in whole microseconds."""
        latencies_us = [us for round_us in self.record.rounds_us for us in round_us]
        if self.record.resolution_us is not None or not Timer().too_coarse(latencies_us):
            return ""
        return f"its samples ({statistics.median(latencies_us):g} us) were taken in whole microseconds"

    def differing(self, now: Conditions) -> list[str]:
        """The conditions that keep its samples from being compared; empty when they may be."""
        return self.record.conditions.differing(now)


def suite_folder(root: Path, board: BoardConfig) -> Path:
    """Boards of one fleet are alike and share a suite."""
    kind = board.fleet or board.name
    if Path(kind).name != kind:
        raise UsageError(f"board {board.name}: {kind!r} is no folder's name: rename it in boards.toml")
    return root / kind


def load_suite(folder: Path) -> dict[str, Baseline]:
    """By model name. Raises Incomparable where there is none, UsageError for a file that is no baseline."""
    suite = {
        path.stem: Baseline(Artifact.at(folder, path.stem), BaselineRecord.read(path))
        for path in sorted(folder.glob("*.json"))
    }
    if not suite:
        raise Incomparable(f"{folder}: no baseline there; make one with `hilnas regress --update`")
    return suite


def save(folder: Path, head: Artifact, measured: Sequence[Measurement]) -> None:
    """The model's files and samples replace what was there but for the threshold; the record comes last."""
    kept = Artifact.at(folder, head.name)
    path = folder / f"{head.name}.json"
    threshold = BaselineRecord.read(path).threshold if path.exists() else None
    for source, target in ((head.model, kept.model), (head.input, kept.input), (head.expected, kept.expected)):
        if source.resolve() != target.resolve():
            write_atomically(target, source.read_bytes())
    rounds_us = tuple(m.latencies_us for m in sorted(measured, key=lambda m: m.round))
    BaselineRecord(
        threshold,
        sha256_of(kept.model),
        measured[0].conditions,
        rounds_us,
        measured_at=min(m.started_at for m in measured),
        resolution_us=max(Timer(m.calls, m.clock_ns).resolution_us for m in measured),
    ).write(path)
