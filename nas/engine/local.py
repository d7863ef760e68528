"""Tasks in this process, or in several processes of this machine."""

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
from typing import Any

from nas.engine.protocol import ATTEMPTS, THREADS, R, T
from nas.errors import EngineError


@dataclass(frozen=True)
class Local:
    """`workers` processes of one thread each; one worker is this process itself.

    Processes never outlive their parent, neither after Ctrl-C nor after a kill. (`concurrent.futures` waits for running
    tasks before it returns, and its workers survive a killed parent.)
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
                with suppress(ConnectionError):  # one that died while idle is noticed below, where its result is read
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
    """Start one more process, of one thread; it is added to `processes` under its connection."""
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
    """Processes started in this context never see Ctrl-C; their parent handles it after the context ends."""
    resource_tracker.ensure_running()  # the first process would start it, and that unblocks interrupts again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started in this context use one core each: torch reads the variable when it is imported."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(THREADS) if before is None else os.environ.update({THREADS: before})


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """A worker: it receives tasks and sends results or exceptions, until the parent closes the connection."""
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
