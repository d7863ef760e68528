"""The processes of a loopback's own SSH server, to be found and ended by a test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil

from hil.boards.board import Board


def server_processes(board: Board) -> list[psutil.Process]:
    """The server and its connections, without the guard's `cat`, whose end would be ours."""
    family = psutil.Process(board._guard.pid).children(recursive=True)
    return those(family, lambda process: process.name() != "cat")


def connections(board: Board) -> list[psutil.Process]:
    """The server's processes, but for the one that listens: sshd's for each connection, and what runs in it."""
    return those(server_processes(board), lambda process: process.ppid() != board._guard.pid)


def those(processes: list[psutil.Process], wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Those that are wanted and have not ended meanwhile."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if wanted(process):
                found.append(process)
    return found


def end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
