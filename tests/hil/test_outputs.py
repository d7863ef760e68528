"""A model's outputs for many inputs over a real server: all of them, in order, and those it fails on by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from hil import outputs
from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import BoardError, ModelError, UsageError
from hil.job import Job, MeasureProtocol
from hil.outputs import FIRST_BATCH, InputOutputs, outputs_of
from hil.session import Session
from hil.sessions import open_session
from tests.hil import tiny_model
from tests.hil.loopback_boards import SERVERS, add_job, loopback

DEADLINES = MeasureProtocol(warmup_runs=0, runs=1, rounds=1, compile_deadline_s=20, run_deadline_s=20)


@pytest.fixture(params=SERVERS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Board]:
    config = loopback(request.param, kernels="builtin", workdir=str(tmp_path / "work"))
    with open_board(config) as board:
        yield board


def integers(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(-100, 100, tiny_model.SHAPE, dtype=np.int8) for _ in range(count)]


def reals(count: int, *, bad: tuple[int, ...] = ()) -> list[bytes]:
    """Inputs of which the model takes the logarithm; NaN at the bad ones."""
    given = [np.full(tiny_model.SHAPE, 1.0 + i, np.float32) for i in range(count)]
    for i in bad:
        given[i][0, 0, 0, 0] = -1
    return [array.tobytes() for array in given]


def requests_of(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many inputs each request of the session asks for, as they are sent."""
    sent: list[int] = []
    send = session.send
    monkeypatch.setattr(session, "send", lambda request: (sent.append(request.runs), send(request))[1])
    return sent


def test_every_input_has_its_outputs_in_order_in_few_requests(board, tmp_path, monkeypatch) -> None:
    model, given = tiny_model.int8_add(tmp_path / "add.tflite", constant=3), integers(100)
    with Session(board) as session:
        sent = requests_of(session, monkeypatch)
        found = list(outputs_of(session, Job(model, model.name), (x.tobytes() for x in given), DEADLINES))
        assert not list((Path(session.workdir) / "objects").glob("*.bin")), "inputs stay on the board"
        assert not list((Path(session.workdir) / "spool").iterdir())
    assert [one.data for one in found] == [(x + 3).astype(np.int8).tobytes() for x in given]
    assert all(one.failure is None and one.invoke_us >= 0 for one in found)
    assert sent[:2] == [FIRST_BATCH, FIRST_BATCH] and sum(sent) == 100 and len(sent) < 10


def test_batches_are_no_larger_than_an_answer_may_be(board, tmp_path, monkeypatch) -> None:
    model, size = tiny_model.int8_add(tmp_path / "add.tflite"), int(np.prod(tiny_model.SHAPE))
    monkeypatch.setattr(outputs, "BATCH_BYTES", 5 * size)
    with Session(board) as session:
        sent = requests_of(session, monkeypatch)
        list(outputs_of(session, Job(model, model.name), (x.tobytes() for x in integers(30)), DEADLINES))
    assert max(sent) == 5


def test_an_input_that_the_model_fails_on_is_told_from_the_others(board, tmp_path) -> None:
    model, bad = tiny_model.float_log(tmp_path / "log.tflite"), (6, 7, 25)
    with Session(board) as session:
        found = list(
            outputs_of(session, Job(model, model.name), reals(30, bad=bad), DEADLINES, canary=add_job(tmp_path, 1))
        )
    assert [i for i, one in enumerate(found) if one.failure is not None] == list(bad)
    assert "NaN" in (found[6].failure or "") and found[6].data == b""
    for i in set(range(30)) - set(bad):
        logs = np.frombuffer(found[i].data, np.float32)
        assert logs == pytest.approx(np.log(1.0 + i)), i


def test_a_model_that_fails_on_every_input_is_the_models_fault(board, tmp_path) -> None:
    model = tiny_model.float_log(tmp_path / "log.tflite")
    with Session(board) as session, pytest.raises(ModelError, match=r"log.tflite fails on each of the first 3 .*NaN"):
        list(outputs_of(session, Job(model, model.name), reals(30, bad=tuple(range(30))), DEADLINES))
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(model.read_bytes()[:200])
    with Session(board) as session, pytest.raises(ModelError, match="loading the model"):
        list(outputs_of(session, Job(cut, cut.name), reals(9), DEADLINES))


def test_inputs_of_another_size_are_the_callers_fault_on_each(board, tmp_path) -> None:
    model = tiny_model.int8_add(tmp_path / "add.tflite")
    with Session(board) as session, pytest.raises(ModelError, match="the model reads 1024"):
        list(outputs_of(session, Job(model, model.name), [b"\0" * 1025] * 5, DEADLINES))


def test_a_bench_that_fails_too_is_not_the_models_fault(board, tmp_path) -> None:
    model, canary = tiny_model.float_log(tmp_path / "log.tflite"), add_job(tmp_path, 1)
    canary.model.write_bytes(b"broken")
    with Session(board) as session, pytest.raises(BoardError, match="so does the known-good model"):
        list(outputs_of(session, Job(model, model.name), reals(9, bad=(2,)), DEADLINES, canary=canary))


def test_a_lost_link_loses_nothing(board, tmp_path) -> None:
    """The runner is killed between two batches: what was under way is asked for again."""
    model, given = tiny_model.int8_add(tmp_path / "add.tflite", constant=2), integers(40)
    with Session(board) as session:
        found = []
        for one in outputs_of(session, Job(model, model.name), (x.tobytes() for x in given), DEADLINES):
            found.append(one)
            if len(found) in (1, 20):
                psutil.Process(json.loads((Path(session.workdir) / "runner.lock").read_text())["pid"]).kill()
    assert [one.data for one in found] == [(x + 2).astype(np.int8).tobytes() for x in given]


def test_what_is_not_asked_for_any_more_is_cleared_away(board, tmp_path) -> None:
    model = tiny_model.int8_add(tmp_path / "add.tflite")
    with Session(board) as session:
        stream = outputs_of(session, Job(model, model.name), (x.tobytes() for x in integers(40)), DEADLINES)
        next(stream)
        stream.close()
        assert not list((Path(session.workdir) / "objects").glob("*.bin"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"kind": "replay", "store": "store.sqlite"}, "is a replay"), ({"driver": "benchmark_model"}, "shows no outputs")],
)
def test_boards_that_give_no_outputs_are_named(settings, words, tmp_path) -> None:
    config = BoardConfig(**({"name": "bench", "kind": "loopback", "kernels": "builtin"} | settings))
    with open_board(config) as board:
        session = open_session(board)
        with pytest.raises(UsageError, match=words):
            next(outputs_of(session, Job(tiny_model.int8_add(tmp_path / "add.tflite"), "add"), [b""]))


def test_a_delegate_that_takes_nothing_is_refused(tmp_path, monkeypatch) -> None:
    model = tiny_model.int8_add(tmp_path / "add.tflite")
    with open_board(loopback("asyncssh", kernels="builtin")) as board, Session(board) as session:
        board.config = replace(board.config, delegate="libvx_delegate.so")
        monkeypatch.setattr(outputs, "request_of", lambda task, config, *rest, **more: _plain(task, config, rest, more))
        with pytest.raises(ModelError, match=r"libvx_delegate.so took no part of add.tflite"):
            list(outputs_of(session, Job(model, model.name), (x.tobytes() for x in integers(4)), DEADLINES))


def _plain(task, config, rest, more):
    from hil.job import request_of

    return request_of(task, replace(config, delegate=""), *rest, **more)


def test_no_input_no_request(board, tmp_path) -> None:
    with Session(board) as session:
        assert list[InputOutputs](outputs_of(session, Job(tiny_model.int8_add(tmp_path / "a.tflite"), "add"), [])) == []
