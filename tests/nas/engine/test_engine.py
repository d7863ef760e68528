"""One contract, every engine: all tasks once, the same results, lost workers' tasks run again, errors raised here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from nas.engine.local import Local, in_processes
from nas.engine.open import open_engine
from nas.engine.protocol import Engine
from nas.errors import ConfigError, EngineError


def ray_installed() -> bool:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        print(f"Ray's engine is left out: {error}; pip install 'hilnas[ray]'")
        return False
    return True


RAY_MARKS = (pytest.mark.ray, pytest.mark.skipif(not ray_installed(), reason="needs the extra `ray`"))
ENGINES = ["local", *(pytest.param(name, marks=RAY_MARKS) for name in ("ray", "ray://"))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def ray_head() -> Iterator[str]:
    """The address of a cluster of two CPUs, whose head is a process of its own that can import what this one can."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of its sockets have to be short
    ports, client = {"port": free_port(), "dashboard-agent-listen-port": free_port()}, free_port()
    options = {**ports, "ray-client-server-port": client, "num-cpus": 2, "object-store-memory": 100_000_000}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", *(f"--{k}={v}" for k, v in options.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not listens(client):
            assert head.poll() is None and time.monotonic() < deadline, "no Ray head within two minutes"
            time.sleep(0.1)
        yield f"ray://127.0.0.1:{client}"
    finally:
        started = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        head.wait(60)
        for left in psutil.wait_procs(started, timeout=30)[1]:
            left.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request) -> Iterator[Engine]:
    """Two workers; on Ray: one cluster for all the tests, since it takes seconds to start."""
    if request.param == "local":
        yield open_engine("local", 2)
    elif request.param == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield open_engine("ray", 2)
        ray.shutdown()
    else:
        with ray_head() as address:
            yield open_engine(address, 2)


def none_left(word: str, besides: Collection[psutil.Process] = ()) -> bool:
    """Whether this process's children, of any generation, with `word` in their command end within a minute."""
    deadline = time.monotonic() + 60
    while any(word in command(child) for child in set(psutil.Process().children(recursive=True)).difference(besides)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# Functions of tasks: at a module's top, so that workers can import them


def about(task: int) -> tuple[int, str | None]:
    return task**2, os.environ.get("OMP_NUM_THREADS")


def process_of(task: int) -> int:
    return os.getpid()


def process_of_two(folder: Path, task: int) -> int:
    """Its own, once another one has come to a task too."""
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < deadline, "no other process within a minute"
        time.sleep(0.01)
    return os.getpid()


def begins(folder: Path, task: int) -> None:
    (folder / str(task)).touch()
    time.sleep(0.2)


def refuses_three(task: int) -> int:
    if task == 3:
        raise ConfigError("no threes")
    return task


def dies_the_first_time(folder: Path, task: int) -> int:
    """Kills its own process if it is the first to take an even task."""
    if task % 2 == 0:
        try:
            (folder / str(task)).touch(exist_ok=False)
        except FileExistsError:
            return -task
        os.kill(os.getpid(), signal.SIGKILL)
    return -task


def always_dies(task: int) -> None:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_every_task_once_on_one_thread(engine):
    found = dict(engine.each(about, range(7)))
    assert found == {task: (task**2, "1") for task in range(7)}
    assert list(engine.each(about, [])) == []


def test_this_process_keeps_its_threads(monkeypatch):
    for before in ("7", None):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if before:
            monkeypatch.setenv("OMP_NUM_THREADS", before)
        list(in_processes(about, [1], 1))
        assert os.environ.get("OMP_NUM_THREADS") == before


def test_workers_work_side_by_side_and_not_here(engine, tmp_path):
    found = {pid for _, pid in engine.each(partial(process_of_two, tmp_path), range(6))}
    assert len(found) == 2 and os.getpid() not in found


def test_what_a_task_raises_is_raised_here(engine):
    with pytest.raises(ConfigError, match="no threes"):
        list(engine.each(refuses_three, range(6)))


def test_a_lost_workers_task_is_run_again(engine, tmp_path):
    assert dict(engine.each(partial(dies_the_first_time, tmp_path), range(4))) == {task: -task for task in range(4)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_a_task_that_kills_its_workers_is_named(engine):
    with pytest.raises(
        EngineError, match=r"(Ray could not run 1: its worker was killed 3 times|killed 3 times at 1), "
    ):
        list(engine.each(always_dies, [1]))


def test_whoever_stops_early_leaves_no_worker(engine, tmp_path):
    with closing(engine.each(partial(begins, tmp_path), range(50))) as running:
        next(running)
    assert none_left("spawn_main")
    assert 1 <= len(list(tmp_path.iterdir())) < 50


ENDLESS = "import time; from nas.engine.local import Local; list(Local(2).each(time.sleep, [3600, 3600]))"


def test_a_killed_process_leaves_no_worker_whatever_its_task():
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS])
    workers, deadline = [], time.monotonic() + 60
    while len(workers) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
        workers = [child for child in psutil.Process(parent.pid).children() if "spawn_main" in command(child)]
    parent.kill()
    parent.wait()
    _, left = psutil.wait_procs(workers, timeout=60)
    for worker in left:
        worker.kill()
    assert not left


def test_one_attempt_is_one(tmp_path):
    with pytest.raises(EngineError, match=r"killed at 1, perhaps for want of memory; run again with fewer"):
        list(in_processes(always_dies, [1], 2, attempts=1))


def test_one_worker_is_this_process():
    assert {pid for _, pid in Local(1).each(process_of, range(2))} == {os.getpid()}


def test_a_wrong_engine_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"--engine dask: there are local, ray and ray://HOST:PORT"):
        open_engine("dask", 2)
    with pytest.raises(ConfigError, match="--workers 0: give 1 or more"):
        open_engine("local", 0)


def test_missing_ray_is_an_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install 'hilnas\[ray\]'"):
        list(open_engine("ray", 1).each(about, [1]))


@pytest.mark.ray
@pytest.mark.skipif(not ray_installed(), reason="needs the extra `ray`")
def test_a_missing_cluster_is_an_error(monkeypatch):
    import ray
    from ray.util.client import worker

    ray.shutdown()  # the other tests' cluster
    monkeypatch.setattr(worker, "INITIAL_TIMEOUT_SEC", 0.1)  # it doubles with each of three tries
    with pytest.raises(EngineError, match=r"--engine ray://127\.0\.0\.1:9: no cluster there"):
        list(open_engine("ray://127.0.0.1:9", 1).each(about, [1]))


@pytest.mark.ray
@pytest.mark.skipif(not ray_installed(), reason="needs the extra `ray`")
def test_a_cluster_of_our_own_ends_with_the_tasks():
    import ray

    ray.shutdown()
    others = psutil.Process().children(recursive=True)  # the head of the other tests
    assert dict(open_engine("ray", 2).each(about, range(3))) == {task: (task**2, "1") for task in range(3)}
    assert not ray.is_initialized() and none_left("raylet", others)
