from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.board_scripts.script_programs import ROOT, Runner
from tests.hil import tiny_model

LONG = {"runs": 200_000_000, "kernels": "builtin"}


def child_of(runner: Runner) -> psutil.Process:
    """The child, once it is busy with its steady runs."""
    me, deadline = psutil.Process(runner.process.pid), time.monotonic() + 15
    while time.monotonic() < deadline:
        for child in me.children():
            if child.cpu_times().user + child.cpu_times().system > 0.1:
                return child
        time.sleep(0.01)
    raise AssertionError("no child at work")


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_a_model_runs_with_parity(runner: Runner, golden, kernels: str) -> None:
    model, given, wanted = golden()
    answer = runner.ask(model, input=str(given), expected=str(wanted), kernels=kernels)
    assert answer["ok"] and answer["id"] == "job"
    assert answer["parity"] == {"elements": 1024, "mismatched": 0, "max_abs_diff": 0.0}
    assert answer["operators"] == ["ADD"]
    assert answer["delegated_nodes"] == (1 if kernels == "xnnpack" else 0)
    assert len(answer["latencies_us"]) == 3
    assert all(isinstance(answer[name], int) for name in ("load_us", "first_us", "warmup_us", "calls", "clock_ns"))
    assert all(isinstance(value, float) and value > 0 for value in answer["latencies_us"])
    assert runner.hello["ready"]
    assert runner.close() == 0


def test_differences_are_counted(runner: Runner, golden) -> None:
    model, given, wanted = golden(wrong=7, by=-4)
    parity = runner.ask(model, input=str(given), expected=str(wanted))["parity"]
    assert parity == {"elements": 1024, "mismatched": 7, "max_abs_diff": 4.0}


def test_without_an_input_file_random_ones_are_made(runner: Runner, tmp_path: Path) -> None:
    assert runner.ask(tiny_model.int8_add(tmp_path / "a.tflite"))["ok"]
    assert runner.ask(tiny_model.float_log(tmp_path / "f.tflite"))["ok"]


def test_a_refused_job_says_whose_fault_it_is(runner: Runner, golden, tmp_path: Path) -> None:
    model, given, _ = golden()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(model.read_bytes()[:300])
    short = tmp_path / "short"
    short.write_bytes(b"123")
    cases = [
        ((cut, {}), "model", "Flatbuffer"),
        ((tmp_path / "gone.tflite", {}), "board", "gone.tflite"),
        ((model, {"input": str(short)}), "model", "3 bytes"),
        ((model, {"input": str(given), "expected": str(short)}), "model", "3 bytes"),
        ((model, {"delegate": "/no/such.so"}), "board", "cannot load delegate"),
    ]
    for (path, job), kind, said in cases:
        answer = runner.ask(path, **job)
        assert not answer["ok"] and answer["failure"]["kind"] == kind
        assert said in answer["failure"]["reason"]
    assert runner.ask(model)["ok"]


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"id": "1"}', "\x00\xff", "9" * 100_000])
def test_a_malformed_line_gets_an_answer(runner: Runner, tmp_path: Path, line: str) -> None:
    runner.send(line)
    answer = runner.receive()
    assert (answer["id"], answer["ok"], answer["failure"]["kind"]) == (None, False, "harness")
    assert runner.ask(tiny_model.int8_add(tmp_path / "a.tflite"))["ok"]


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGKILL"])
def test_a_crash_costs_its_own_job(runner: Runner, tmp_path: Path, name: str) -> None:
    model = tiny_model.int8_add(tmp_path / "a.tflite")
    runner.start(model, **LONG)
    child_of(runner).send_signal(getattr(signal, name))
    failure = runner.receive()["failure"]
    assert (failure["kind"], failure["stage"]) == ("model", "run")
    assert name in failure["reason"]
    assert runner.ask(model)["ok"]


def test_a_hang_meets_its_deadline(runner: Runner, tmp_path: Path) -> None:
    model = tiny_model.int8_add(tmp_path / "a.tflite")
    runner.start(model, **LONG, run_deadline_s=5)
    child = child_of(runner)
    child.suspend()
    failure = runner.receive()["failure"]
    assert (failure["kind"], failure["stage"]) == ("model", "run") and "within 5 s" in failure["reason"]
    assert not child.is_running()


def test_a_model_that_never_loads_meets_the_compile_deadline(runner: Runner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tflite")  # opening it blocks for ever
    failure = runner.ask(tmp_path / "pipe.tflite", compile_deadline_s=0.5)["failure"]
    assert (failure["stage"], "0.5 s" in failure["reason"]) == ("load", True)


def test_the_end_of_stdin_takes_the_child_along(runner: Runner, tmp_path: Path) -> None:
    runner.start(tiny_model.int8_add(tmp_path / "a.tflite"), **LONG)
    child = child_of(runner)
    begin = time.monotonic()
    assert runner.close() == 0
    assert time.monotonic() - begin < 5
    assert not child.is_running()


def test_a_killed_runner_leaves_no_child(runner: Runner, tmp_path: Path) -> None:
    runner.start(tiny_model.int8_add(tmp_path / "a.tflite"), **LONG)
    child = child_of(runner)
    runner.process.kill()
    runner.close()
    assert not psutil.wait_procs([child], timeout=5)[1]


def test_a_child_ends_where_its_runner_was_killed_before_it_could_ask_for_that() -> None:
    program = "import sys; from board_scripts.benchmark import die_with_parent; die_with_parent(int(sys.argv[1]))"
    for parent, code in ((os.getpid(), 0), (0, -signal.SIGKILL)):
        argv = [sys.executable, "-c", program, str(parent)]
        assert subprocess.run(argv, cwd=ROOT, check=False).returncode == code


def test_jobs_sent_ahead_are_answered_in_order(runner: Runner, tmp_path: Path) -> None:
    model = tiny_model.int8_add(tmp_path / "a.tflite")
    sender = threading.Thread(target=lambda: [runner.start(model, id=str(number)) for number in range(20)])
    sender.start()
    assert [runner.receive()["id"] for _ in range(20)] == [str(number) for number in range(20)]
    sender.join()
