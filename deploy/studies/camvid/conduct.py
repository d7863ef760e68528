"""Take the steps of the study, one command after the other: what is done is kept, what was stopped goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from deploy.formats.digest import digest
from deploy.formats.files import read_json
from deploy.run.records import Record
from deploy.studies.camvid.plan import StudyStep
from hil.errors import HilError

INTERRUPTED = 130
CHECK_FAILED = 1


@dataclass(frozen=True)
class StepRecord(Record):
    """A step that ended.

    Attributes:
        command: that was given; `code`: it ended with, 1 where a check did not hold, which is a result too.
        seconds: of wall time, of the last time it was started.
    """

    name: str
    command: str
    code: int
    seconds: float

    FILE: ClassVar[str] = "steps/NAME.json"
    COMMAND: ClassVar[str] = "study camvid"


class StepFailedError(HilError):
    """A command of the study that could not do its work; its own line, above, says why."""

    def __init__(self, step: StudyStep, code: int) -> None:
        super().__init__(f"step '{step.name}' ended with {code}; put that right, and the same command goes on with it")
        self.exit_code = code


def ended(step: StudyStep, out: Path) -> StepRecord | None:
    """What is known of a step that ended under its present command."""
    path = _record_path(step, out)
    if not path.exists():
        return None
    record = StepRecord.read(path)
    return record if record.command == step.command else None


def left(steps: Sequence[StudyStep], out: Path) -> list[StudyStep]:
    """Those to take: not done, or ended by a check that did not hold, which may hold now."""
    return [step for step in steps if (record := ended(step, out)) is None or record.code]


def output(step: StudyStep, out: Path) -> Mapping[str, Any]:
    """What the step's command printed as JSON. `UsageError` where it is not done."""
    found: Mapping[str, Any] = read_json(_output_path(step, out))
    return found


def conduct(steps: Sequence[StudyStep], out: Path) -> Iterator[tuple[StudyStep, StepRecord | None]]:
    """Take each step: yields it before (None) and after. One whose needs failed is left out.

    Progress and errors of a command go where this one's go. Raises `StepFailedError`, `KeyboardInterrupt`.
    """
    for step in steps:
        if any((out / f"steps/{need}.json").exists() and _failed(out, need) for need in step.needs):
            continue
        yield step, None
        yield step, _take(step, out)


def _failed(out: Path, name: str) -> bool:
    return StepRecord.read(out / f"steps/{name}.json").code != 0


def _take(step: StudyStep, out: Path) -> StepRecord:
    started, printed = time.monotonic(), _output_path(step, out)
    printed.parent.mkdir(parents=True, exist_ok=True)
    part = printed.with_name(printed.name + ".part")
    with part.open("wb") as file:
        command = [sys.executable, "-m", "deploy.cli", *step.arguments, "--json"]
        code = subprocess.run(command, stdout=file, check=False).returncode
        os.fsync(file.fileno())
    if code in (INTERRUPTED, -2):
        raise KeyboardInterrupt
    if code not in (0, CHECK_FAILED) or not _is_json(part):
        raise StepFailedError(step, code if code > 0 else 1)
    part.replace(printed)
    record = StepRecord(step.name, step.command, code, round(time.monotonic() - started, 1))
    record.write(_record_path(step, out))
    return record


def _is_json(path: Path) -> bool:
    """Of a check that did not hold there is a result; whatever else ends with the same code prints none."""
    try:
        return read_json(path) is not None
    except HilError:
        return False


def _record_path(step: StudyStep, out: Path) -> Path:
    return out / "steps" / f"{step.name}.json"


def _output_path(step: StudyStep, out: Path) -> Path:
    return out / "steps" / f"{step.name}.{digest(step.command)}.output.json"
