"""Tasks in parallel processes that never outlive whoever asked: not after Ctrl-C, nor after a kill.

`concurrent.futures` waits for what is running before it lets go, and its workers survive a killed parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from hil.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that start in here never see Ctrl-C: it is their parent's to handle, once out of here."""
    resource_tracker.ensure_running()  # starting it, as the first process would, lets interrupts in again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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


def each(function: Callable[[T], R], tasks: Iterable[T], jobs: int) -> Generator[tuple[T, R], None, None]:
    """Every task with `function(task)`, as they end, from `jobs` processes that import `function` afresh.

    What a task raises is raised here. However this ends, the workers are killed: they may leave what they were
    writing. Raises `UsageError` where a worker was killed by someone else.
    """
    context = multiprocessing.get_context("spawn")
    left = deque(tasks)
    workers: dict[Connection, Any] = {}
    running: dict[Connection, T] = {}
    try:
        with _interrupts_held_back():
            for _ in range(min(jobs, len(left))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function), daemon=True)
                process.start()
                workers[ours] = process
                theirs.close()
        idle = list(workers)
        while left or running:
            try:
                for connection in idle[: len(left)]:
                    connection.send(left[0])
                    running[connection] = left.popleft()
                ready = [c for c in wait(list(running)) if isinstance(c, Connection)]
                ended = [(running.pop(c), *c.recv()) for c in ready]
            except (EOFError, ConnectionError):
                raise UsageError(
                    "a worker process was killed, perhaps for want of memory; run again with fewer --jobs"
                ) from None
            idle = ready
            for task, result, error in ended:
                if error is not None:
                    raise error
                yield task, result
    finally:
        for connection, process in workers.items():
            process.kill()
            process.join()
            connection.close()
