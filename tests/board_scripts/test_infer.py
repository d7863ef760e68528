"""The application in a bundle: its results are the golden ones, with whatever reads images, and without hilnas."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from board_scripts import pictures
from hil.scripts import script
from tests.hil.tiny_model import SHAPE, int8_add

OURS = ("hilnas", "deploy", "hil", "nas", "board_scripts", "torch")
PROGRAM = """
import runpy, sys
hidden, sys.argv = sys.argv[1].split(","), sys.argv[2:]
sys.modules.update(dict.fromkeys(hidden))  # whose import fails now
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SOURCE = Path(__file__).parents[1] / "hil" / "faulty_delegate.c"
LABELS = [f"class {label}" for label in range(SHAPE[-1])]


def infer(
    bundle: Path, *words: object, hidden: Sequence[str] = ("cv2",), python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """As where hilnas is not installed: nothing of it can be imported, nor what is `hidden`."""
    argv = [python, "-I", "-c", PROGRAM, ",".join((*OURS, *hidden)), str(bundle / "infer.py"), *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Of a model of 16 channels in place of 3: for what needs no image."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    int8_add(folder / "model.tflite")
    (folder / "infer.py").write_bytes(script("infer.py"))
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "preprocessing.json").write_text(
        json.dumps({"size": list(SHAPE[1:3]), "scale": 1 / 128, "zero_point": 0})
    )
    names = {"model": "model.tflite", "labels": "labels.txt", "preprocessing": "preprocessing.json"}
    (folder / "manifest.json").write_text(json.dumps(names))
    return folder


@pytest.mark.parametrize("name", ["infer.py", "verify_bundle.py"])
def test_scripts_that_are_one_file_share_no_name(name: str) -> None:
    """One function would silently take the other's place."""
    defined = Counter(
        node.name for node in ast.parse(script(name)).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    )
    assert [found for found, count in defined.items() if count > 1] == []
    assert "board_scripts" not in re.sub(r'""".*?"""', "", script(name).decode(), flags=re.S)


def test_a_wrong_call_and_what_is_missing(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "no-image.png").write_bytes(b"no image")
    (tmp_path / "short.ppm").write_bytes(b"P6 4 4 255\n123")
    assert infer(bundle).returncode == 2
    assert infer(bundle, "a.png", "--delegate-option", "novalue").returncode == 2
    for image, hidden, words in (
        ("none.png", (), "none.png"),
        ("no-image.png", ("cv2",), "cannot identify image file"),
        ("no-image.png", ("PIL", "cv2"), "neither Pillow nor OpenCV is installed here; give a binary PPM"),
        ("short.ppm", (), "ends before its last pixel"),
    ):
        done = infer(bundle, tmp_path / image, hidden=hidden)
        assert done.returncode == 1 and words in done.stderr.splitlines()[-1], done.stderr
    done = infer(bundle, "a.png", hidden=("ai_edge_litert", "tflite_runtime"))
    assert done.returncode == 3 and "no TFLite runtime" in done.stderr


@pytest.fixture(scope="module")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here: apt install gcc libc6-dev")
    built = tmp_path_factory.mktemp("delegate") / "libdelegate.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, SOURCE], check=True, timeout=60)
    return built


def test_a_delegate_that_does_not_load_or_takes_nothing(bundle: Path, tmp_path: Path, delegate: Path) -> None:
    """The CPU runs the model, aloud, unless the delegate is required."""
    (folder := tmp_path / "no images").mkdir()
    for words in (("/no/delegate.so",), (delegate, "--delegate-option", "fault=none")):
        reason = "it takes no operator" if words[0] == delegate else "/no/delegate.so: "
        done = infer(bundle, folder, "--delegate", *words)
        assert done.returncode == 0 and reason in done.stderr and "the CPU runs the model" in done.stderr
        done = infer(bundle, folder, "--delegate", *words, "--require-delegate")
        assert done.returncode == 3 and reason in done.stderr and "the CPU runs" not in done.stderr
    done = infer(bundle, folder, "--delegate", delegate, "--require-delegate")
    assert done.returncode == 0 and "infer.py" not in done.stderr


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_it_resizes_as_pillow_does(before_h: int, before_w: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (before_h, before_w, 3), np.uint8)
    wanted = pictures.fitted(np, image, (height, width)).astype(int)
    with pytest.MonkeyPatch.context() as without_pillow:
        without_pillow.setattr(pictures, "optional", lambda _: None)
        found = pictures.fitted(np, image, (height, width)).astype(int)
    assert np.abs(found - wanted).max() <= 1


@given(st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_the_pictures_are_pngs(height: int, width: int, painted: bool) -> None:
    rng = np.random.default_rng(height * 20 + width)
    colours = rng.integers(0, 256, (9, 3), np.uint8)
    pixels = rng.integers(0, 9, (height, width) if painted else (height, width, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(pictures.png(np, pixels, colours))) as image:
        assert image.mode == ("P" if painted else "RGB") and np.array_equal(np.asarray(image), pixels)
        wanted = colours[pixels] if painted else pixels
        assert np.array_equal(np.asarray(image.convert("RGB")), wanted)


def test_an_overlay_is_as_large_as_its_image() -> None:
    image, classes = np.full((4, 6, 3), 100, np.uint8), np.array([[0, 1]])
    shown = pictures.overlay(np, image, classes, np.array([[0, 0, 0], [200, 200, 200]], np.uint8))
    assert shown.shape == (4, 6, 3) and (shown[:, :3] == 50).all() and (shown[:, 3:] == 150).all()


@pytest.mark.parametrize("header", [b"P6 3 2 255\n", b"P6\n# by a camera\n3 2\n255\n"])
def test_a_ppm(tmp_path: Path, header: bytes) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    (tmp_path / "a.ppm").write_bytes(header + pixels.tobytes())
    assert np.array_equal(pictures.read_image(np, tmp_path / "a.ppm"), pixels)
