"""What the kernel logged while a job ran: the oops of a driver appears there, and only there.

Needs Python 3.9 and its standard library. Where the log may not be read, nothing is reported.
"""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

WARNING = 4  # syslog's levels: 0 is the gravest
KEPT = 3
LINE_CHARACTERS = 200
MOST_RECORDS = 1000


class KernelLog:
    """The records of /dev/kmsg from now on: "level,number,microseconds,flags;text", one a read."""

    def __init__(self, path: str) -> None:
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)

    def complaints(self) -> str:
        """The last warnings and errors since it was opened, to be put after a reason; empty without any."""
        found = []
        for line in self._new().decode("utf-8", "replace").splitlines():
            head, semicolon, text = line.partition(";")
            level = head.split(",")[0]
            if semicolon and level.isdecimal() and int(level) % 8 <= WARNING:
                found.append(text.strip()[:LINE_CHARACTERS])
        return f"; the kernel's log meanwhile: {' | '.join(found[-KEPT:])}" if found else ""

    def _new(self) -> bytes:
        records = []
        for _ in range(MOST_RECORDS if self._fd is not None else 0):
            try:
                record = os.read(self._fd or 0, 8192)
            except BrokenPipeError:  # this record was overwritten before we read it
                continue
            except OSError:  # no more of them
                break
            if not record:
                break
            records.append(record)
        return b"".join(records)

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
