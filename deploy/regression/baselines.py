"""The latency suite of one kind of board: `baselines/<kind>/NAME.tflite`, its golden pair, and NAME.json.

NAME.json holds the samples, round by round, with the conditions they were taken under, and may hold a threshold
of the model's own. Without the .tflite the samples alone are the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.compile.artifact import Artifact
from deploy.formats.files import read_json, write_atomically, write_json
from hil.boards.config import BoardConfig
from hil.errors import Incomparable, UsageError
from hil.measurement import NOT_COMPARED, Conditions, Measurement
from hil.stage import sha256_of

FORMAT = "hilnas-baseline/2"
KEYS = ("format", "threshold", "model_sha256", "conditions", "rounds_us")


@dataclass(frozen=True)
class Baseline:
    """One model of a suite.

    Attributes:
        artifact: where its files are, if they are kept.
        threshold: the share by which a head may be slower; None: the caller's.
        rounds_us: latencies, microseconds, a round each.
    """

    artifact: Artifact
    threshold: float | None
    model_sha256: str
    conditions: Conditions
    rounds_us: tuple[tuple[int, ...], ...]

    def differing(self, now: Conditions) -> list[str]:
        """The conditions that keep its samples from being compared; empty when they may be."""
        if self.conditions.key() == now.key():
            return []
        before, after = self.conditions, now
        compared = (c for c in before.to_json() if c not in NOT_COMPARED)
        return [c for c in compared if getattr(before, c) != getattr(after, c)]


def suite_folder(root: Path, board: BoardConfig) -> Path:
    """Boards of one fleet are alike and share a suite."""
    kind = board.fleet or board.name
    if Path(kind).name != kind:
        raise UsageError(f"board {board.name}: {kind!r} names no folder: rename it in boards.toml")
    return root / kind


def load_suite(folder: Path) -> dict[str, Baseline]:
    """By model name. Raises Incomparable where there is none, UsageError for a file that is none of ours."""
    suite = {path.stem: _load(path) for path in sorted(folder.glob("*.json"))}
    if not suite:
        raise Incomparable(f"{folder}: no baseline there; make one with `hilnas regress --update`")
    return suite


def save(folder: Path, head: Artifact, measured: Sequence[Measurement]) -> None:
    """The model's files and samples, in place of what was there but for the threshold; the record comes last."""
    kept = Artifact.at(folder, head.name)
    record = folder / f"{head.name}.json"
    threshold = _load(record).threshold if record.exists() else None
    for source, target in ((head.model, kept.model), (head.input, kept.input), (head.expected, kept.expected)):
        if source.resolve() != target.resolve():
            write_atomically(target, source.read_bytes())
    content = {
        "format": FORMAT,
        "threshold": threshold,
        "model_sha256": sha256_of(kept.model),
        "conditions": measured[0].conditions.to_json(),
        "rounds_us": [list(m.latencies_us) for m in sorted(measured, key=lambda m: m.round)],
    }
    write_json(record, content)


def _load(path: Path) -> Baseline:
    raw: dict[str, Any] = read_json(path, KEYS)
    threshold, rounds_us = raw["threshold"], raw["rounds_us"]
    if raw["format"] != FORMAT or not _is_rounds(rounds_us) or not isinstance(raw["conditions"], dict):
        raise UsageError(f"{path}: no baseline of this version; make one with `hilnas regress --update`")
    if threshold is not None and not (isinstance(threshold, (int, float)) and threshold > 0):
        raise UsageError(f"{path}: threshold is {threshold!r}: give a share above 0, or null")
    try:
        conditions = Conditions.from_json(raw["conditions"])
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    samples = tuple(tuple(latencies_us) for latencies_us in rounds_us)
    return Baseline(Artifact.at(path.parent, path.stem), threshold, raw["model_sha256"], conditions, samples)


def _is_rounds(raw: Any) -> bool:
    lists = isinstance(raw, list) and all(isinstance(latencies_us, list) for latencies_us in raw)
    return lists and all(type(us) is int and us >= 0 for latencies_us in raw for us in latencies_us)
