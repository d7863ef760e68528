"""Answers from recorded measurements: no machine, and so nothing that could pass for a new measurement.

Everything that comes from here is marked: its conditions have the kind "replay" and the board "replay of NAME", so
that it compares with nothing measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from hil.boards.board import Board, CommandResult, Process
from hil.boards.config import BoardConfig
from hil.errors import UsageError
from hil.measurement import Conditions, Measurement
from hil.session import Session
from hil.stage import Stage, sha256_of
from hil.store import Store


class ReplayBoard:
    """Runs no command and holds no file."""

    def __init__(self, config: BoardConfig) -> None:
        self.name = config.name
        self.config = config

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:  # noqa: ARG002
        self._refuse()

    def put(self, local: Path, remote: str) -> None:  # noqa: ARG002
        self._refuse()

    def get(self, remote: str, local: Path) -> None:  # noqa: ARG002
        self._refuse()

    def start(self, argv: Sequence[str]) -> Process:  # noqa: ARG002
        self._refuse()

    def disconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> ReplayBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _refuse(self) -> NoReturn:
        raise UsageError(f"board {self.name} is a replay of {self.config.store}, without a machine: name a real board")


class _Here(Stage):
    """Files stay where they are."""

    def stage_many(self, paths: Iterable[Path]) -> dict[Path, str]:
        return {Path(path): str(path) for path in paths}


class ReplaySession(Session):
    """Answers a job with what was recorded of the same model in the same round with as many runs.

    Of several conditions that the board was recorded under, the latest ones count. Raises UsageError for a store that
    is not there or holds nothing of the board, and for a job that was not recorded.
    """

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self.stage = _Here(board, "")
        self._answers: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ReplaySession:
        config = self.board.config
        recorded = self._recorded()
        last = recorded[-1].conditions
        self._records = [m for m in recorded if m.conditions.key() == last.key()]
        self.conditions = dataclasses.replace(
            last, board=f"replay of {last.board}", unit=config.name, kind="replay", boot_id="replay"
        )
        return self

    def send(self, job: dict[str, Any]) -> None:
        sha256 = sha256_of(Path(job["model"]))
        of_model = [m for m in self._records if m.model_sha256 == sha256]
        of_round = [m for m in of_model if m.round == job["round"]]
        fitting = [m for m in of_round if not _unlike(m, job)]
        if not fitting:
            missing = f"round {job['round'] + 1}" if of_model else "measurement of it"
            missing = _unlike(of_round[-1], job) if of_round else missing
            raise UsageError(
                f"board {self.board.name}: {Path(job['model']).name} ({sha256[:12]}) is not recorded so in "
                f"{self.board.config.store}: no {missing}; measure it on a real board, or ask for what was recorded"
            )
        self._answers[job["id"]] = _answer(fitting[-1], self.conditions)

    def receive(self, job_id: str) -> dict[str, Any]:
        return self._answers.pop(job_id)

    def acknowledge(self, job_ids: Sequence[str]) -> None:
        pass

    def reconnect(self) -> None:
        pass

    def _recorded(self) -> list[Measurement]:
        config = self.board.config
        if "://" not in config.store and not Path(config.store).is_file():
            raise UsageError(f"board {config.name}: no store {config.store}: name one that was recorded")
        with Store(config.store) as store:
            held = [m for m in store.all() if m.conditions.kind != "replay"]
        boards = {name for m in held for name in (m.conditions.board, m.conditions.unit)}
        chosen = [m for m in held if config.of in ("", m.conditions.board, m.conditions.unit)]
        if not chosen or (not config.of and len({m.conditions.board for m in chosen}) > 1):
            wanted = f"nothing of {config.of!r}" if config.of else "several boards, or none"
            names = ", ".join(sorted(boards)) or "no measurement"
            raise UsageError(f"board {config.name}: {config.store} holds {wanted} ({names}): mend `of` in boards.toml")
        return chosen


def _unlike(recorded: Measurement, job: dict[str, Any]) -> str:
    """What of the job this record does not answer, in words; empty when it answers it."""
    if recorded.failure is None and len(recorded.latencies_us) != job["runs"]:
        return f"{job['runs']} runs a round (there are {len(recorded.latencies_us)})"
    if recorded.failure is None and "expected" in job and recorded.parity is None:
        return "comparison with an expected output"
    return ""


def _answer(recorded: Measurement, conditions: Conditions) -> dict[str, Any]:
    """As the runner would have said it."""
    raw = recorded.to_json()
    kept = ("model_sha256", "load_us", "first_us", "warmup_us", "warmup_runs", "parity", "operators",
            "delegated_nodes", "cpu_operators", "cache", "before", "after", "others_busy")  # fmt: skip
    answer = {
        **{name: raw[name] for name in kept},
        "ok": recorded.failure is None,
        "conditions": conditions.key(),
        "steady": "unsteady" not in recorded.flags,
        "averaged": "averaged" in recorded.flags,
    }
    if recorded.failure is not None:
        return {**answer, "failure": {"kind": "model", "stage": "replay", "reason": recorded.failure.reason}}
    return {**answer, "latencies_us": raw["latencies_us"]}
