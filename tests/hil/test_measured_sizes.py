"""Models whose files leave sizes open, on real boards: resized there, and at no size that nobody asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import ModelError, UsageError
from hil.fleet import measure_on_fleet
from hil.input_shape import InputShape
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement
from hil.passes import memory_of
from hil.results import Wanted, results
from hil.session import Session
from hil.sessions import open_session
from hil.store import Store
from tests.hil import tiny_model
from tests.hil.benchmark_texts import Program, render, report
from tests.hil.loopback_boards import loopback

QUICK = MeasureProtocol(warmup_runs=1, warmup_runs_most=1, runs=4, rounds=2, compile_deadline_s=20, run_deadline_s=20)
SMALL, LARGE = (1, 8, 8, 16), (1, 64, 96, 16)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with open_board(loopback("asyncssh")) as board, Session(board) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def open_job(folder: Path, shape: tuple[int, ...] | None, *, wrong: int = 0) -> Job:
    """y = x + 3 at `shape`, with its golden pair there; None: at the size of its file, unchecked."""
    model = tiny_model.int8_open(folder / "open.tflite")
    if shape is None:
        return Job(model, "open")
    x = np.random.default_rng(0).integers(-100, 100, shape, np.int8)
    y = x + np.int8(3)
    y.reshape(-1)[:wrong] += np.int8(1)
    size = "x".join(map(str, shape))
    (folder / f"{size}.x").write_bytes(x.tobytes())
    (folder / f"{size}.y").write_bytes(y.tobytes())
    return Job(model, "open", folder / f"{size}.x", folder / f"{size}.y", (InputShape("x", shape),))


def test_one_model_at_two_sizes_is_two_results(session: Session, store: Store, tmp_path: Path) -> None:
    jobs = [open_job(tmp_path, SMALL), open_job(tmp_path, LARGE)]
    done = list(measure(session, jobs, QUICK, store))
    elements = {m.conditions.input_shapes: m.parity.elements for m in done if m.parity and not m.parity.mismatched}
    assert elements == {"x=1x8x8x16": 1024, "x=1x64x96x16": 98304}
    assert len({m.job_id for m in done}) == 4 and {m.model_sha256 for m in done} == {done[0].model_sha256}
    assert list(measure(session, jobs, QUICK, store)) == done  # nothing ran again
    found = results(store.all(), Wanted())
    assert [len(result.measurements) for result in found] == [2, 2]
    assert {result.conditions.input_shapes for result in found} == set(elements)


def test_without_a_size_it_is_not_timed(session: Session, store: Store, tmp_path: Path) -> None:
    done = list(measure(session, [open_job(tmp_path, None)], QUICK, store))
    assert all(m.failure and not m.latencies_us for m in done)
    assert "leaves sizes of input x open ([1, -1, -1, 16]): give its input shape" in done[0].failure.reason


def test_a_batch_that_is_left_open_is_one(session: Session, store: Store, tmp_path: Path) -> None:
    model = tiny_model.int8_open(tmp_path / "batch.tflite", signature=(-1, 8, 8, 16))
    done = list(measure(session, [Job(model, "batch")], QUICK, store))
    assert [m.status for m in done] == ["ok", "ok"] and done[0].conditions.input_shapes == ""


def test_a_wrong_output_at_one_size_harms_no_other_size(session: Session, store: Store, tmp_path: Path) -> None:
    done = list(measure(session, [open_job(tmp_path, SMALL, wrong=5), open_job(tmp_path, LARGE)], QUICK, store))
    assert {m.conditions.input_shapes: m.status for m in done} == {"x=1x8x8x16": "failed", "x=1x64x96x16": "ok"}


def test_a_quarantine_holds_for_its_size(session: Session, store: Store, tmp_path: Path) -> None:
    small, large = open_job(tmp_path, SMALL), open_job(tmp_path, LARGE)
    (first,) = measure(session, [small], replace(QUICK, rounds=1), store)
    store.quarantine(first.model_sha256, large.under(session.conditions).key(), "crashed")
    done = list(measure(session, [small, large], replace(QUICK, rounds=1, series="again"), store))
    assert {m.conditions.input_shapes: m.status for m in done} == {"x=1x8x8x16": "ok", "x=1x64x96x16": "failed"}


def test_sizes_that_the_model_cannot_take_are_its_failure(session: Session, store: Store, tmp_path: Path) -> None:
    two = Job(tiny_model.int8_open(tmp_path / "open.tflite"), "two", input_shapes=(InputShape("x", SMALL),) * 2)
    (done,) = measure(session, [two], replace(QUICK, rounds=1), store)
    assert done.failure and "2 input shapes were given for 1 inputs" in done.failure.reason


def test_memory_is_of_the_size(session: Session, tmp_path: Path) -> None:
    model = tiny_model.int8_open(tmp_path / "open.tflite")
    peaks = [
        memory_of(session, Job(model, "open", input_shapes=(InputShape("x", shape),)), QUICK).peak_bytes
        for shape in (SMALL, (1, 1024, 1024, 16))
    ]
    assert peaks[1] - peaks[0] > 2 * 16 << 20  # the input and the output
    with pytest.raises(ModelError, match="leaves sizes of input x open"):
        memory_of(session, Job(model, "open"), QUICK)


def test_a_fleet_resizes_too(store: Store, tmp_path: Path) -> None:
    boards = [
        replace(loopback("asyncssh"), name=name, fleet="pair", workdir=str(tmp_path / name)) for name in ("a", "b")
    ]
    jobs = [open_job(tmp_path, SMALL), open_job(tmp_path, LARGE)]
    done = [m for m in measure_on_fleet(boards, jobs, QUICK, store, batch=1) if isinstance(m, Measurement)]
    assert sorted((m.conditions.input_shapes, m.status) for m in done) == [
        ("x=1x64x96x16", "ok"), ("x=1x64x96x16", "ok"), ("x=1x8x8x16", "ok"), ("x=1x8x8x16", "ok")
    ]  # fmt: skip


def test_a_replay_answers_for_the_size_that_was_recorded(session: Session, tmp_path: Path) -> None:
    small, large = open_job(tmp_path, SMALL), open_job(tmp_path, LARGE)
    static = Job(tiny_model.int8_add(tmp_path / "add.tflite"), "add")
    with Store(tmp_path / "rec.db") as recorded:
        taken = list(measure(session, [static, small], QUICK, recorded))
    config = BoardConfig(name="again", kind="replay", store=str(tmp_path / "rec.db"))
    with open_board(config) as board, open_session(board) as again, Store(tmp_path / "new.db") as store:
        done = list(measure(again, [static, small], QUICK, store))
        assert {(m.model, m.round, m.latencies_us) for m in done} == {(m.model, m.round, m.latencies_us) for m in taken}
        assert {m.conditions.input_shapes for m in done} == {"", "x=1x8x8x16"}
        with pytest.raises(UsageError, match="no measurement of it with inputs x=1x64x96x16"):
            list(measure(again, [large], QUICK, store))


def test_benchmark_model_is_given_them(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.says(render(report(8000.0, 7990.0)))
    config = loopback(driver="benchmark_model", benchmark_model=str(program.path))
    shapes = (InputShape("x,y", SMALL), InputShape("serving_default_z:0", (1, 5)))
    with open_board(config) as board, Session(board) as session, Store(tmp_path / "s.db") as store:
        job = Job(tiny_model.int8_open(tmp_path / "open.tflite"), "open", input_shapes=shapes)
        (done,) = measure(session, [job], replace(QUICK, rounds=1), store)
    assert done.status == "ok" and done.conditions.input_shapes == "x%2Cy=1x8x8x16,serving_default_z:0=1x5"
    given_to, _, _ = program.calls()[0]
    assert "--input_layer=x_y,serving_default_z:0" in given_to and "--input_layer_shape=1,8,8,16:1,5" in given_to


@pytest.mark.parametrize("kernels", ["builtin", "xnnpack"])
@pytest.mark.parametrize("parts", [0, 1])
def test_a_delegate_sees_the_sizes(library: Path, store: Store, tmp_path: Path, kernels: str, parts: int) -> None:
    """What it took is counted as without a resize: XNNPACK's part is not the delegate's."""
    settings = {
        "delegate": str(library),
        "delegate_options": {"fault": "hang" if parts else "none"},  # it hangs in other models only
        "kernels": kernels,
    }
    with open_board(loopback("asyncssh", **settings)) as board, Session(board) as session:
        done = list(measure(session, [open_job(tmp_path, LARGE)], QUICK, store))
    assert [m.delegated_nodes for m in done] == [parts, parts]
    if parts:
        assert all(m.status == "ok" and m.parity and m.parity.mismatched == 0 for m in done)
        assert done[0].cpu_operators == ()
    else:
        assert done[0].failure and "took no part of the model" in done[0].failure.reason


def test_the_sizes_are_in_every_record_of_it(session: Session, store: Store, tmp_path: Path) -> None:
    (done,) = measure(session, [open_job(tmp_path, SMALL)], replace(QUICK, rounds=1), store)
    assert Measurement.from_json(json.loads(json.dumps(done.to_json()))) == done
    assert done.to_json()["conditions"]["input_shapes"] == "x=1x8x8x16"
