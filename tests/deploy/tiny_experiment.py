"""A whole experiment that takes seconds, and the command line as a process that can be killed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
HILNAS = Path(sys.executable).with_name("hilnas")
COMMAND = "import sys; from deploy.cli import main; sys.exit(main())"
# A checkpoint after every training step: whatever is killed goes on from the middle.
EAGER = "import nas.training.train; nas.training.train.SECONDS_BETWEEN_CHECKPOINTS = -1.0\n"
# A stage (the first argument) waits at one of its steps (the second), so that no signal comes too late for it.
HELD = """
import signal, sys
from deploy.run.folder import Progress
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
made, stage, step = Progress.__init__, sys.argv.pop(1), int(sys.argv.pop(1))
def held(self, *given):
    made(self, *given)
    if (self.stage, self.done) == (stage, step):
        signal.sigtimedwait({signal.SIGUSR1}, 300)
Progress.__init__ = held
"""
STAGES = ("teacher", "distil", "tables", "profile", "agree", "search", "retrain", "ship")
TIMED = 2 + 4  # 2 choices ** 1 layer + 2 choices ** 2 layers
SUBNETS = 2 * TIMED  # at 4 and 8 bits, which run alike: the one for its answer, the other for its latency
CONSTANTS = 3 + 2 * 3  # empty, stem, head; one and three copies of each map around the blocks
PROFILE_ROUNDS, AGREEMENT_ROUNDS, SHIP_ROUNDS, AGREEMENT_MODELS, BUDGETS = 1, 2, 4, 4, 1
PROFILED = SUBNETS - TIMED + (TIMED + CONSTANTS) * PROFILE_ROUNDS
SHIPPED = (2 + BUDGETS) * SHIP_ROUNDS  # the teacher and the teacher trained on beside the budgets' models
CONFIRMED, CONFIRM_ROUNDS = 4, 4  # [search] measured, and as many rounds as an interval needs
MEASUREMENTS = (
    PROFILED + (AGREEMENT_MODELS + 1) * AGREEMENT_ROUNDS + (CONFIRMED + 1) * CONFIRM_ROUNDS * BUDGETS + SHIPPED
)

SPACE = """
name = "tiny"
stem_channels = 16
first_channels = 16
kernels = [3]
expansions = [2, 6]
bits = [4, 8]
blocks = [
    { stride = 2, channels = 24, layers = 1, teacher_layers = 1 },
    { stride = 1, channels = 32, layers = 2, teacher_layers = 2 },
]
"""

EXPERIMENT = """
name = "tiny"
space = "space.toml"
seed = 0
budgets = [{ name = "fast", latency = 50.0 }]

[data]
spec = "scenes"
size = [64, 96]
train = 16
val = 4

[teacher]
head = { channels = 8, rates = [2] }
schedule = { steps = 30, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4 }

[distil]
schedule = { steps = 30, optimizer = "adamw", batch_size = 4 }
learning_rates = [3e-3]

[quantization]
calibration_images = 4
evaluation_images = 4

[profile]
warmup_runs = 1
runs = 3
rounds = 1

[agreement]
models = 4
tau = -1.0
measuring = { warmup_runs = 1, runs = 3, rounds = 2 }

[retrain]
steps = 30
optimizer = "adamw"
learning_rate = 1e-3
batch_size = 4
"""


def write_experiment(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """The configuration's path; each of `changes` replaces a text that stands in it exactly once."""
    folder.mkdir(parents=True, exist_ok=True)
    text = EXPERIMENT
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the tiny experiment"
        text = text.replace(old, new)
    (folder / "space.toml").write_text(SPACE)
    config = folder / "tiny.toml"
    config.write_text(text)
    return config


def arguments(config: Path, runs: Path, *more: str) -> list[str]:
    """What follows `hilnas loop`."""
    return ["--config", str(config), "--runs-dir", str(runs), "--boards", str(REPOSITORY / "boards.toml"), *more]


def one_line(stderr: str, *words: str) -> None:
    """Stderr holds one line of the kit, nothing like a traceback, and `words` in it."""
    lines = [line for line in stderr.splitlines() if not line.endswith((": starts", ": done"))]
    assert len(lines) == 1 and lines[0].startswith("hilnas: "), stderr
    assert not [word for word in words if word not in lines[0]], stderr


@dataclass
class Started:
    """`hilnas` as a process, in a session of its own; `said` is what stderr showed so far."""

    process: subprocess.Popen[bytes]
    said: str = ""

    def wait_for(self, text: str, timeout_s: float = 300.0) -> None:
        assert self.process.stderr is not None
        deadline = time.monotonic() + timeout_s
        while text not in self.said:
            ready, _, _ = select.select([self.process.stderr], [], [], 0.5)
            block = os.read(self.process.stderr.fileno(), 4096) if ready else b""
            assert block or not ready, f"ended before {text!r}: {self.said}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout_s} s: {self.said}"
            self.said += block.decode()

    def end(self, number: signal.Signals, *, group: bool = False) -> int:
        """Send a signal to the process alone (or its group, as a terminal does); the exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.finish()

    def release(self) -> None:
        """Let the stage that is held, or will be, go on."""
        self.process.send_signal(signal.SIGUSR1)

    def finish(self, timeout_s: float = 300.0) -> int:
        _, rest = self.process.communicate(timeout=timeout_s)
        self.said += rest.decode()
        return self.process.returncode


def start(command: Sequence[str], *, eager: bool = False, held: tuple[str, int] | None = None) -> Started:
    """`hilnas COMMAND...` in the background; `held`: the stage, and its step, at which it waits to be released."""
    program = [str(HILNAS)]
    if eager or held:
        program = [sys.executable, "-c", (HELD if held else "") + (EAGER if eager else "") + COMMAND]
        program += map(str, held or ())
    process = subprocess.Popen(
        [*program, *command],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    return Started(process)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """`hilnas COMMAND...` to its end."""
    return subprocess.run(
        [HILNAS, *command], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )


def environment() -> dict[str, str]:
    """Ours without what would redirect a run; one thread, so that a busy neighbour costs no time at barriers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HILNAS_")}
    return {**kept, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Finished:
    """A run that nothing interrupted."""

    config: Path
    folder: Path

    def copy(self, to: Path) -> Path:
        """The same run under another --runs-dir, `to`; its folder."""
        return Path(shutil.copytree(self.folder, to / self.folder.name))


def finished_run(factory: pytest.TempPathFactory) -> Finished:
    """One for the whole session, made when first asked for. Copy it before changing anything."""
    base = factory.getbasetemp() / "tiny-finished"
    done = Finished(base / "tiny.toml", base / "runs" / "tiny")
    if not base.exists():
        ended = run("loop", *arguments(write_experiment(base), base / "runs"))
        assert ended.returncode == 0, ended.stderr
    return done


def record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))


def stored(run_folder: Path) -> list[tuple[str, str]]:
    """(job id, record) of every row of the run's store, in order; a store that is not there has none."""
    store = run_folder / "measurements.sqlite"
    if not store.exists():
        return []
    connection = sqlite3.connect(store)
    try:
        known = connection.execute("SELECT name FROM sqlite_master WHERE name = 'measurements'").fetchall()
        if not known:
            return []
        return connection.execute("SELECT job_id, record FROM measurements ORDER BY number").fetchall()
    finally:
        connection.close()
