"""The plugin in a pytest of its own, on the real loopback board; then pytest-benchmark's own comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chain_model import conv_chain
from tests.hil import tiny_model
from tests.hil.loopback_boards import add_job

TEST = """
import pytest
from hil.measure import MeasureProtocol

QUICK = MeasureProtocol(warmup_runs=1, warmup_runs_most=4, runs={runs}, rounds=2)

@pytest.mark.parametrize("name", ["short", "long"])
def test_chain(board_benchmark, benchmark, name):
    done = board_benchmark(name + ".tflite", protocol=QUICK)
    assert [m.round for m in done] == [0, 1]
    benchmark.extra_info["on_the_board_us"] = [us for m in done for us in m.latencies_us]

def test_checked(board_benchmark):
    (one, _) = board_benchmark("add1.tflite", "x1", "y1-0", board="other", protocol=QUICK)
    assert one.parity.mismatched == 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "boards.toml").write_text(
        '[bench]\nkind = "loopback"\nserver = "asyncssh"\n[other]\nkind = "loopback"\n'
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_inner.py").write_text(TEST.format(runs=7))
    conv_chain(tmp_path / "short.tflite", 100)
    conv_chain(tmp_path / "long.tflite", 1000)
    add_job(tmp_path, 1)
    return tmp_path


def inner(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "--hilnas-board", "bench", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def benchmarks(path: Path) -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(path.read_text())["benchmarks"]}


def test_the_boards_runs_are_saved_and_compared(folder: Path) -> None:
    for name in ("one", "two"):
        done = inner(folder, f"--benchmark-json={name}.json", "-W", "error")
        assert done.returncode == 0, done.stdout + done.stderr
    found = benchmarks(folder / "one.json")
    short, long, checked = (found[f"test_{name}"] for name in ("chain[short]", "chain[long]", "checked"))
    assert short["stats"]["rounds"] == len(short["stats"]["data"]) == 2 * 7
    assert long["stats"]["min"] > 3 * short["stats"]["min"]  # ten times the work
    for chain in (short, long):  # runs on the board, not the calls here
        assert chain["stats"]["data"] == pytest.approx([us / 1e6 for us in chain["extra_info"]["on_the_board_us"]])
    assert short["extra_info"]["flags"].count("unchecked") == 1 and "unchecked" not in checked["extra_info"]["flags"]
    assert checked["extra_info"]["conditions"]["unit"] == "other" and short["extra_info"]["board"] == "bench"
    argv = [
        sys.executable,
        "-m",
        "pytest_benchmark",
        "compare",
        "one.json",
        "two.json",
        "--csv=out.csv",
        "--histogram=out",
    ]
    compared = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert compared.stdout.count("test_chain[long]") == 2
    assert len((folder / "out.csv").read_text().splitlines()) == 1 + 2 * 3
    assert "test_chain[long]" in (folder / "out.svg").read_text()


def test_other_conditions_are_reported_where_saved_runs_are_compared(folder: Path) -> None:
    (folder / "boards.toml").write_text('[bench]\nkind = "loopback"\nkernels = "builtin"\n')
    assert inner(folder, "--benchmark-save=before", "-k", "short").returncode == 0
    same = inner(folder, "--benchmark-compare", "-k", "short")
    assert same.returncode == 0 and "(0001_before)" in same.stdout and "other conditions" not in same.stdout
    (folder / "boards.toml").write_text('[bench]\nkind = "loopback"\nkernels = "xnnpack"\n')
    other = inner(folder, "--benchmark-compare", "-k", "short")
    assert other.returncode == 0 and "test_chain[short] was measured there under other conditions" in other.stdout


def test_a_wrong_answer_and_a_second_call_fail(folder: Path) -> None:
    add_job(folder, 2, wrong=3)
    (folder / "test_inner.py").write_text(
        "def test_wrong(board_benchmark):\n    board_benchmark('add2.tflite', 'x2', 'y2-3')\n"
        "def test_twice(board_benchmark):\n    [board_benchmark('add1.tflite') for _ in range(2)]\n"
        "def test_no_file(board_benchmark):\n    board_benchmark('nowhere.tflite')\n"
    )
    done = inner(folder, "--benchmark-json=one.json")
    assert done.returncode == 1 and "3 failed" in done.stdout
    assert "ModelError: add2.tflite failed on bench: outputs differ" in done.stdout
    assert "UsageError: test_twice: a second board_benchmark" in done.stdout
    assert "UsageError: nowhere.tflite" in done.stdout
    assert "test_wrong" not in benchmarks(folder / "one.json")


def test_the_sizes_of_inputs_that_a_file_leaves_open(folder: Path) -> None:
    tiny_model.int8_open(folder / "open.tflite")
    (folder / "test_inner.py").write_text(
        "import pytest\nfrom hil.errors import ModelError\n"
        "def test_sized(board_benchmark):\n"
        "    done = board_benchmark('open.tflite', input_shapes={'x': (1, 8, 8, 16)})\n"
        "    assert done[0].conditions.input_shapes == 'x=1x8x8x16'\n"
        "def test_open(board_benchmark):\n"
        "    with pytest.raises(ModelError, match='leaves sizes of input x open'):\n"
        "        board_benchmark('open.tflite')\n"
    )
    done = inner(folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_board_that_is_not_in_the_file(folder: Path) -> None:
    done = inner(folder, "--hilnas-board", "bensch")
    assert done.returncode == 1 and "did you mean 'bench'?" in done.stdout


def test_skipped_and_disabled_as_any_benchmark(folder: Path) -> None:
    assert "3 skipped" in inner(folder, "--benchmark-skip").stdout
    done = inner(folder, "--benchmark-disable")
    assert done.returncode == 0 and "3 passed" in done.stdout
