"""Who has the board: takes, gives back or shows its reservation, and shows whose runner is at work. One JSON line.

    {"done": true, "reservation": {"owner", "note", "since", "until", "left_s"} or null,
     "runner": {"owner", "pid", "since"} or null}

`done` is false where somebody else's reservation or runner stands in the way. A reservation expires, whatever became
of its client. Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

FILE = "reservation.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def write_whole(path: str, record: Any) -> None:
    """As JSON, whole or not at all. Raises OSError."""
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(path + ".part", path)


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """One at a time looks and writes; the kernel gives the lock back however we end."""
    os.makedirs(workdir, exist_ok=True)
    fd = os.open(os.path.join(workdir, "reservation.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def standing(workdir: str) -> dict[str, Any] | None:
    """The reservation, unless it has expired.

    The time since boot decides, which no clock step reaches. After a reboot the wall clock does; where that lies
    before the reservation was made, as on a board without a battery, it has expired.
    """
    try:
        record = json.loads(read(os.path.join(workdir, FILE)))
        if record["boot_id"] == read(BOOT_ID).strip():
            left_s = record["until_uptime_s"] - time.clock_gettime(time.CLOCK_BOOTTIME)
        else:
            left_s = record["until_s"] - time.time() if record["since_s"] <= time.time() else 0
        shown = {name: str(record[name]) for name in ("owner", "note", "since", "until")}
    except (ValueError, KeyError, TypeError):
        return None
    return {**shown, "left_s": round(left_s)} if left_s > 0 else None


def at_work(workdir: str) -> dict[str, Any] | None:
    """Whose runner holds its lock. From /proc/locks: to try the lock would stop a runner that starts just then."""
    path = os.path.join(workdir, "runner.lock")
    try:
        inode = str(os.stat(path).st_ino)
    except OSError:
        return None
    rows = [line.split() for line in read("/proc/locks").splitlines()]
    if not any(row[1] == "FLOCK" and row[5].rpartition(":")[2] == inode for row in rows if len(row) == 8):
        return None
    with contextlib.suppress(ValueError, AttributeError):
        holder = json.loads(read(path))
        return {"owner": str(holder.get("owner")), "pid": holder.get("pid"), "since": holder.get("since")}
    return {"owner": "somebody", "pid": None, "since": None}


def in_the_way(holder: dict[str, Any] | None, owner: str) -> bool:
    return holder is not None and holder["owner"] != owner


def take(workdir: str, owner: str, seconds: float, note: str) -> bool:
    """Once more by the same owner: from now on anew. The runner locks first and looks here afterwards, so that of
    a runner and a reservation that come at once one gives way.
    """
    with locked(workdir):
        if in_the_way(standing(workdir), owner) or in_the_way(at_work(workdir), owner):
            return False
        now = time.time()
        record = {
            "owner": owner,
            "note": note,
            "since_s": now,
            "until_s": now + seconds,
            "until_uptime_s": time.clock_gettime(time.CLOCK_BOOTTIME) + seconds,
            "boot_id": read(BOOT_ID).strip(),
            "since": utc(now),
            "until": utc(now + seconds),
        }
        write_whole(os.path.join(workdir, FILE), record)
        return True


def release(workdir: str, owner: str, force: bool) -> bool:
    with locked(workdir):
        if in_the_way(standing(workdir), owner) and not force:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(workdir, FILE))
        return True


def reserved_by_another(workdir: str, owner: str) -> str:
    """For the runner: who else has reserved the board, in words; empty when nobody has."""
    with locked(workdir):
        held = standing(workdir)
    if held is None or held["owner"] == owner:
        return ""
    note = " ({})".format(held["note"]) if held["note"] else ""
    return "reserved by {}{} until {}".format(held["owner"], note, held["until"])


def utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="reserve this board; print one JSON line about who has it")
    parser.add_argument("action", choices=("show", "take", "release"))
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--owner", default="")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--note", default="")
    parser.add_argument("--force", action="store_true", help="release somebody else's too")
    options = parser.parse_args(arguments)
    done = True
    if options.action == "take":
        done = take(options.workdir, options.owner, options.seconds, options.note)
    elif options.action == "release":
        done = release(options.workdir, options.owner, options.force)
    found = {"done": done, "reservation": standing(options.workdir), "runner": at_work(options.workdir)}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
