"""The bundle's example in C: compiled against the C API's prototypes, and run with a stand-in for its library.

No wheel's library exports that API, so TensorFlow Lite itself is not in it: what is before and after the model is.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from board_scripts.class_map import class_map
from board_scripts.infer import channels, stored_levels
from deploy.run.records import plain
from deploy.ship.examples import SOURCES, c_string, camera_pipeline, write_examples
from deploy.ship.manifest import Preprocessing
from hil.scripts import script_path

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: apt install gcc libc6-dev")

STAND_IN = Path(__file__).with_name("tflite_stand_in")
STRICT = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
INT8, INT32, UINT8 = 9, 2, 3
CLASSES = ("road", 'a "quoted" ??/ label', "Straße", "100%", "back\\slash", "sky")
SIZE = (8, 12)
STEPS = Preprocessing("int8, NHWC, batch 1, RGB", "int8 = uint8 - 128", 1 / 128, 0, "bilinear", SIZE)


def compiled(bundle: Path) -> Path:
    program = bundle / "infer"
    sources = [str(bundle / "c" / name) for name in SOURCES if name.endswith(".c")]
    subprocess.run(
        ["cc", *STRICT, f"-I{STAND_IN}", "-o", str(program), *sources, str(STAND_IN / "stand_in.c"), "-lm"],
        check=True,
        timeout=60,
    )
    return program


def run(program: Path, target: str, *more: str, output: bytes, kind: int, size: tuple[int, int] = SIZE, steps=STEPS):
    """The program on an image of SIZE, with the model's output; what it says. It has to give the model the input."""
    folder = program.parent
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (folder / "image.ppm").write_bytes(b"P6 %d %d 255\n" % SIZE[::-1] + pixels.tobytes())
    (folder / "output").write_bytes(output)
    environment = {"INPUT": "input", "OUTPUT": "output", "TYPE": kind, "HEIGHT": size[0], "WIDTH": size[1]}
    environment["SCALE"] = steps.scale
    done = subprocess.run(
        [str(program), "image.ppm", target, *more],
        cwd=folder,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "post-processing" in done.stdout, done.stderr
    assert np.array_equal(np.fromfile(folder / "input", np.int8), stored(steps, pixels).reshape(-1))
    return done


def stored(steps: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """The model's input as infer.py makes it."""
    if steps == STEPS:
        return (pixels.astype(int) - 128).astype(np.int8)
    there = channels(np, pixels, plain(steps))
    return stored_levels(np, plain(steps), np.int8)[there, np.arange(there.shape[2])]


def classes_in(path: Path) -> list[int]:
    return list(path.read_bytes()[-SIZE[0] * SIZE[1] :])


def test_a_class_map(tmp_path: Path) -> None:
    write_examples(tmp_path, CLASSES, STEPS, "int8", dense=True, left=None)
    classes = np.random.default_rng(1).integers(0, len(CLASSES), SIZE, np.int32)
    done = run(compiled(tmp_path), "out.pgm", "/no/delegate.so", output=classes.tobytes(), kind=INT32)
    assert classes_in(tmp_path / "out.pgm") == classes.reshape(-1).tolist()
    assert "/no/delegate.so does not load: the CPU runs the model" in done.stderr


@pytest.mark.parametrize("kind", [INT8, UINT8])
def test_logits(tmp_path: Path, kind: int) -> None:
    left = ((4, 6), SIZE)
    write_examples(tmp_path, CLASSES, STEPS, "int8", dense=True, left=left)
    logits = np.random.default_rng(2).integers(-128, 128, (1, 2, 3, len(CLASSES)), np.int8)
    given = logits if kind == INT8 else (logits.view(np.uint8) ^ 128)
    run(compiled(tmp_path), "out.pgm", output=given.tobytes(), kind=kind, size=(2, 3))
    assert classes_in(tmp_path / "out.pgm") == class_map(np, given, left).reshape(-1).tolist()


@pytest.mark.parametrize("kind", [INT8, UINT8])
def test_scores(tmp_path: Path, kind: int) -> None:
    write_examples(tmp_path, CLASSES, STEPS, "int8", dense=False, left=None)
    scores = np.array([3, 9, 9, -5, 100, 4], np.int8)
    given = scores if kind == INT8 else scores.view(np.uint8) ^ 128
    zero = 4 if kind == INT8 else 4 - 128  # of the stand-in, as the file has it
    done = run(compiled(tmp_path), "-", output=given.tobytes(), kind=kind)
    wanted = [f"{CLASSES[label]} {(int(scores[label]) - zero) / 128:.3f}" for label in (4, 1, 2, 5, 0)]
    assert done.stdout.splitlines()[:-1] == wanted


FORMULAS = [
    replace(STEPS, scale=0.018658448, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    replace(STEPS, scale=0.011764706, mean=(127.5,), std=(63.7,), colours="bgr"),
    replace(STEPS, scale=0.0039215689, mean=(17.0,), std=(255.0,), colours="grey"),
]


@pytest.mark.parametrize("steps", FORMULAS, ids=lambda steps: steps.colours or "rgb")
def test_any_formula_and_outputs_that_are_no_classes(tmp_path: Path, steps: Preprocessing) -> None:
    write_examples(tmp_path, (), steps, "int8", dense=False, left=None)
    boxes = np.arange(24, dtype=np.int8)
    done = run(compiled(tmp_path), "out", output=boxes.tobytes(), kind=INT8, steps=steps)
    assert (tmp_path / "out.0.bin").read_bytes() == boxes.tobytes() and "out.0.bin boxes, 24 bytes" in done.stdout


@pytest.mark.parametrize("steps", FORMULAS, ids=lambda steps: steps.colours or "rgb")
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_camera_rounds_as_the_others_do(steps: Preprocessing, kind: str) -> None:
    """But for ties, of which these formulas have none."""
    steps = replace(steps, zero_point=-3 if kind == "int8" else 125)
    text = camera_pipeline(0, steps, kind, dense=False, left=None)
    (option,) = re.findall(r"per-channel:true@0,(\S+)", text)
    table = stored_levels(np, plain(steps), kind)
    for channel in range(table.shape[1]):
        (factor,), (offset,) = (re.findall(rf"{word}:([-\d.e]+)@{channel}", option) for word in ("mul", "add"))
        levels = np.floor((np.arange(256) * float(factor) + float(offset)).clip(0, 255))
        assert np.array_equal(levels - (128 if kind == "int8" else 0), table[:, channel])
    assert ("typecast:int16,add:-128" in text) == (kind == "int8") and "option=0:255" in text
    assert f"format={ {'bgr': 'BGR', 'grey': 'GRAY8'}.get(steps.colours or '', 'RGB') } " in text


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    built = tmp_path_factory.mktemp("c") / "libclass_map.so"
    subprocess.run(
        ["cc", *STRICT, "-shared", "-fPIC", "-o", built, script_path("c/class_map.c"), "-lm"], check=True, timeout=60
    )
    return ctypes.CDLL(str(built))


SIDES = st.integers(1, 9)


@settings(max_examples=60)
@given(
    st.tuples(SIDES, SIDES, st.integers(1, 12)),
    st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), max_size=2),
    st.integers(0, 2**32 - 1),
)
def test_the_class_map_is_the_boards(
    library: ctypes.CDLL, shape: tuple[int, int, int], sizes: list[tuple[int, int]], seed: int
) -> None:
    logits = np.random.default_rng(seed).integers(-128, 128, (1, *shape), np.int8)
    height, width = sizes[-1] if sizes else shape[:2]
    found = np.empty((height, width), np.int32)
    listed = ((ctypes.c_int * 2) * max(1, len(sizes)))(*[(ctypes.c_int * 2)(*size) for size in sizes])
    code = library.class_map(
        logits.ctypes.data_as(ctypes.c_void_p), *shape, listed, len(sizes), found.ctypes.data_as(ctypes.c_void_p)
    )
    assert code == 0 and np.array_equal(found, class_map(np, logits, sizes)[0])


def test_a_label_as_c_has_it() -> None:
    assert c_string("car") == '"car"' and c_string('"') == r'"\042"' and c_string("ß") == r'"\303\237"'


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("left", [None, ((8, 12),)])
def test_a_camera(tmp_path: Path, dense: bool, left: tuple[tuple[int, int], ...] | None) -> None:
    """As far as it goes without a board: a shell reads it, and each element is linked to the next."""
    text = camera_pipeline(len(CLASSES), STEPS, "int8", dense=dense, left=left if dense else None)
    (tmp_path / "camera.sh").write_text(text)
    shim = tmp_path / "gst-launch-1.0"
    shim.write_text('#!/bin/sh\nfor word; do printf "%s " "$word"; done\n')
    shim.chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "camera.sh")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CAMERA": "/dev/video7"},
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    elements = [element.strip() for element in done.stdout.split(" ! ")]
    assert elements[0] == "v4l2src device=/dev/video7" and all(elements) and "UNTRIED" in text
    assert "tensor_filter framework=tensorflow-lite model=model.tflite custom=Delegate:External," in done.stdout
    assert ("labels.txt" in done.stdout) == (not dense)
