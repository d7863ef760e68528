"""What a runner borrows on the board, and gives back however it ends: its folder's lock, the CPU governor, the spool.

Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

from board_scripts.reserve import write_whole

SPOOL_KEPT_S = 7 * 86400
UPLOAD_KEPT_S = 3600  # somebody else may be uploading right now
REAP_S = 3.0
ANSWERS = 2  # another number where an answer has other fields: what an older runner kept is run again
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def is_id(name: Any) -> bool:
    return isinstance(name, str) and JOB_ID.fullmatch(name) is not None


class Workdir:
    """The folder that this runner serves: nothing outside it is read, and answers wait in its spool."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.spool = os.path.join(self.path, "spool")
        os.makedirs(self.spool, mode=0o700, exist_ok=True)

    def sweep(self) -> None:
        """Answers that nobody fetched for a week, and halves that a kill left, here or of an upload.

        For the holder of the lock alone: a half may be one that the holder is writing.
        """
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            with contextlib.suppress(OSError):
                if name.startswith("incoming-") and time.time() - os.stat(path).st_mtime > UPLOAD_KEPT_S:
                    shutil.rmtree(path)
        for name in os.listdir(self.spool):
            path = os.path.join(self.spool, name)
            with contextlib.suppress(OSError):
                if name.endswith(".part") or time.time() - os.stat(path).st_mtime > SPOOL_KEPT_S:
                    os.unlink(path)

    def refusal(self, job: dict[str, Any]) -> str | None:
        """Why a job's files are not ours to read; None when they are."""
        for name in ("model", "input", "expected"):
            path = job.get(name)
            if path and not os.path.realpath(path).startswith(self.path + os.sep):
                return f"{name} {path} lies outside {self.path}"
        return None

    def _file(self, job_id: str) -> str:
        return os.path.join(self.spool, job_id + ".json")

    def kept(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to this very job from an earlier time, if nobody acknowledged it."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(read_file_or_none(self._file(job["id"])) or b"")
            if record["job"] == job_digest(job):
                kept_s = min(max(time.time() - record["at"], 0.0), SPOOL_KEPT_S)  # somebody may have set the clock
                return {**record["answer"], "kept_s": round(kept_s, 3)}
        return None

    def keep(self, job: dict[str, Any], answer: dict[str, Any]) -> None:
        path = self._file(job["id"])
        with contextlib.suppress(OSError):  # a full disk costs the safety net, not the measurement
            write_whole(path, {"job": job_digest(job), "answer": answer, "at": time.time()})

    def forget(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            with contextlib.suppress(OSError):
                os.unlink(self._file(job_id))


def read_file_or_none(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def job_digest(job: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([ANSWERS, job], sort_keys=True).encode()).hexdigest()


class Busy(Exception):  # noqa: N818
    """Somebody else has the board."""


class Stuck(Exception):  # noqa: N818
    """Our own last runner, or a child of it, does not even end when killed: it waits for a driver that hangs."""


@contextlib.contextmanager
def only_one(workdir: str, token: str, owner: str) -> Iterator[None]:
    """Holds the workdir's lock, which the kernel gives back however we end; reaps our own client's last runner.

    Raises Busy naming who else holds it, Stuck where our own does not let go of it.
    """
    path = os.path.join(workdir, "runner.lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = holder_in(os.pread(fd, 4096, 0))
            if not token or holder.get("token") != hashlib.sha256(token.encode()).hexdigest():
                who, pid = holder.get("owner", "somebody"), holder.get("pid", "?")
                raise Busy(
                    f"in use by {who} since {holder.get('since', '?')} (process {pid} there): wait, or end it"
                ) from None
            for number in (signal.SIGTERM, signal.SIGKILL):  # a runner that hangs hears only the second
                with contextlib.suppress(OSError, KeyError, TypeError):
                    os.kill(holder["pid"], number)
                if lock_within(fd, REAP_S):
                    break
            else:
                raise Stuck("its last runner does not end: reboot the board") from None
        holder = {
            "pid": os.getpid(),
            "owner": owner,
            "token": hashlib.sha256(token.encode()).hexdigest(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(fd)


def holder_in(text: bytes) -> dict[str, Any]:
    """Who wrote the lock's file; nothing where that is not to be read."""
    with contextlib.suppress(ValueError):
        holder = json.loads(text)
        if isinstance(holder, dict):
            return holder
    return {}


def lock_within(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)


@contextlib.contextmanager
def pinned_governor(wanted: str, sysfs: str, workdir: str) -> Iterator[None]:
    """All cores under one CPU governor, and afterwards under those that they had.

    What they had stands in a file meanwhile: after a kill, the next runner restores them.
    """
    note = os.path.join(workdir, "governors.json")
    restore_governors(note)
    if not wanted:
        yield
        return
    paths = sorted(glob.glob(f"{sysfs}/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    before = {path: (read_file_or_none(path) or b"").decode().strip() for path in paths}
    write_whole(note, before)
    try:
        for path in paths:
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(wanted)  # where we may not, the conditions say which one was in force
        yield
    finally:
        restore_governors(note)


def restore_governors(note: str) -> None:
    before = json.loads(read_file_or_none(note) or b"{}")
    for path, governor in before.items():
        with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
            file.write(governor)
    with contextlib.suppress(OSError):
        os.unlink(note)
