"""The fifteen ways in which a board fails, each staged: reported as what it is, and the rest measured, once each.

What only another kernel can stage (a real oops, a reset, a clock that steps, a cut of power) runs against the
emulated board too; here a reboot is a new boot_id and the death of everything, a driver a library of ours.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from hil.boards.kinds import open_board
from hil.boards.loopback import find_sshd, make_keys
from hil.errors import BoardBusy, BoardError, BoardFault, BoardFull, HostKeyChanged, LinkLost
from hil.job import Job, MeasureProtocol
from hil.measure import AHEAD, measure
from hil.measurement import Measurement
from hil.session import Session
from hil.stage import Stage, sha256_of
from hil.store import Store
from tests.hil import tiny_model
from tests.hil.loopback_boards import add_job, loopback
from tests.hil.server_processes import connections, end, server_processes, those

QUICK = MeasureProtocol(warmup_runs=1, runs=4, rounds=2, compile_deadline_s=20, run_deadline_s=20)
LONG = MeasureProtocol(warmup_runs=0, runs=20_000, rounds=1, run_deadline_s=60)


@contextmanager
def bench(server: str = "auto", **settings: object) -> Iterator[Session]:
    with open_board(loopback(server, kernels="builtin", **settings)) as board, Session(board) as session:
        yield session


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake board's instruments: cool, at 1.8 GHz, with nobody else at work and most of its CMA free."""
    files = {
        "sys/class/thermal/thermal_zone0/temp": "45000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "proc/stat": "cpu 0 0 0 1000 0 0 0 0 0 0",
        "proc/meminfo": "CmaTotal: 327680 kB\nCmaFree: 300000 kB",
        "proc/sys/kernel/random/boot_id": "first",
        "dev/kmsg": "3,1,1,-;galcore: from long ago\n",
    }
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


def bad_job(folder: Path) -> Job:
    """The model at which the faulty delegate fails."""
    return Job(tiny_model.float_log(folder / "log.tflite"), "log")


def jobs_in(folder: Path, count: int) -> list[Job]:
    """At most 27: from there on the sum saturates."""
    return [add_job(folder, constant) for constant in range(1, count + 1)]


def require_each_once(store: Store, jobs: list[Job], rounds: int = QUICK.rounds) -> list[Measurement]:
    """Every model in every round was measured, and none twice."""
    done = store.all()
    assert Counter((m.model, m.round) for m in done) == Counter((job.name, r) for job in jobs for r in range(rounds))
    assert all(m.status == "ok" for m in done)
    return done


def provoked(measuring: Iterator[Measurement], at: int, provoke: Callable[[], object]) -> list[Measurement]:
    done = []
    for index, measurement in enumerate(measuring):
        done.append(measurement)
        if index == at:
            provoke()
    return done


def cut_connections(session: Session) -> None:
    """As when a cable is pulled; the server stays."""
    for process in connections(session.board):
        end(process)


def put(path: Path, text: str) -> None:
    """At once: who reads it meanwhile reads the old or the new."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def runner_of(session: Session) -> psutil.Process:
    return psutil.Process(json.loads((Path(session.workdir) / "runner.lock").read_text())["pid"])


def once_at_work(session: Session, then: Callable[[], object]) -> threading.Thread:
    """Calls `then` when a child of the runner has been busy for 0.3 s."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if those(runner_of(session).children(), lambda child: child.cpu_times().user > 0.3):
                then()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_1_a_hang_in_the_first_inference(library: Path, store: Store, tmp_path: Path) -> None:
    good, bad, canary = jobs_in(tmp_path, 4), bad_job(tmp_path), add_job(tmp_path, 9)
    protocol = dataclasses.replace(QUICK, compile_deadline_s=5)
    with bench(delegate=str(library), delegate_options={"fault": "hang"}) as session:
        done = list(measure(session, [*good, bad], protocol, store, canary=canary))
        failures = [m.failure.reason for m in done if m.failure and m.failure.kind == "model"]
        assert "no end of its first inference within 5 s" in failures[0] and len(failures) == protocol.rounds
        assert Counter(m.model for m in done if m.status == "ok") == {job.name: 2 for job in good}
        assert not psutil.wait_procs(runner_of(session).children(), timeout=5)[1]
        assert list(store.quarantined(session.conditions.key())) == [sha256_of(bad.model)]
        begin = time.monotonic()
        again = list(measure(session, [bad], dataclasses.replace(protocol, series="again", rounds=1), store))
        assert "quarantined: no end of" in again[0].failure.reason
        assert time.monotonic() - begin < 5


def test_2_a_driver_that_oopses(library: Path, root: Path, store: Store, tmp_path: Path) -> None:
    good, bad, canary = jobs_in(tmp_path, 3), bad_job(tmp_path), add_job(tmp_path, 9)
    options = {"fault": "abort", "kmsg": str(root / "dev/kmsg")}
    with bench(delegate=str(library), delegate_options=options, root=str(root)) as session:
        done = list(measure(session, [*good, bad], QUICK, store, canary=canary))
    failure = next(m.failure for m in done if m.model == "log")
    wanted = "killed by SIGABRT in its first inference; the kernel's log meanwhile: galcore: [galcore] GPU[0] hang"
    assert (failure.kind, failure.reason) == ("model", wanted)
    assert Counter(m.model for m in done if m.status == "ok") == {job.name: 2 for job in good}


@pytest.mark.system
def test_3_a_reboot_during_the_runs(root: Path, store: Store, tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 8)
    with bench("sshd", root=str(root), workdir=str(tmp_path / "work")) as session:

        def reboot() -> None:
            (root / "proc/sys/kernel/random/boot_id").write_text("second")
            runner_of(session).kill()
            cut_connections(session)
            subprocess.run(["rm", "-rf", session.workdir], check=True)  # /tmp is empty after a reboot

        done = provoked(measure(session, jobs, QUICK, store), 5, reboot)
    assert require_each_once(store, jobs) == done
    boots = [m.conditions.boot_id for m in done]
    before = boots.count("first")
    assert boots == ["first"] * before + ["second"] * (len(done) - before)
    assert 6 <= before <= 6 + AHEAD  # some answers were on their way


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs here: test_a_board_that_is_full_is_named stages it with /dev/full")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left_bytes", [0, 20_000])
def test_4_a_full_disk(small_disk: Path, store: Store, tmp_path: Path, left_bytes: int) -> None:
    jobs, ballast = jobs_in(tmp_path, 24), small_disk / "ballast"

    def fill() -> None:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        with suppress(OSError):  # an answer took some of it meanwhile: it is full
            ballast.write_bytes(bytes(free - left_bytes))

    with bench(workdir=str(small_disk / "work")) as session:
        with pytest.raises(BoardFull, match=r"free space there|takes no more|full"):
            provoked(measure(session, jobs, QUICK, store), 0, fill)
        before = store.all()
        assert before and all(m.status == "ok" for m in before)
        ballast.unlink()
        list(measure(session, jobs, QUICK, store))
    assert require_each_once(store, jobs)[: len(before)] == before


def test_5_heat_and_a_clock_that_falls(root: Path, store: Store, tmp_path: Path) -> None:
    heat = root / "sys/class/thermal/thermal_zone0/temp"
    clock = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    jobs = jobs_in(tmp_path, 2)
    with bench(root=str(root), max_temperature_c=80.0, cool_down_s=2.0) as session:
        heat.write_text("95000")
        with pytest.raises(BoardFault, match=r"still 95 C after 2 s, allowed are 80"):
            list(measure(session, jobs, QUICK, store))
        assert not store.all()
        threading.Timer(0.7, put, [heat, "60000"]).start()
        done = list(measure(session, jobs, QUICK, store))
        assert require_each_once(store, jobs) == done
        assert {m.before.temperature_c for m in done} == {60.0} and not any("throttled" in m.flags for m in done)
        falls = once_at_work(session, lambda: put(clock, "900000"))
        long = next(measure(session, jobs[:1], LONG, store))
        falls.join()
        assert "throttled" in long.flags
        assert (long.before.frequency_khz, long.after.frequency_khz) == (1_800_000, 900_000)


def test_6_a_clock_that_steps(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "real, calls = time.time, [0]\n"
        "def stepping():\n"
        "    calls[0] += 1\n"
        "    return real() + (-1) ** calls[0] * 86400 * calls[0]\n"
        "time.time = stepping\n"
        "time.time_ns = lambda: int(stepping() * 1e9)\n"
    )
    jobs = jobs_in(tmp_path, 3)
    with bench(env={"PYTHONPATH": str(tmp_path)}) as session:
        steps = iter(range(10**9))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 86400 * next(steps))
        begin = time.monotonic()
        done = list(measure(session, jobs, QUICK, store))
        took_us = (time.monotonic() - begin) * 1e6
        assert require_each_once(store, jobs) == done
        assert all(m.board_us > 0 for m in done) and sum(m.board_us for m in done) < took_us
        short = MeasureProtocol(warmup_runs=0, runs=100_000_000, rounds=1, run_deadline_s=1.0)
        begin = time.monotonic()
        failed = next(measure(session, jobs[:1], short, store))
        assert failed.failure and "within 1 s" in failed.failure.reason
        assert 1 <= time.monotonic() - begin < 10
    assert all(abs(real() - stamp(m)) < 60 for m in done)


def stamp(measurement: Measurement) -> float:
    return datetime.fromisoformat(measurement.started_at).timestamp()


@pytest.mark.system
def test_7_a_link_that_drops(store: Store, tmp_path: Path) -> None:
    jobs, waiting, protocol = jobs_in(tmp_path, 12), {}, dataclasses.replace(QUICK, runs=600)
    with bench("sshd") as session:
        spool = Path(session.workdir) / "spool"

        def drop() -> None:
            for process in those(connections(session.board), lambda process: process.name().startswith("sshd")):
                process.suspend()  # from now on no answer arrives
            deadline = time.monotonic() + 10
            while len(list(spool.glob("*.json"))) < AHEAD and time.monotonic() < deadline:
                time.sleep(0.02)
            for path in spool.glob("*.json"):
                with suppress(FileNotFoundError):  # acknowledged just now
                    waiting[path.stem] = json.loads(path.read_text())["answer"]["latencies_us"]
            cut_connections(session)

        done = []
        for index, measurement in enumerate(measure(session, jobs, protocol, store)):
            done.append(measurement)
            if index in (2, 9, 17):
                drop()
        deadline = time.monotonic() + 5
        while list(spool.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)  # the last acknowledgement is on its way
        assert not list(spool.iterdir())
    assert require_each_once(store, jobs) == done
    found = {m.job_id: list(m.latencies_us) for m in done}
    assert len(waiting) >= 6
    assert {job_id: found[job_id] for job_id in waiting} == waiting  # repeated, not run again


@pytest.mark.system
def test_8_a_file_half_written(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(1 << 20) * 64)
    with bench("sshd") as session:
        work, connection = Path(session.workdir), connections(session.board)

        def cut_when_begun() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if any(path.stat().st_size > 1 << 20 for path in work.glob("incoming-*/batch.tar.part")):
                    for process in connection:  # to look for them now would take too long
                        end(process)
                    return
                time.sleep(0.002)

        before = sorted(path.name for path in (work / "objects").iterdir())
        thread = threading.Thread(target=cut_when_begun)
        thread.start()
        with pytest.raises(LinkLost):
            session.stage.stage(big)
        thread.join()
        assert sorted(path.name for path in (work / "objects").iterdir()) == before
        there = Path(Stage(session.board, session.workdir).stage(big))
        assert sha256_of(there) == sha256_of(big)
        left = list(work.glob("incoming-*"))
        assert len(left) == 1
        os.utime(left[0], (0, 0))
        session.reconnect()
        assert not left[0].exists()


def test_9_a_silent_fallback_to_the_cpu(library: Path, store: Store, tmp_path: Path) -> None:
    jobs, settings = jobs_in(tmp_path, 2), {"delegate": str(library), "delegate_options": {"fault": "none"}}
    with bench(**settings) as session:
        done = list(measure(session, jobs, QUICK, store))
        assert all("took no part of the model, it ran on the CPU" in m.failure.reason for m in done)
        assert not store.quarantined(session.conditions.key())
        with pytest.raises(BoardError, match=r"so does the known-good model"):
            next(measure(session, jobs[:1], dataclasses.replace(QUICK, runs=5), store, canary=add_job(tmp_path, 9)))
    with bench(**settings, allow_fallback=True) as session:
        assert all(m.status == "ok" for m in measure(session, jobs, QUICK, store))


def test_10_a_wrong_library(library: Path, store: Store, tmp_path: Path) -> None:
    installed, jobs = tmp_path / "libfaulty_delegate.so", jobs_in(tmp_path, 3)
    installed.write_bytes(library.read_bytes())
    settings = {"delegate": str(installed), "delegate_options": {"fault": "hang"}}
    with bench(**settings, delegate_sha256=sha256_of(library)[:12]) as session:

        def update() -> None:
            (tmp_path / "new.so").write_bytes(library.read_bytes() + b"\0")
            (tmp_path / "new.so").rename(installed)
            runner_of(session).kill()

        with pytest.raises(BoardFault, match=r"another build \(sha256 [0-9a-f]{12}, asked for [0-9a-f]{12}\)"):
            provoked(measure(session, jobs, QUICK, store), 1, update)
    count = len(store.all())
    with pytest.raises(BoardFault, match="another build"), bench(**settings, delegate_sha256=sha256_of(library)[:12]):
        pass
    with bench(**settings) as session:
        assert len({m.conditions.key() for m in [*store.all(), *measure(session, jobs, QUICK, store)]}) == 2
    assert len(store.all()) == count + len(jobs) * QUICK.rounds


def test_11_memory_for_the_npu_used_up(library: Path, root: Path, store: Store, tmp_path: Path) -> None:
    good, bad = jobs_in(tmp_path, 2), bad_job(tmp_path)
    with bench(delegate=str(library), delegate_options={"fault": "oom"}, root=str(root)) as session:
        (root / "proc/meminfo").write_text("CmaTotal: 327680 kB\nCmaFree: 1024 kB")
        with pytest.raises(BoardFault, match=r"cannot allocate video memory.*only 1024 kB of 327680 kB CMA free"):
            list(measure(session, [bad], QUICK, store))
        assert not store.all() and not store.quarantines()
        (root / "proc/meminfo").write_text("CmaTotal: 327680 kB\nCmaFree: 300000 kB")
        done = list(measure(session, [*good, bad], QUICK, store))
        assert Counter(m.model for m in done if m.status == "ok") == {job.name: 2 for job in good}
        failure = next(m.failure for m in done if m.model == "log")
        assert failure.kind == "model" and "CMA" not in failure.reason  # with the memory there, it is the model


def test_12_somebody_else_on_the_board(root: Path, store: Store, tmp_path: Path) -> None:
    job, work = add_job(tmp_path, 1), str(tmp_path / "work")
    with bench(root=str(root), workdir=work) as session:
        with pytest.raises(BoardBusy, match="in use by"), bench(workdir=work):
            pass
        assert "neighbours" not in next(measure(session, [job], QUICK, store)).flags
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        with bench(workdir=work) as session:
            noisy = next(measure(session, [job], dataclasses.replace(LONG, runs=4_000), store))
            short = next(measure(session, [add_job(tmp_path, 2)], QUICK, store))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert "neighbours" in noisy.flags and noisy.others_busy > 0.1
    assert "neighbours" in short.flags and short.board_us < 20_000  # a few ms: no tick of the kernel shows them


def test_13_a_runner_that_outlives_its_client(store: Store, tmp_path: Path) -> None:
    with open_board(loopback(kernels="builtin", workdir=str(tmp_path / "work"))) as board:
        config = dataclasses.replace(board.config, kind="ssh")
        script = (
            "import json, sys\n"
            "from hil.boards.config import BoardConfig\n"
            "from hil.boards.kinds import open_board\n"
            "from hil.session import Session\n"
            "raw = json.loads(sys.argv[1])\n"
            "with open_board(BoardConfig(**raw)) as board, Session(board) as session:\n"
            "    print('ready', flush=True); sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(dataclasses.asdict(config))],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as client:  # fmt: skip
            assert client.stdout.readline() == "ready\n"
            stale = psutil.Process(json.loads((tmp_path / "work/runner.lock").read_text())["pid"])
            client.send_signal(signal.SIGKILL)
        assert not psutil.wait_procs([stale], timeout=10)[1]
        with open_board(config) as mine, Session(mine) as session:
            list(measure(session, jobs_in(tmp_path, 2), QUICK, store))
    require_each_once(store, jobs_in(tmp_path, 2))


@pytest.mark.system
def test_14_another_host_key_during_the_runs(store: Store, tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 4)
    make_keys(tmp_path)
    with bench("sshd") as session:
        pinned = Path(session.board.config.known_hosts)
        right = pinned.read_text()
        other = f"{right.split(' ')[0]} {(tmp_path / 'host_key.pub').read_text()}"

        def swap() -> None:
            pinned.write_text(other)
            cut_connections(session)

        with pytest.raises(HostKeyChanged, match="hilnas board trust bench"):
            provoked(measure(session, jobs, QUICK, store), 2, swap)
        assert pinned.read_text() == other and 2 <= len(store.all()) < 2 * len(jobs)  # some were on their way
        pinned.write_text(right)  # as a person does who has compared the two
        session.reconnect()
        list(measure(session, jobs, QUICK, store))
    require_each_once(store, jobs)


@pytest.mark.system
def test_15_a_loss_of_power(store: Store, tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 6)
    with open_board(loopback("sshd", kernels="builtin")) as server:
        start = f"echo $1 >>{tmp_path}/power; exec </dev/null >/dev/null 2>&1; "
        start += f"(sleep 1; exec {find_sshd()} -D -e -f {server.folder}/sshd_config) & echo $! >>{tmp_path}/pids"
        config = dataclasses.replace(server.config, kind="ssh", power=("sh", "-c", start, "sh"))
        try:
            with open_board(config) as board, Session(board) as session:
                family = server_processes(server)

                def cut_power() -> None:
                    for process in [runner_of(session), *family]:
                        end(process)

                done = provoked(measure(session, jobs, QUICK, store), 4, cut_power)
        finally:
            for pid in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else ():
                for process in [*psutil.Process(int(pid)).children(recursive=True), psutil.Process(int(pid))]:
                    end(process)
    assert require_each_once(store, jobs) == done
    assert (tmp_path / "power").read_text() == "cycle\n"
