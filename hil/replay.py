"""Answers from recorded measurements: no machine, and so nothing that could pass for a new measurement.

Everything that comes from here is marked: its conditions have the kind "replay" and the board "replay of NAME", so
that it compares with nothing measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from hil.answer import Answer, TimedRuns
from hil.boards.board import Board
from hil.errors import UsageError
from hil.input_shape import text_of
from hil.measurement import Conditions, Measurement
from hil.request import Request
from hil.stage import sha256_of
from hil.store import Store


class ReplaySession:
    """Answers a request with the measurement of the same model and sizes in the same round with as many runs.

    Of several conditions that the board was recorded under, the latest ones count. Raises UsageError for a store that
    is not there or holds nothing of the board, and for a job that was not recorded.

    Attributes:
        conditions: the recorded ones, marked as a replay.
        recorded: true: nothing runs now.
    """

    board: Board
    conditions: Conditions
    recorded: bool = True

    def __init__(self, board: Board) -> None:
        self.board = board
        self._answers: dict[str, Answer] = {}

    def __enter__(self) -> ReplaySession:
        config = self.board.config
        recorded = self._of_board()
        last = _of_session(recorded[-1])
        self._records = [m for m in recorded if _of_session(m).key() == last.key()]
        self.conditions = dataclasses.replace(
            last, board=f"replay of {last.board}", unit=config.name, kind="replay", boot_id="replay"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def stage_many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Files stay where they are."""
        return {Path(path): str(path) for path in paths}

    def send(self, request: Request) -> None:
        """Raises UsageError for what was not recorded."""
        config = self.board.config
        if request.measured != "time":
            raise UsageError(f"board {config.name} is a replay: memory and layers are not recorded, name a real board")
        sha256 = sha256_of(Path(request.model))
        sizes = text_of(request.input_shapes)
        of_model = [m for m in self._records if m.model_sha256 == sha256 and m.conditions.input_shapes == sizes]
        of_round = [m for m in of_model if m.round == request.round]
        fitting = [m for m in of_round if not _missing(m, request)]
        if not fitting:
            missing = f"measurement of it with inputs {sizes}" if sizes else "measurement of it"
            missing = f"round {request.round + 1}" if of_model else missing
            missing = _missing(of_round[-1], request) if of_round else missing
            raise UsageError(
                f"board {config.name}: {Path(request.model).name} ({sha256[:12]}) is not recorded so in "
                f"{config.store}: no {missing}; measure it on a real board, or ask for what was recorded"
            )
        conditions = dataclasses.replace(self.conditions, input_shapes=sizes)
        self._answers[request.id] = _answer(request.id, fitting[-1], conditions)

    def receive(self, job_id: str) -> Answer:
        return self._answers.pop(job_id)

    def acknowledge(self, job_ids: Sequence[str]) -> None:
        pass

    def reconnect(self) -> None:
        pass

    def _of_board(self) -> list[Measurement]:
        """What the store holds of the board, never empty."""
        config = self.board.config
        if "://" not in config.store and not Path(config.store).is_file():
            raise UsageError(f"board {config.name}: no store {config.store}: name one that was recorded")
        with Store(config.store) as store:
            held = [m for m in store.all() if m.conditions.kind != "replay"]
        boards = {name for m in held for name in (m.conditions.board, m.conditions.unit)}
        name = config.recorded_board
        chosen = [m for m in held if name in ("", m.conditions.board, m.conditions.unit)]
        if not chosen or (not name and len({m.conditions.board for m in chosen}) > 1):
            wanted = f"nothing of {name!r}" if name else "several boards, or none"
            names = ", ".join(sorted(boards)) or "no measurement"
            raise UsageError(
                f"board {config.name}: {config.store} holds {wanted} ({names}): fix `recorded_board` in boards.toml"
            )
        return chosen


def _of_session(measurement: Measurement) -> Conditions:
    """The conditions without what belongs to one model."""
    return dataclasses.replace(measurement.conditions, input_shapes="")


def _missing(recorded: Measurement, request: Request) -> str:
    """What of the request this record does not answer, in words; empty when it answers it."""
    if recorded.failure is None and len(recorded.latencies_us) != request.runs:
        return f"{request.runs} runs per round (there are {len(recorded.latencies_us)})"
    if recorded.failure is None and request.expected is not None and recorded.parity is None:
        return "comparison with an expected output"
    if recorded.failure is None and (request.class_map is None) != (recorded.class_map_us is None):
        return f"run {'of the inference alone' if request.class_map is None else 'to its class map'}"
    return ""


def _answer(job_id: str, recorded: Measurement, conditions: Conditions) -> Answer:
    """As the runner would have sent it; of a failure, what was measured before it stays."""
    runs = TimedRuns(
        load_us=recorded.load_us,
        first_us=recorded.first_us,
        warmup_us=recorded.warmup_us,
        warmup_runs=recorded.warmup_runs,
        steady="unsteady" not in recorded.flags,
        latencies_us=recorded.latencies_us,
        parity=recorded.parity,
        operators=recorded.operators,
        delegated_nodes=recorded.delegated_nodes,
        cpu_operators=recorded.cpu_operators,
        cache=recorded.cache,
        before=recorded.before,
        after=recorded.after,
        others_busy=recorded.others_busy,
        averaged="averaged" in recorded.flags,
        cores=recorded.cores,
        calls=recorded.calls,
        clock_ns=recorded.clock_ns,
        class_map_us=recorded.class_map_us,
    )
    failure = recorded.failure and dataclasses.replace(recorded.failure, kind="model")
    return Answer(job_id, conditions.key(), recorded.model_sha256, failure, runs, recorded.started_at)
