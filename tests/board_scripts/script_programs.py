"""Starts the board's scripts the way a board does: as programs, over pipes."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from hil.scripts import runner_archive

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "board_scripts"


class Runner:
    """runner.py as a process; a job's defaults are quick."""

    def __init__(self, archive: Path, *arguments: str) -> None:
        archive.write_bytes(runner_archive())
        self.process = subprocess.Popen(
            [sys.executable, str(archive), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self.hello = self.receive()

    def send(self, line: str) -> None:
        self.process.stdin.write(line.encode() + b"\n")

    def start(self, model: Path, **job: Any) -> None:
        defaults = {
            "id": "job", "model": str(model), "warmup_runs": 1, "runs": 3, "threads": 1, "kernels": "xnnpack",
            "compile_deadline_s": 20, "run_deadline_s": 20,
        }  # fmt: skip
        self.send(json.dumps({**defaults, **job}))

    def receive(self, timeout_s: float = 30) -> dict[str, Any]:
        assert select.select([self.process.stdout], [], [], timeout_s)[0], "no line from the runner"
        while "beat" in (answer := dict(json.loads(self.process.stdout.readline()))):
            assert select.select([self.process.stdout], [], [], timeout_s)[0], "no line from the runner"
        return answer

    def ask(self, model: Path, **job: Any) -> dict[str, Any]:
        self.start(model, **job)
        return self.receive()

    def close(self) -> int:
        self.process.stdin.close()
        code = self.process.wait(timeout=10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code
