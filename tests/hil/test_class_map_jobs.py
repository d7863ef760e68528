"""Models whose class map is made by the board's CPU: compared as such, and timed from the input's bytes to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from board_scripts.class_map import class_map
from hil.answer import read_line
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import BoardError, Incomparable, UsageError
from hil.evaluate import evaluate
from hil.job import Job, RoundTask, identity_of, tasks_of
from hil.measure import measure, pooled
from hil.measurement import Measurement, now
from hil.session import Session
from hil.sessions import open_session
from hil.store import Store
from tests.hil import tiny_model
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.measuring_benches import QUICK

SIZES = ((32, 32), (256, 256))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with open_board(loopback("asyncssh", kernels="builtin")) as board, Session(board) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def logits_job(folder: Path, *, wrong: int = 0, sizes: tuple[tuple[int, int], ...] = SIZES) -> Job:
    """The logits are x + 5; `wrong` pixels of its expected class map are."""
    plain = add_job(folder, 5)
    assert plain.expected is not None
    logits = np.frombuffer(plain.expected.read_bytes(), np.int8).reshape(tiny_model.SHAPE)
    classes = class_map(np, logits, sizes).copy()
    classes.reshape(-1)[:wrong] += 1
    expected = folder / f"classes-{wrong}-{len(sizes)}"
    expected.write_bytes(classes.tobytes())
    return replace(plain, expected=expected, class_map=sizes)


def test_it_is_timed_to_its_class_map(session: Session, store: Store, tmp_path: Path) -> None:
    job = logits_job(tmp_path)
    plain = add_job(tmp_path, 5)
    whole, alone = (list(measure(session, [one], QUICK, store)) for one in (job, plain))
    for m in whole:
        assert m.status == "ok" and m.parity is not None and (m.parity.mismatched, m.parity.elements) == (0, 256 * 256)
        assert m.class_map_us is not None and 0 < m.class_map_us <= 1.05 * min(m.latencies_us)
        assert Measurement.from_json(m.to_json()) == m
    assert all(m.class_map_us is None and "class_map_us" not in m.to_json() for m in alone)
    assert min(whole[0].latencies_us) > 5 * min(alone[0].latencies_us)  # an addition of 1 024 elements
    assert {m.job_id for m in whole}.isdisjoint(m.job_id for m in alone)
    assert pooled(whole) and pooled(alone)
    with pytest.raises(Incomparable, match="timed alone, and to its class map"):
        pooled([*whole, *alone])


def test_a_wrong_class_map_has_no_latency(session: Session, store: Store, tmp_path: Path) -> None:
    done = next(measure(session, [logits_job(tmp_path, wrong=1)], QUICK, store))
    assert done.failure is not None and "1 of 65536 elements" in done.failure.reason
    arg_max_alone = next(measure(session, [logits_job(tmp_path, sizes=())], QUICK, store))
    assert arg_max_alone.parity is not None and arg_max_alone.parity.elements == 8 * 8


def test_a_replay_says_no_other_latency(session: Session, tmp_path: Path) -> None:
    job, path = logits_job(tmp_path), tmp_path / "recorded.db"
    with Store(path) as store:
        recorded = list(measure(session, [job], QUICK, store))
    config = BoardConfig(name="again", kind="replay", store=str(path))
    with open_board(config) as board, open_session(board) as again, Store(tmp_path / "new.db") as store:
        assert [m.class_map_us for m in measure(again, [job], QUICK, store, seed=5)] == [
            m.class_map_us for m in sorted(recorded, key=lambda m: m.round)
        ]
        with pytest.raises(UsageError, match="no run of the inference alone"):
            next(measure(again, [add_job(tmp_path, 5)], QUICK, store))


def test_a_program_that_only_times_is_refused(session: Session, store: Store, tmp_path: Path) -> None:
    config = replace(session.board.config, driver="benchmark_model")
    with pytest.raises(UsageError, match=r'add5 leaves its class map to the CPU: use driver = "python"'):
        session.board.config, kept = config, session.board.config
        try:
            next(measure(session, [logits_job(tmp_path)], QUICK, store))
        finally:
            session.board.config = kept


def test_where_only_a_program_runs_a_finished_class_map_is_timed_as_any_output(tmp_path: Path) -> None:
    protocol, job = QUICK, logits_job(tmp_path, sizes=())
    for driver, class_map_of_task in (("python", ()), ("benchmark_model", None)):
        tasks = list(tasks_of([job], replace(loopback("asyncssh", kernels="builtin"), driver=driver), "c", protocol, 0))
        assert [task.job.class_map for task in tasks] == [class_map_of_task] * protocol.rounds


def test_an_answer_to_another_question_is_none(session: Session, tmp_path: Path) -> None:
    job, config = logits_job(tmp_path), session.board.config
    with Store(tmp_path / "s.db") as store:
        done = next(measure(session, [job], QUICK, store))
    task = RoundTask(job, identity_of(job, done.model_sha256, config), 0, done.job_id, done.model_sha256)
    assert identity_of(replace(job, class_map=None), done.model_sha256, config) != task.identity
    raw = (
        f'{{"id": "{done.job_id}", "ok": true, "conditions": "{session.conditions.key()}", "model_sha256": '
        f'"{done.model_sha256}", "load_us": 1, "first_us": 1, "warmup_us": 1, "warmup_runs": 1, "steady": true, '
        '"latencies_us": [5.0], "calls": 1, "clock_ns": 1, "parity": {"elements": 4, "mismatched": 0, '
        '"max_abs_diff": 0}, "operators": [], "delegated_nodes": 0, "cpu_operators": [], "cache": "none", "before": '
        '{"temperature_c": null, "frequency_khz": null}, "after": {"temperature_c": null, "frequency_khz": null}, '
        '"others_busy": 0.0, "cores": 1}'
    )
    answer = read_line(raw, "who")
    with pytest.raises(BoardError, match="is of the inference alone, which was not asked for"):
        evaluate(answer, task, session.conditions, config, now())  # type: ignore[arg-type]
