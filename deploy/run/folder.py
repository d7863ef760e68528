"""A run's folder: `runs/<name>/`. Which stages are done, under which key, and how long they took.

A stage's key (`deploy.run.keys`) is a digest of the settings it depends on and of the stages before it. A stage whose
key is unchanged is done and is not done again; another key does it afresh.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from deploy.run.records import RunState, StageState
from hil.errors import UsageError
from hil.measurement import Measurement

SUMMARY = ("data", "teacher", "models", "bundle", "conditions")  # what others read from summary.json


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        text: what was just done.
        measurements: that came since the step before.
        unit: of `done` and `total`, where they count no things: "s".
    """

    stage: str
    done: int
    total: int
    text: str = ""
    measurements: tuple[Measurement, ...] = ()
    unit: str = ""


def cpu_seconds() -> float:
    """Of this process, all its threads, and its children that ended."""
    return sum(os.times()[:4])


def locked(path: Path, otherwise: str = "give --name") -> TextIO:
    """The lock of a folder, which is made; whoever closes it gives it back. `UsageError` where another process has it.

    `otherwise`: what there is to do but to wait.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise UsageError(f"{path}: another hilnas works on this run; wait for it or {otherwise}") from None
    return lock


class Run:
    """A run's folder, locked against a second process while open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = locked(path)
        self._state_path = path / RunState.FILE
        self.stages: dict[str, StageState] = {}
        if self._state_path.exists():
            try:
                self.stages = dict(RunState.read(self._state_path).stages)
            except UsageError:
                self._lock.close()
                raise

    @classmethod
    def borrowed(cls, path: Path) -> Run:
        """The folder of a run that is locked by the process that started this one; no stage is run on it."""
        run = cls.__new__(cls)
        run.path, run.stages = path, {}
        return run

    @classmethod
    def viewed(cls, path: Path) -> Run:
        """A run as it stands, not locked and perhaps not there; no stage is run on it."""
        run = cls.borrowed(path)
        if (path / RunState.FILE).exists():
            run.stages = dict(RunState.read(path / RunState.FILE).stages)
        return run

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_done(self, stage: str, key: str) -> bool:
        state = self.stages.get(stage)
        return state is not None and state.done and state.key == key

    def reopen(self, stages: Iterable[str]) -> None:
        """These stages are not done any more."""
        for stage in stages:
            if stage in self.stages:
                self.stages[stage] = replace(self.stages[stage], done=False)
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent in each stage, over all interruptions."""
        return {name: state.seconds for name, state in self.stages.items()}

    @contextmanager
    def stage(
        self, name: str, key: str, *, version: int = 0, settings: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Count the time of a stage; mark it done if its body ends well.

        `version` and `settings`: what is behind the key, for the explanation of why a stage is run again.
        """
        before = self.stages.get(name)
        if before is None or before.key != key:
            before = StageState(key, done=False, seconds=0.0, cpu_seconds=0.0)
        started, started_cpu = time.monotonic(), cpu_seconds()
        done = False
        try:
            yield
            done = True
        finally:
            seconds = round(before.seconds + time.monotonic() - started, 2)
            cpu = round(before.cpu_seconds + cpu_seconds() - started_cpu, 2)
            self.stages[name] = StageState(key, done, seconds, cpu, version, settings or {})
            self._write()

    def _write(self) -> None:
        RunState(self.stages).write(self._state_path)
