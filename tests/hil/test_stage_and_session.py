from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
import tiny_model
from loopback_boards import loopback

from hil.boards import Board
from hil.boards.inventory import open_board
from hil.errors import BoardError, BoardFull, UsageError
from hil.session import Session
from hil.stage import Stage, sha256_of, stage


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

    def run_then_fill(argv, timeout_s):
        result = run(argv, timeout_s)
        if argv[0] == "mkdir":
            Path(argv[-1], "batch.tar.part").symlink_to("/dev/full")
        return result

    monkeypatch.setattr(board, "run", run_then_fill)
    with pytest.raises(BoardFull):
        stage(board, tmp_path / "model", str(tmp_path / "work"))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["objects"]


def test_a_missing_local_file_is_a_usage_error(board: Board, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone"):
        stage(board, tmp_path / "gone", str(tmp_path / "work"))


def a_job(session: Session, tmp_path: Path) -> dict[str, object]:
    model = session.stage.stage(tiny_model.int8_add(tmp_path / "m.tflite"))
    return {
        "id": "1", "model": model, "warmup_runs": 1, "runs": 3, "threads": 1, "kernels": "builtin",
        "compile_deadline_s": 20, "run_deadline_s": 20,
    }  # fmt: skip


def test_a_session_knows_its_board_and_runs_jobs(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board) as session:
        conditions = session.conditions
        assert conditions.board == "bench" and conditions.machine == os.uname().machine
        assert conditions.runtime.startswith("ai_edge_litert ")
        answer = session.run(a_job(session, tmp_path), 30)
        assert answer["ok"] and len(answer["latencies_us"]) == 3
        with pytest.raises(UsageError, match="kernels"):
            session.run({**a_job(session, tmp_path), "kernels": "gpu"}, 30)


def test_a_runner_lost_between_jobs_is_started_anew(fresh_board: Board, tmp_path: Path) -> None:
    with Session(fresh_board) as session:
        job = a_job(session, tmp_path)
        session.run(job, 30)
        mark = f"{fresh_board.folder}/work/objects/"
        runners = [
            process
            for process in psutil.process_iter(["cmdline"])  # a zombie has no command line
            if any(mark in word for word in process.info["cmdline"] or [])
        ]
        assert len(runners) == 1
        runners[0].kill()
        while session._runner.alive():
            time.sleep(0.01)
        assert session.run(job, 30)["ok"]


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
