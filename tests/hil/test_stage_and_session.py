from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hil.answer import Answer, TimedRuns
from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.errors import BoardBusy, BoardError, BoardFull, BoardTimeout, LinkLost, UsageError
from hil.request import Request
from hil.scripts import runner_archive
from hil.session import Session, owner
from hil.stage import Stage, sha256_of, stage
from tests.hil import tiny_model
from tests.hil.loopback_boards import loopback


def objects(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "objects").iterdir())


def test_many_files_are_staged_whole_and_once(board: Board, tmp_path: Path) -> None:
    files = [tmp_path / f"odd name {number}.tflite" for number in range(300)]
    for number, path in enumerate(files):
        path.write_bytes(os.urandom(number))
    begin = time.monotonic()
    first = Stage(board, str(tmp_path / "work")).stage_many(files)
    took_s = time.monotonic() - begin
    assert took_s < 20
    for path in files:
        there = Path(first[path])
        assert there.read_bytes() == path.read_bytes()
        assert there.name == sha256_of(path) + ".tflite"
    inode = Path(first[files[0]]).stat().st_ino
    assert Stage(board, str(tmp_path / "work")).stage_many(files) == first
    assert Path(first[files[0]]).stat().st_ino == inode
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]


def test_equal_content_is_one_object_and_a_short_one_is_replaced(board: Board, tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"same content")
    there = Path(stage(board, tmp_path / "a.bin", str(tmp_path / "work")))
    there.write_bytes(b"half")
    assert stage(board, tmp_path / "b.bin", str(tmp_path / "work")) == str(there)
    assert there.read_bytes() == b"same content"
    assert objects(tmp_path / "work") == [there.name]


def test_what_arrives_damaged_never_becomes_an_object(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(b"right")
    put = board.put

    def damaged(local: Path, remote: str) -> None:
        data = local.read_bytes().replace(b"right", b"wrong")
        local.write_bytes(data)
        put(local, remote)

    monkeypatch.setattr(board, "put", damaged)
    with pytest.raises(BoardError, match="did not arrive whole"):
        stage(board, tmp_path / "model", str(tmp_path / "work"))
    assert objects(tmp_path / "work") == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]


def test_a_board_that_is_full_is_named(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").write_bytes(os.urandom(50_000))
    run = board.run

    def run_then_fill(argv, *rest):
        result = run(argv, *rest)
        if "mkdir" in argv:
            Path(argv[-1], "batch.tar.part").symlink_to("/dev/full")
        return result

    monkeypatch.setattr(board, "run", run_then_fill)
    with pytest.raises(BoardFull):
        stage(board, tmp_path / "model", str(tmp_path / "work"))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]


def test_a_missing_local_file_is_a_usage_error(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone"):
        stage(board, tmp_path / "gone", str(tmp_path / "work"))


def a_request(session: Session, tmp_path: Path) -> Request:
    model = session.stage.stage(tiny_model.int8_add(tmp_path / "m.tflite"))
    return Request(
        id="1", name="m", model=model, warmup_runs=1, runs=3, threads=1, kernels="builtin", compile_deadline_s=20,
        run_deadline_s=20,
    )  # fmt: skip


def latencies_of(answer: Answer) -> tuple[int, ...]:
    assert isinstance(answer.outcome, TimedRuns)
    return answer.outcome.latencies_us


def test_a_session_knows_its_board_and_runs_jobs(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board) as session:
        conditions = session.conditions
        assert conditions.board == "bench" and conditions.machine == os.uname().machine
        assert conditions.runtime.startswith("ai_edge_litert ")
        assert len(latencies_of(session.run(a_request(session, tmp_path)))) == 3
        with pytest.raises(UsageError, match="kernels"):
            session.run(replace(a_request(session, tmp_path), kernels="gpu"))


def test_a_lost_runner_is_reported_and_started_anew(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board) as session:
        job = a_request(session, tmp_path)
        session.run(job)
        psutil.Process(json.loads((Path(session.workdir) / "runner.lock").read_text())["pid"]).kill()
        while session._runner.alive():
            time.sleep(0.01)
        with pytest.raises(LinkLost):
            session.run(job)
        session.reconnect()
        assert latencies_of(session.run(job))


def test_an_answer_waits_on_the_board_until_it_is_acknowledged(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board) as session:
        job = a_request(session, tmp_path)
        first = session.run(job)
        session.reconnect()
        again = session.run(job)
        assert again.taken_at and replace(again, taken_at=None) == first  # repeated, not run again
        session.acknowledge([job.id])
        assert session.run(job) != first
        assert latencies_of(session.run(replace(job, runs=4))) != latencies_of(first)


def test_a_runner_that_is_silent_is_a_board_that_hangs(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board, silence_s=3.0) as session:
        session.send(replace(a_request(session, tmp_path), runs=100_000_000))
        holder = json.loads((Path(session.workdir) / "runner.lock").read_text())
        psutil.Process(holder["pid"]).suspend()
        with pytest.raises(BoardTimeout, match="sent nothing for 3 s"):
            session.receive("1")
        session.reconnect()  # reaps the runner that hangs
        with suppress(psutil.NoSuchProcess):
            assert psutil.Process(holder["pid"]).status() == psutil.STATUS_ZOMBIE
        assert latencies_of(session.run(a_request(session, tmp_path)))


def test_a_board_in_use_names_who_uses_it(tmp_path: Path) -> None:
    config = loopback("asyncssh", workdir=str(tmp_path / "work"))
    with (
        open_board(config) as board,
        Session(board) as session,
        open_board(config) as other,
    ):
        written = Path(session.workdir) / "spool" / "answer.json.part"
        written.write_text("{")
        with pytest.raises(BoardBusy, match=rf"in use by {owner()} since .* wait, or end it"), Session(other):
            pass
        assert written.exists()  # the holder's to finish


def test_the_governor_is_pinned_and_given_back_after_a_kill_too(tmp_path: Path) -> None:
    """A fake sysfs stands in for cores whose governor we may write."""
    cores = [tmp_path / f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor" for i in range(2)]
    for core in cores:
        core.parent.mkdir(parents=True)
        core.write_text("schedutil\n")
    work = tmp_path / "work"
    work.mkdir()
    archive = tmp_path / "runner.pyz"
    archive.write_bytes(runner_archive())
    argv = [sys.executable, str(archive), "--workdir", str(work), "--token", "mine", "--sys", str(tmp_path / "sys")]

    def start() -> subprocess.Popen[bytes]:
        pinned = [*argv, "--governor", "performance"]
        process = subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert json.loads(process.stdout.readline())["ready"]
        assert [core.read_text() for core in cores] == ["performance"] * 2
        return process

    start().communicate()
    assert [core.read_text() for core in cores] == ["schedutil"] * 2
    killed = start()
    killed.kill()
    killed.communicate()
    assert [core.read_text() for core in cores] == ["performance"] * 2
    start().communicate()
    assert [core.read_text() for core in cores] == ["schedutil"] * 2


def test_the_quota_lets_the_oldest_objects_go(board: Board, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(4)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 1000)
        Stage(board, str(tmp_path / "work"), 2500).stage(path)
        time.sleep(1.1 if number < 2 else 0)  # `ls` sorts by whole seconds on some boards
    assert {(tmp_path / "work/objects" / name).read_bytes()[0] for name in objects(tmp_path / "work")} == {2, 3}
    with pytest.raises(BoardFull, match="quota_mb"):
        Stage(board, str(tmp_path / "work"), 2500).stage_many(files)


def test_a_python_that_is_not_there_is_explained() -> None:
    with (
        open_board(loopback("asyncssh", python="/no/such/python")) as board,
        pytest.raises(BoardError, match=r"set `python` in boards\.toml"),
        Session(board),
    ):
        pass


def test_folders_that_the_environment_names_are_made(tmp_path: Path) -> None:
    cache = tmp_path / "work" / "graphs"
    config = loopback("asyncssh", workdir=str(tmp_path / "work"), env={"CACHE": str(cache)})
    with open_board(config) as board, Session(board) as session:
        assert cache.is_dir()
        assert f"CACHE={cache}" in session.conditions.delegate
