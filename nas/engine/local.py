"""Where tasks run: in this process, in processes of this machine, or on a Ray cluster (`nas.engine.ray`).

A task is one call of a function that pickles; its result is a function of the task alone, so that a task whose
worker was lost is run again and nobody can tell, and so that every engine gives the same results.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

from nas.errors import ConfigError, EngineError

T = TypeVar("T")
R = TypeVar("R")
ATTEMPTS = 3  # a task that costs three workers their lives is the cause, not the victim
THREADS = "OMP_NUM_THREADS"


class Engine(Protocol):
    """Runs tasks; which of them next to each other, and where, is its own business."""

    def each(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        """Every task with `function(task)`, as they end.

        What a task raises is raised here. However this ends, the workers are killed: they may leave what they were
        writing. Raises `EngineError` for a task whose workers were lost time and again.
        """
        ...


def open_engine(name: str, workers: int) -> Engine:
    """`local`, `ray` (a cluster on this machine, or the one at RAY_ADDRESS) or `ray://HOST:PORT`.

    Raises `ConfigError` for another name, no workers, or Ray where it is not installed.
    """
    if workers < 1:
        raise ConfigError(f"--workers {workers}: give 1 or more")
    if name == "local":
        return Local(workers)
    if name == "ray" or name.startswith("ray://"):
        from nas.engine.ray import Ray

        return Ray(workers, None if name == "ray" else name)
    raise ConfigError(f"--engine {name}: there are local, ray and ray://HOST:PORT")


@dataclass(frozen=True)
class Local:
    """`workers` processes of one thread each; one worker is this process itself.

    Processes never outlive whoever asked: not after Ctrl-C, nor after a kill. (`concurrent.futures` waits for what
    is running before it lets go, and its workers survive a killed parent.)
    """

    workers: int = 1
    attempts: int = ATTEMPTS

    def each(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        if self.workers == 1:
            for task in tasks:
                yield task, function(task)
        else:
            yield from in_processes(function, tasks, self.workers, self.attempts)


def in_processes(
    function: Callable[[T], R], tasks: Iterable[T], workers: int, attempts: int = ATTEMPTS
) -> Generator[tuple[T, R], None, None]:
    """`Engine.each` in processes that import `function` afresh."""
    tasks = list(tasks)
    left = deque(range(len(tasks)))
    lost: Counter[int] = Counter()
    processes: dict[Connection, SpawnProcess] = {}
    running: dict[Connection, int] = {}
    idle: list[Connection] = []
    try:
        while left or running:
            while left and len(running) < workers:
                connection = idle.pop() if idle else _started(function, processes)
                running[connection] = left.popleft()
                with suppress(ConnectionError):  # one that died while idle is found below, at its answer
                    connection.send(tasks[running[connection]])
            for connection in [c for c in wait(list(running)) if isinstance(c, Connection)]:
                number = running.pop(connection)
                try:
                    result, error = connection.recv()
                except (EOFError, ConnectionError):
                    _end(connection, processes.pop(connection))
                    lost[number] += 1
                    if lost[number] >= attempts:
                        raise _too_often(tasks[number], lost[number]) from None
                    left.appendleft(number)
                    continue
                idle.append(connection)
                if error is not None:
                    raise error
                yield tasks[number], result
    finally:
        for connection, process in processes.items():
            _end(connection, process)


def _too_often(task: object, times: int) -> EngineError:
    again = f" {times} times" if times > 1 else ""
    return EngineError(
        f"a worker process was killed{again} at {task}, perhaps for want of memory; "
        "run again with fewer --jobs or --workers"
    )


def _started(function: Callable[[T], R], processes: dict[Connection, SpawnProcess]) -> Connection:
    """One more process, of one thread, under its connection in `processes`."""
    context = multiprocessing.get_context("spawn")
    with _interrupts_held_back(), _one_thread():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        process.start()
        processes[ours] = process
        theirs.close()
    return ours


def _end(connection: Connection, process: SpawnProcess) -> None:
    process.kill()
    process.join()
    connection.close()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that start in here never see Ctrl-C: it is their parent's to handle, once out of here."""
    resource_tracker.ensure_running()  # starting it, as the first process would, lets interrupts in again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start in here leave the other cores to each other: torch reads this when it is imported."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(THREADS) if before is None else os.environ.update({THREADS: before})


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """A worker's life: a task in, a result or an exception out, until the other end is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            connection.send((function(connection.recv()), None))
        except EOFError:
            return
        except Exception as error:  # the parent raises it
            connection.send((None, error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 (this is a worker)
    parent.join()
    os._exit(1)
