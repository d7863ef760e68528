"""The board's half of a reservation, run as the program that it is."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from board_scripts import reserve
from tests.board_scripts.script_programs import SCRIPTS, Runner


def start(workdir: Path, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(SCRIPTS / "reserve.py"), *arguments, "--workdir", str(workdir)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def ask(workdir: Path, *arguments: str) -> dict[str, Any]:
    with start(workdir, *arguments) as process:
        said = process.communicate(timeout=20)[0]
    assert process.returncode == 0 and said.count("\n") == 1
    return dict(json.loads(said))


def take(workdir: Path, owner: str, seconds: float = 60) -> dict[str, Any]:
    return ask(workdir, "take", "--owner", owner, "--seconds", str(seconds))


def test_taken_shown_prolonged_and_released(tmp_path: Path) -> None:
    assert ask(tmp_path, "show") == {"done": True, "reservation": None, "runner": None}
    held = ask(tmp_path, "take", "--owner", "ann@x", "--seconds", "60", "--note", "a night's run")
    assert held["done"] and held["reservation"]["note"] == "a night's run"
    assert 55 <= held["reservation"]["left_s"] <= 60
    assert not take(tmp_path, "bob@y")["done"]
    assert take(tmp_path, "ann@x", 600)["reservation"]["left_s"] > 500
    assert not ask(tmp_path, "release", "--owner", "bob@y")["done"]
    assert ask(tmp_path, "show")["reservation"]["owner"] == "ann@x"
    assert ask(tmp_path, "release", "--owner", "bob@y", "--force") == {
        "done": True,
        "reservation": None,
        "runner": None,
    }
    assert take(tmp_path, "bob@y")["done"]


def test_of_many_at_once_exactly_one_wins(tmp_path: Path) -> None:
    for attempt in range(5):
        workdir = tmp_path / str(attempt)
        clients = [start(workdir, "take", "--owner", f"client{n}", "--seconds", "60") for n in range(8)]
        answers = [json.loads(client.communicate(timeout=30)[0]) for client in clients]
        winners = [n for n, answer in enumerate(answers) if answer["done"]]
        assert len(winners) == 1
        assert {answer["reservation"]["owner"] for answer in answers} == {f"client{winners[0]}"}


def test_nobody_slips_in_between_the_look_and_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_look(_: str) -> None:
        time.sleep(0.02)

    monkeypatch.setattr(reserve, "at_work", slow_look)
    context = multiprocessing.get_context("fork")  # so that the others look slowly too
    start = context.Barrier(8)

    def contend(number: int) -> None:
        start.wait(20)
        sys.exit(0 if reserve.take(str(tmp_path), f"client{number}", 60, "") else 1)

    clients = [context.Process(target=contend, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(20)
    assert sorted(str(client.exitcode) for client in clients) == ["0"] + ["1"] * 7


def test_it_expires_by_itself(tmp_path: Path) -> None:
    assert take(tmp_path, "dead@client")["done"]
    assert not take(tmp_path, "bob@y")["done"]
    assert take(tmp_path, "dead@client", 0.5)["done"]  # from now on anew
    time.sleep(0.5)
    assert ask(tmp_path, "show")["reservation"] is None
    assert take(tmp_path, "bob@y")["done"]


@pytest.mark.parametrize(
    ("boot_id", "shift_s", "stands"),
    [
        ("same", -86400 * 365, True),  # the clock was set meanwhile: the time since boot decides
        ("another", 0, True),
        ("another", 3600, False),  # rebooted, and its time is over
        ("another", -86400 * 365, False),  # rebooted without a battery: nobody waits for the year to come
    ],
)
def test_clock_steps_and_reboots_leak_no_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot_id: str, shift_s: int, stands: bool
) -> None:
    assert reserve.take(str(tmp_path), "ann@x", 600, "")
    if boot_id == "another":
        (tmp_path / "boot_id").write_text("another\n")
        monkeypatch.setattr(reserve, "BOOT_ID", str(tmp_path / "boot_id"))
    real = time.time
    monkeypatch.setattr(reserve.time, "time", lambda: real() + shift_s)
    assert (reserve.standing(str(tmp_path)) is not None) == stands


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"boot_id": 1, "until_s": "x"}', "null"])
def test_a_file_that_is_no_reservation_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / reserve.FILE).write_text(content)
    assert ask(tmp_path, "show")["reservation"] is None
    assert take(tmp_path, "ann@x")["done"]


def test_a_runner_and_a_reservation_respect_each_other(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    runner = Runner(tmp_path / "runner.pyz", "--workdir", str(workdir), "--owner", "ann@x")
    assert runner.hello["ready"]
    refused = take(workdir, "bob@y")
    assert not refused["done"] and refused["runner"]["owner"] == "ann@x"
    assert refused["runner"]["pid"] == runner.process.pid
    assert take(workdir, "ann@x")["done"]
    runner.close()
    assert ask(workdir, "show")["runner"] is None  # the kernel gave its lock back
    other = Runner(tmp_path / "runner.pyz", "--workdir", str(workdir), "--owner", "bob@y")
    assert other.hello["busy"] and "reserved by ann@x until" in other.hello["reason"]
    assert other.close() == 1
    again = Runner(tmp_path / "runner.pyz", "--workdir", str(workdir), "--owner", "ann@x")
    assert again.hello["ready"]
    again.process.kill()
    again.close()
    assert ask(workdir, "show")["runner"] is None


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    take(tmp_path, "ann@x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reservation.json", "reservation.lock"]
