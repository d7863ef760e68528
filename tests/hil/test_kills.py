"""kill -9 of the host at random moments: after going on, every model has exactly one result, and nothing is left.

By default 10 kills over 60 models; HILNAS_KILLS=50 HILNAS_KILL_MODELS=300 is the whole of it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.session import Session
from hil.store import Store
from tests.hil import tiny_model
from tests.hil.loopback_boards import loopback

KILLS = int(os.environ.get("HILNAS_KILLS", "10"))
MODELS = int(os.environ.get("HILNAS_KILL_MODELS", "60"))
PROTOCOL = MeasureProtocol(warmup_runs=1, runs=3, rounds=1, compile_deadline_s=20, run_deadline_s=20)


# What is killed: measures what is still to be measured, and says each. Without numpy, it begins twice as fast.
HOST = f"""
import sys
from pathlib import Path
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.session import Session
from hil.store import Store

folder = Path(sys.argv[1])
jobs = [Job(path, path.stem) for path in sorted(folder.glob("m*.tflite"))]
config = BoardConfig(name="bench", kind="loopback", kernels="builtin", workdir=str(folder / "work"))
with open_board(config) as board, Session(board) as session, Store(folder / "store.db") as store:
    held = {{m.job_id for m in store.all()}}
    print("begun", flush=True)
    for done in measure(session, jobs, {PROTOCOL}, store):
        if done.job_id not in held:
            print(done.model, flush=True)
"""


def config_for(folder: Path) -> BoardConfig:
    return loopback(kernels="builtin", workdir=str(folder / "work"))


def jobs_in(folder: Path) -> list[Job]:
    return [Job(path, path.stem) for path in sorted(folder.glob("m*.tflite"))]


def killed_at(folder: Path, rng: random.Random) -> int:
    """Starts a host and kills it: while it begins, or some results later. How many results it printed."""
    argv = [sys.executable, "-c", HOST, str(folder)]
    with subprocess.Popen(
        argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        printed = 0
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0.1, 2.0))
        else:
            more = rng.randint(0, 2 * MODELS // KILLS)
            while printed <= more and process.stdout.readline():
                printed += 1
            time.sleep(rng.uniform(0, 0.01))
        assert process.poll() in (None, 0), process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
    return max(printed - 1, 0)


def left_behind(folder: Path) -> list[psutil.Process]:
    """Runners of that workdir that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(f"{folder}/work/objects/" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_host_killed_again_and_again(tmp_path: Path) -> None:
    rng = random.Random(0)
    content = tiny_model.int8_add(tmp_path / "one").read_bytes()
    for number in range(MODELS):  # what follows a flatbuffer is not read: one model under many hashes
        (tmp_path / f"m{number:03}.tflite").write_bytes(content + number.to_bytes(4, "little"))
    printed = sum(killed_at(tmp_path, rng) for _ in range(KILLS))
    with open_board(config_for(tmp_path)) as board, Session(board) as session, Store(tmp_path / "store.db") as store:
        kept = {m.job_id: m for m in store.all()}
        done = list(measure(session, jobs_in(tmp_path), PROTOCOL, store))
        stored = store.all()
        assert printed <= len(kept) <= MODELS
        assert sorted(m.model for m in stored) == [job.name for job in jobs_in(tmp_path)]
        assert len({m.job_id for m in stored}) == len(stored) == len(done)
        assert all(m.status == "ok" and len(m.latencies_us) == PROTOCOL.runs for m in stored)
        assert all(m == kept[m.job_id] for m in stored if m.job_id in kept)  # what was safe stays as it was
        spool, deadline = tmp_path / "work" / "spool", time.monotonic() + 5
        while list(spool.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)  # the last acknowledgement is on its way
        assert not list(spool.iterdir())
    deadline = time.monotonic() + 10
    while left_behind(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_behind(tmp_path)
