from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import cli
from hil.benchmark_model import ProfiledLayer
from tests.hil import tiny_model
from tests.hil.benchmark_texts import Program, render, report


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    program = Program(tmp_path)
    program.says(
        render(
            report(8000.0, 7990.0, layers=(ProfiledLayer("x:0", "CONV_2D", 500.0), ProfiledLayer("y:1", "ADD", 1500.0)))
        )
    )
    path = tmp_path / "boards.toml"
    path.write_text(
        '[cpu]\nkind = "loopback"\nkernels = "builtin"\n'
        f'[program]\nkind = "loopback"\ndriver = "benchmark_model"\nbenchmark_model = "{program.path}"\n'
    )
    return path


def profile(boards: Path, tmp_path: Path, board: str, *options: str) -> int:
    model = tiny_model.int8_add(tmp_path / "add.tflite")
    store = tmp_path / "store.db"
    code = cli.main(["profile", str(model), "--board", board, "--boards", str(boards), "--store", str(store), *options])
    assert not store.exists()
    return code


def test_memory_is_printed(boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(boards, tmp_path, "cpu", "--memory", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["model"] == "add.tflite" and found["peak_bytes"] >= found["loaded_bytes"] >= found["before_bytes"] > 0
    assert profile(boards, tmp_path, "cpu", "--memory") == 0
    assert "peak MB" in (said := capsys.readouterr().out) and "add.tflite" in said


def test_layers_are_printed(boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile(boards, tmp_path, "program", "--layers") == 0
    said = capsys.readouterr().out
    assert "75.0" in said and "2 layers, 2000 us" in said
    assert profile(boards, tmp_path, "cpu", "--layers") == 0
    assert "add.tflite: this board reports no time per layer" in capsys.readouterr().out
