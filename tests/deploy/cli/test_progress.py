"""Long work: the pace, the words of a log, and the display of a real terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deploy.cli import console
from deploy.cli.live import Display
from deploy.cli.progress import RECENT_S, SAMPLES_EVERY_S, Log, Pace, Watch, counted, duration
from deploy.run.folder import Progress
from hil.measurement import Measurement, Readings
from tests.deploy.cli.test_results_command import BAD, GOOD

HOT = replace(GOOD, flags=("throttled",), after=Readings(54.4, 1_800_000))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def steps(clock: Clock, count: int, seconds: float, *measurements: Measurement) -> Iterator[Progress]:
    """Steps of the stage "tables", so many seconds apart, of 9 738."""
    for i in range(count):
        clock.now_s += seconds
        yield Progress("tables", 1000 + i, 9738, f"block {i}", measurements)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 0 min"), (7805, "2 h 10 min"),
     (86_399, "1 d 0 h"), (273_700, "3 d 4 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(every_s=st.floats(0.01, 500), at_once=st.integers(1, 50), held=st.integers(0, 10**6))
def test_the_pace_of_steady_work_is_exact(every_s: float, at_once: int, held: int) -> None:
    """However fine or coarse its steps, and whatever was there before."""
    pace = Pace()
    for i in range(400):
        pace.count(held + i * at_once, i * every_s)
    assert pace.per_second == pytest.approx(at_once / every_s)
    assert len(pace._samples) <= 2 * RECENT_S / SAMPLES_EVERY_S + 2


def test_the_pace_forgets_what_was_only_read_again() -> None:
    pace = Pace()
    for i in range(3000):
        pace.count(i, i / 1000)  # from the store
    for i in range(120):
        pace.count(3000 + i, 3 + i)
    assert pace.per_second == pytest.approx(1, rel=0.02)
    pace.count(1, 130)
    assert pace.per_second is None  # a smaller count is another one
    pace.count(2, 130)
    assert pace.per_second is None  # no time has gone by


def test_a_log_has_a_line_a_minute(clock: Clock) -> None:
    lines: list[str] = []
    log = Log(Watch(clock=clock), lines.append)
    log(Progress("tables", 0, 1, "starts"))
    for step in steps(clock, 201, 0.75):
        log(step)
    assert lines == [
        "tables: starts",
        "tables: 1 079 of 9 738, 1 h 48 min left; block 79",
        "tables: 1 159 of 9 738, 1 h 47 min left; block 159",
    ]
    log(Progress("tables", 1, 1, "done"))
    assert lines[-1] == "tables: done" and len(lines) == 4


def test_a_log_says_what_the_boards_do(clock: Clock) -> None:
    watch = Watch(clock=clock)
    failed = replace(BAD, conditions=replace(BAD.conditions, unit="bench-3"))
    for step in steps(clock, 10, 2, HOT):
        watch.take(step)
    assert watch.line("tables") == (
        "tables: 1 009 of 9 738, 4 h 51 min left; block 9; bench-2: 54 °C, 1.80 GHz, 30 models/min, throttled"
    )
    for again in (failed, failed, replace(failed, model="worse.tflite")):
        watch.take(Progress("tables", 1010, 9738, "", (again,)))
    assert watch.line("tables").endswith("; bench-3: 2 failed (worse.tflite)")
    watch.take(Progress("tables", 1, 1, "done"))
    assert watch.boards == {}


def test_the_time_left_is_of_what_is_counted_now(clock: Clock) -> None:
    """Another total is another part of the stage, and begins anew."""
    watch = Watch(clock=clock)
    list(map(watch.take, steps(clock, 10, 2)))
    watch.take(Progress("tables", 1100, 5000, "latency:"))
    assert watch.line("tables") == "tables: 1 100 of 5 000; latency:"
    clock.now_s += 2
    watch.take(Progress("tables", 1101, 5000, "latency:"))
    assert watch.line("tables") == "tables: 1 101 of 5 000, 2 h 10 min left; latency:"
    clock.now_s += 60
    assert watch.line("tables") == "tables: 1 101 of 5 000, 2 h 9 min left; latency:"
    assert counted(Progress("profile", 30, 1200, unit="s")) == "30 of 1 200 s"


def drawn(display: Display) -> list[str]:
    to = Console(file=io.StringIO(), force_terminal=True, width=110, color_system=None)
    to.print(display)
    assert isinstance(to.file, io.StringIO)
    return [" ".join(line.replace("━", "").split()) for line in to.file.getvalue().splitlines()]


def test_the_display_has_every_stage_and_board(clock: Clock) -> None:
    display = Display(Watch(("teacher", "tables", "profile"), clock))
    display.take(Progress("teacher", 0, 1, "starts"))
    clock.now_s += 8
    starting, *_ = drawn(display)
    assert starting == "teacher 8 s"
    display.take(Progress("data", 0, 20, "starts"))  # within the stage that is at work
    display.take(Progress("data", 1, 20, "done"))
    display.take(Progress("teacher", 1, 10, "loss 0.512"))
    clock.now_s += 3
    display.take(Progress("teacher", 1, 1, "done"))
    for step in steps(clock, 10, 2, HOT, replace(BAD, conditions=replace(GOOD.conditions, unit="[b]"))):
        display.take(step)
    data, teacher, tables, profile, first, second, queue = drawn(display)
    assert (data, teacher, profile) == ("data done", "teacher done 11 s", "profile")
    assert tables == "tables 1 009 of 9 738 4 h 51 min left 30/min, block 9"
    assert first == "board bench-2: 54 °C, 1.80 GHz, 30 models/min, throttled"
    assert second == "board [b]: 30 models/min, 1 failed (bad.tflite)" and queue == "queue 8 729"


WORK = """
import logging, time
from deploy.cli import console
from deploy.run.folder import Progress

def work():
    yield Progress("tables", 0, 1, "starts")
    for i in range(3):
        logging.getLogger("board").warning("lost bench-%s: gone", i)
        yield Progress("tables", i + 1, 3, f"loss {i}")
        time.sleep(0.3)
    print("said")
    yield Progress("tables", 1, 1, "done")

console.show_warnings()
console.follow(work(), ["tables", "profile"])
"""


def run_on(terminal: str | None) -> tuple[str, str]:
    """(stdout, stderr) of `WORK`, stderr being a real terminal of that kind, or a file."""
    if terminal is None:
        ended = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
        return ended.stdout, ended.stderr
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": terminal, "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=theirs, env=environment) as ran:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a pty ends
            os.close(ours)
        assert ran.stdout is not None
        out = ran.stdout.read()
    assert ran.returncode == 0
    return out.decode(), shown.decode()


def test_on_a_terminal() -> None:
    """Warnings stay whole above the display, and stdout goes where it was sent."""
    out, shown = run_on("xterm-256color")
    assert out == "said\n" and "said" not in shown
    for i in range(3):
        assert f"\x1b[2Kwarning: lost bench-{i}: gone\r\n" in shown  # where the display was cleared
    assert "3 of 3" in shown and "profile" in shown and "loss 2" in shown and shown.count("\x1b[2K") > 3


@pytest.mark.parametrize("terminal", [None, "dumb"])
def test_in_a_log(terminal: str | None) -> None:
    out, shown = run_on(terminal)
    lost = [f"warning: lost bench-{i}: gone" for i in range(3)]
    assert out == "said\n" and shown.splitlines() == ["tables: starts", *lost, "tables: done"]


def test_progress_in_a_test_is_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    console.follow(
        [Progress("tables", 0, 1, "starts"), Progress("tables", 1, 2, "x"), Progress("tables", 1, 1, "done")]
    )
    assert capsys.readouterr().err == "tables: starts\ntables: done\n"
