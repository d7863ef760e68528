from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from board_scripts.class_map import class_map
from hil.scripts import script
from tests.hil import tiny_model

ALONE = script("verify_bundle.py").decode()


@pytest.fixture
def bundle(golden, tmp_path: Path) -> Callable[..., Path]:
    def make(wrong: int = 0, by: int = 1, max_mismatch: float = 0.0, max_abs_diff: int | None = 0) -> Path:
        folder = tmp_path / "bundle"
        (folder / "golden").mkdir(parents=True)
        names = ("model.tflite", "golden/input.bin", "golden/output.bin")
        for source, name in zip(golden(wrong, by), names, strict=True):
            source.rename(folder / name)
        manifest = {
            "format": "hilnas-bundle/1", "name": "tiny", "model": names[0], "files": {},
            "golden": [
                {
                    "input": names[1], "output": names[2],
                    "max_mismatch": max_mismatch, "max_abs_diff": max_abs_diff,
                }
            ],
        }  # fmt: skip
        for name in names:
            data = (folder / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


def verify(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """As a board runs it: one text, with nothing of ours beside it."""
    argv = [sys.executable, "-I", "-", *map(str, arguments)]
    done = subprocess.run(argv, input=ALONE, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_runs_alone_imports_nothing_of_ours() -> None:
    assert "board_scripts.class_map" not in ALONE and "def class_map(" in ALONE
    compile(ALONE, "verify_bundle.py", "exec", dont_inherit=True)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_class_map_that_the_cpu_makes(bundle, wrong: int) -> None:
    folder, sizes = bundle(), [[16, 16], [64, 96]]
    logits = np.frombuffer((folder / "golden/output.bin").read_bytes(), np.int8).reshape(tiny_model.SHAPE)
    classes = class_map(np, logits, sizes).copy()
    classes.reshape(-1)[:wrong] += 1
    content = classes.tobytes()
    (folder / "golden/output.bin").write_bytes(content)
    listed = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(folder, lambda m: (m["files"].update({"golden/output.bin": listed}), m.update(class_map={"sizes": sizes})))
    code, said = verify(folder, "--runs", 5)
    golden = next(line for line in said if line.get("check") == "golden")
    assert code == wrong and golden["detail"].startswith(f"golden/output.bin: {wrong} of {64 * 96} elements differ")
    edit(folder, lambda m: m.update(class_map={"sizes": [[0, 1]]}))
    assert '"class_map" has no sizes' in verify(folder)[1][0]["detail"]


def test_a_good_bundle_verifies(bundle) -> None:
    code, said = verify(bundle(), "--runs", 5)
    assert code == 0
    assert all(line["ok"] for line in said[:-1])
    assert [line["check"] for line in said[:-1]] == [
        "manifest",
        "paths",
        *["file"] * 3,
        "unlisted",
        "model",
        "golden",
    ]
    assert said[-1]["verified"] is True and said[-1]["name"] == "tiny"
    assert said[-1]["latency_us"]["n"] == 5
    assert 0 < said[-1]["latency_us"]["median"] <= said[-1]["latency_us"]["p90"]


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        ({"wrong": 1}, False),
        ({"wrong": 10, "max_mismatch": 0.01, "max_abs_diff": 1}, True),
        ({"wrong": 11, "max_mismatch": 0.01, "max_abs_diff": 1}, False),
        ({"wrong": 10, "by": 2, "max_mismatch": 0.01, "max_abs_diff": 1}, False),
        ({"wrong": 10, "by": 9, "max_mismatch": 0.01, "max_abs_diff": None}, True),
    ],
)
def test_golden_tolerances(bundle, settings: dict[str, Any], holds: bool) -> None:
    code, said = verify(bundle(**settings), "--runs", 1)
    assert (code, said[-1]["verified"]) == ((0, True) if holds else (1, False))
    assert [line["ok"] for line in said if line.get("check") == "golden"] == [holds]


def test_every_golden_pair_is_checked(bundle) -> None:
    """Of a bundle of today; one of the former format, with its one pair, is every other test's."""
    folder = bundle()
    for wrong in (0, 1):
        content = bytearray((folder / "golden/output.bin").read_bytes())
        content[0] ^= wrong
        (folder / "golden/more.bin").write_bytes(content)
        listed = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        pair = {"input": "golden/input.bin", "output": "golden/more.bin", "max_mismatch": 0.0, "max_abs_diff": 0}

        def change(manifest: dict[str, Any], listed=listed, pair=pair) -> None:
            manifest["format"] = "hilnas-bundle/2"
            manifest["files"]["golden/more.bin"] = listed
            manifest["golden"] = [manifest["golden"][0], pair]

        edit(folder, change)
        code, said = verify(folder, "--runs", 1)
        assert code == wrong
        assert [line["ok"] for line in said if line.get("check") == "golden"] == [True, not wrong]


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.tflite").read_bytes())
    data[-1] ^= 1
    (folder / "model.tflite").write_bytes(data)


def link_out(folder: Path) -> None:
    target = folder / "golden" / "input.bin"
    target.rename(folder.parent / "outside.bin")
    target.symlink_to(folder.parent / "outside.bin")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "file"),
    "missing file": (lambda folder: (folder / "golden/output.bin").unlink(), "file"),
    "unlisted file": (lambda folder: (folder / "extra").write_text(""), "unlisted"),
    "link out": (link_out, "paths"),
    "absolute path": (lambda folder: edit(folder, lambda m: m.update(model="/etc/passwd")), "paths"),
    "parent path": (lambda folder: edit(folder, lambda m: m.update(model="../model.tflite")), "paths"),
    "unlisted model": (lambda folder: edit(folder, lambda m: m["files"].pop("model.tflite")), "paths"),
    "other format": (lambda folder: edit(folder, lambda m: m.update(format="hilnas-bundle/3")), "manifest"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest"),
    "list": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest"),
    "deep JSON": (lambda folder: (folder / "manifest.json").write_text("[" * 200_000), "manifest"),
    "half a character": (lambda folder: edit(folder, lambda m: m.update(model="\ud800")), "paths"),
    "no byte in a name": (lambda folder: edit(folder, lambda m: m.update(model="a\0b")), "paths"),
    "a distance of words": (lambda folder: edit(folder, lambda m: m["golden"][0].update(max_abs_diff="x")), "paths"),
    "a folder for a file": (
        lambda folder: edit(folder, lambda m: m["files"].update(golden={"sha256": "", "bytes": 0})),
        "file",
    ),
    "odd golden": (lambda folder: edit(folder, lambda m: m.update(golden=[1])), "paths"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_bundle_is_caught_by_the_right_check(bundle, name: str) -> None:
    folder = bundle()
    damage, check = BROKEN[name]
    damage(folder)
    code, said = verify(folder)
    assert code == 1 and said[-1]["verified"] is False
    assert {line["check"] for line in said[:-1] if not line["ok"]} == {check}


def test_a_wrong_call_exits_2(tmp_path: Path, bundle) -> None:
    folder = bundle()
    assert verify(tmp_path / "none")[0] == 2
    assert verify(folder, "--runs", 0)[0] == 2
    assert verify(folder, "--delegate-option", "novalue")[0] == 2
    code, said = verify(folder, "--delegate", "/no/such.so")
    assert code == 1 and "such.so" in said[-2]["detail"]


def test_a_model_of_open_size_proves_nothing(bundle, tmp_path: Path) -> None:
    folder = bundle()
    model = tiny_model.int8_open(folder / "model.tflite").read_bytes()
    listed = {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}
    edit(folder, lambda manifest: manifest["files"].update({"model.tflite": listed}))
    code, said = verify(folder)
    assert code == 1 and said[-2]["check"] == "model" and not said[-1]["verified"]
    assert "leaves sizes of its input x open: [1, -1, -1, 16]" in said[-2]["detail"]
