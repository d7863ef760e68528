"""Every command that takes a model file says what a wrong one is, before anything else is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from tests.deploy.cli.failing import BOARDS, MODEL, USAGE, Fails, profile
from tests.deploy.formats.foreign_files import FILES, LFS, put
from tests.hil import tiny_model

GIVEN = ["lfs", "page", "nothing", "torch", "zip", "array", "packed"]


def regress(tmp_path: Path, path: Path) -> list[Any]:
    suite = tmp_path / "suite"
    suite.mkdir()
    path.rename(suite / "m.tflite")
    for end in ("input", "expected"):
        (suite / f"m.{end}.bin").write_bytes(b"x")
    return ["regress", "--suite", suite, "--boards", BOARDS, "--board", "loopback", "--baselines", tmp_path / "base"]


COMMANDS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "inspect": lambda _, path: ["inspect", path],
    "lint": lambda _, path: ["lint", path, "--target", "cpu-xnnpack"],
    "pack": lambda folder, path: ["pack", path, "--out", folder / "out"],
    "profile": profile,
    "profile --memory": lambda folder, path: [*profile(folder, path), "--memory"],
    "regress": regress,
    "regress --update": lambda folder, path: [*regress(folder, path), "--update"],
    "study few-bits": lambda _, path: ["study", "few-bits", path],
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_file_is_called_what_it_is(fails: Fails, tmp_path: Path, command: str, name: str) -> None:
    make, what, advice = FILES[name]
    fails(MODEL, COMMANDS[command](tmp_path, put(tmp_path, make())), "m.tflite", what, "not a TFLite file", advice)
    assert not (tmp_path / "store.sqlite").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["inspect", "profile", "pack"])
def test_a_saved_models_directory(fails: Fails, tmp_path: Path, command: str) -> None:
    put(tmp_path, b"", "saved_model.pb")
    fails(USAGE, COMMANDS[command](tmp_path, tmp_path), "the directory of a SavedModel", "hilnas quantize")


@pytest.mark.parametrize("end", ["input", "expected"])
def test_a_golden_pair_that_is_a_pointer(fails: Fails, tmp_path: Path, end: str) -> None:
    model = tiny_model.int8_add(tmp_path / "m.tflite")
    for other in ("input", "expected"):
        put(tmp_path, bytes(1024), f"m.{other}.bin")
    put(tmp_path, LFS.encode(), f"m.{end}.bin")
    words = (f"m.{end}.bin: a Git LFS pointer to 3577760 bytes, not the bytes of a golden pair", "`git lfs pull`")
    fails(USAGE, profile(tmp_path, model), *words)
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    command = ["regress", "--suite", tmp_path / "copy", "--boards", BOARDS, "--board", "loopback"]
    fails(USAGE, [*command, "--baselines", tmp_path / "base", "--update"], *words)


def test_a_baseline_that_is_a_pointer(fails: Fails, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    tiny_model.int8_add(suite / "m.tflite")
    for end in ("input", "expected"):
        put(suite, bytes(1024) if end == "input" else bytes([3]) * 1024, f"m.{end}.bin")
    command = ["regress", "--suite", suite, "--boards", BOARDS, "--board", "loopback", "--baselines", tmp_path / "base"]
    command += ["--rounds", 4, "--runs", 4, "--store", tmp_path / "s.sqlite"]
    assert main([str(word) for word in [*command, "--update"]]) == 0
    (kept,) = (tmp_path / "base").rglob("m.tflite")
    kept.write_text(LFS)
    fails(MODEL, command, str(kept), "a Git LFS pointer", "`git lfs pull`")


def test_unpack_of_what_is_not_packed(fails: Fails, tmp_path: Path) -> None:
    path = put(tmp_path, LFS.encode(), "m.packed")
    fails(MODEL, ["unpack", path, "--out", tmp_path / "m.tflite"], "m.packed")
