"""A run's folder: `runs/<name>/`. Which stages are done, under which key, and how long they took.

A stage's key is a digest of the settings it depends on and of the stages before it. A stage whose key is
unchanged is done and is not done again; another key does it afresh.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.formats.files import read_json, write_json
from hil.errors import UsageError

SUMMARY = ("data", "teacher", "models", "bundle", "conditions")  # what others read from summary.json


@dataclass(frozen=True)
class Progress:
    """How far a stage is; `text` says what was just done."""

    stage: str
    done: int
    total: int
    text: str = ""


def cpu_seconds() -> float:
    """Of this process, all its threads, and its children that ended."""
    return sum(os.times()[:4])


class Run:
    """A run's folder, locked against a second process while open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(f"{path}: another hilnas works on this run; wait for it or give --name") from None
        self._state_path = path / "state.json"
        self.state: dict[str, dict[str, Any]] = read_json(self._state_path) if self._state_path.exists() else {}

    @classmethod
    def borrowed(cls, path: Path) -> Run:
        """The folder of a run that is locked by the process that started this one; no stage is run on it."""
        run = cls.__new__(cls)
        run.path, run.state = path, {}
        return run

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_done(self, stage: str, key: str) -> bool:
        entry = self.state.get(stage, {})
        return bool(entry.get("done")) and entry.get("key") == key

    def reopen(self, stages: Iterable[str]) -> None:
        """These stages are not done any more."""
        for stage in stages:
            self.state.get(stage, {}).update(done=False)
        write_json(self._state_path, self.state)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent in each stage, over all interruptions."""
        return {stage: entry["seconds"] for stage, entry in self.state.items()}

    @contextmanager
    def stage(self, name: str, key: str) -> Iterator[None]:
        """Count the time of a stage; mark it done if its body ends well."""
        entry = self.state.get(name, {})
        same = entry.get("key") == key
        before, before_cpu = (float(entry.get(n, 0.0)) if same else 0.0 for n in ("seconds", "cpu_seconds"))
        started, started_cpu = time.monotonic(), cpu_seconds()
        done = False
        try:
            yield
            done = True
        finally:
            seconds = round(before + time.monotonic() - started, 2)
            cpu = round(before_cpu + cpu_seconds() - started_cpu, 2)
            self.state[name] = {"key": key, "done": done, "seconds": seconds, "cpu_seconds": cpu}
            write_json(self._state_path, self.state)
