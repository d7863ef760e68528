"""What a finished run's bundle holds: golden images, an application that gives their outputs, for people and tools."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main
from deploy.compile.artifact import Artifact
from deploy.formats.class_colours import colour
from deploy.formats.digest import file_digest
from deploy.run.records import RunState, Summary
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.golden import GoldenImages, copy_golden, golden_folder
from deploy.ship.layers import QuantizedLayers
from deploy.ship.manifest import BundleMeasurement, Manifest
from deploy.ship.provenance import Provenance
from deploy.ship.task_output import TASK_OUTPUTS
from tests.board_scripts.test_infer import OURS, PROGRAM, infer
from tests.conftest import REPOSITORY
from tests.deploy.tiny_experiment import Finished, finished_run
from tests.hil.tiny_model import int8_add

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 4  # the tiny experiment's validation images
WITH_OPENCV = os.environ.get("HILNAS_OPENCV") or (sys.executable if find_spec("cv2") else None)
NO_OPENCV = "no OpenCV here: HILNAS_OPENCV=PYTHON names one that has cv2, numpy and ai-edge-litert"
READERS: Mapping[str, dict[str, Any]] = {
    "Pillow": {},
    "OpenCV": {"hidden": ("PIL",), "python": WITH_OPENCV},
    "PPM": {"hidden": ("PIL", "cv2")},
}
"""How `infer` runs with one of them alone."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def bundle(finished: Finished) -> Path:
    return finished.folder / "bundle"


def test_validation_images_with_their_golden_outputs(bundle: Path) -> None:
    golden = Manifest.read(bundle / Manifest.FILE).golden
    assert [pair.name for pair in golden] == [f"scenes {i}" for i in range(IMAGES)]
    for pair in golden:
        assert pair.image is not None and pair.classes is not None and not pair.top
        with Image.open(bundle / pair.image) as image, Image.open(bundle / pair.classes) as classes:
            pixels, labels = np.asarray(image), np.asarray(classes)
            painted = np.asarray(classes.convert("RGB"))
        source = np.frombuffer((bundle / pair.input).read_bytes(), np.int8)
        assert np.array_equal(pixels.reshape(-1).astype(int) - 128, source)
        output = np.frombuffer((bundle / pair.output).read_bytes(), np.int32)
        assert np.array_equal(labels.reshape(-1), output) and len(set(output.tolist())) > 1
        assert painted[0, 0].tolist() == list(colour(int(labels[0, 0])))


@pytest.mark.parametrize(
    "reader", ["Pillow", pytest.param("OpenCV", marks=pytest.mark.skipif(not WITH_OPENCV, reason=NO_OPENCV)), "PPM"]
)
def test_the_application_gives_the_golden_outputs(bundle: Path, tmp_path: Path, reader: str) -> None:
    """On a Python without hilnas, whatever reads images there."""
    images = bundle / "golden/images"
    if reader == "PPM":
        images = tmp_path / "ppm"
        images.mkdir()
        for path in (bundle / "golden/images").iterdir():
            with Image.open(path) as image:
                image.save(images / f"{path.stem}.ppm")
    done = infer(bundle, images, "--out", tmp_path / "out", **READERS[reader])
    assert done.returncode == 0, done.stderr
    *lines, times = done.stdout.splitlines()
    assert len(lines) == IMAGES and "%" in lines[0] and times.startswith(f"median of {IMAGES} runs: pre-processing")
    for number in range(IMAGES):
        found = Image.open(tmp_path / "out" / f"{number}.classes.png")
        wanted = Image.open(bundle / f"golden/classes/{number}.png")
        assert np.array_equal(np.asarray(found), np.asarray(wanted))
        assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(wanted.convert("RGB")))
        with Image.open(tmp_path / "out" / f"{number}.overlay.png") as shown:
            assert shown.size == found.size and shown.mode == "RGB"


@pytest.mark.skipif(not WITH_OPENCV, reason=NO_OPENCV)
@pytest.mark.parametrize(("suffix", "resized"), [(".png", False), (".jpg", False), (".png", True), (".jpg", True)])
def test_opencv_and_pillow_give_one_class_map(bundle: Path, tmp_path: Path, suffix: str, resized: bool) -> None:
    """Both decode JPEG by libjpeg-turbo; without Pillow the resized levels may be off by one, which few pixels show."""
    noise = Image.effect_noise((301, 203), 60).resize((301, 203) if resized else (96, 64))
    photo = tmp_path / f"photo{suffix}"
    Image.merge("RGB", [noise, noise.transpose(Image.Transpose.ROTATE_180), noise]).save(photo)
    maps = []
    for reader in ("Pillow", "OpenCV"):
        done = infer(bundle, photo, "--out", tmp_path / reader, **READERS[reader])
        assert done.returncode == 0, done.stderr
        maps.append(np.asarray(Image.open(tmp_path / reader / "photo.classes.png")))
    assert np.mean(maps[0] != maps[1]) <= (0.05 if resized else 0.0)


def test_the_page_leads_from_the_file_to_a_result(bundle: Path, tmp_path: Path) -> None:
    """The commands of docs/bundles.md for a board, on a Python without hilnas; verified once more after them."""
    assert main(["bundle", "pack", str(bundle), "--out", str(tmp_path / "demo.bundle")]) == 0
    (folder := tmp_path / "demo").mkdir()
    subprocess.run(["tar", "-xzf", "../demo.bundle"], cwd=folder, check=True)
    (tmp_path / "photos").mkdir()
    Image.effect_noise((301, 200), 40).convert("RGB").save(tmp_path / "photos" / "street.jpg")
    lines = map(str.strip, (REPOSITORY / "docs/bundles.md").read_text(encoding="utf8").splitlines())
    verify, *others = [line for line in lines if line.startswith("python3 ")]
    assert verify.startswith("python3 verify_bundle.py . ") and len(others) == 2
    for command in (verify, *others, verify):
        _, *words = shlex.split(command.replace("--delegate /usr/lib/libvx_delegate.so", ""))
        argv = [sys.executable, "-I", "-c", PROGRAM, ",".join(OURS), *words]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["verified"] and (tmp_path / "out/street.overlay.png").exists()


def test_an_image_of_another_size(bundle: Path, tmp_path: Path) -> None:
    Image.effect_noise((301, 200), 40).convert("RGB").save(tmp_path / "photo.jpg")
    done = infer(bundle, tmp_path / "photo.jpg", "--out", tmp_path, "--runs", 3)
    assert done.returncode == 0 and "median of 3 runs" in done.stdout, done.stderr
    with Image.open(tmp_path / "photo.overlay.png") as shown:
        assert shown.size == (301, 200)


def test_a_model_that_shipped_without_golden_images_has_its_one_pair(finished: Finished, tmp_path: Path) -> None:
    run = finished.copy(tmp_path)
    shutil.rmtree(run / "models" / "fast.golden")
    assert main(["bundle", "export", "--run", str(run), "--out", str(tmp_path / "out")]) == 0
    (pair,) = Manifest.read(tmp_path / "out" / Manifest.FILE).golden
    assert (pair.image, pair.name, pair.classes) == (None, None, None)
    assert (tmp_path / "out" / pair.output).read_bytes() == (run / "models/fast.expected.bin").read_bytes()


def test_a_classifier_has_its_best_labels(tmp_path: Path) -> None:
    int8_add(tmp_path / "m.tflite")
    artifact, golden = Artifact.at(tmp_path, "m"), golden_folder(tmp_path / "m.tflite")
    golden.mkdir()
    GoldenImages(("one.jpg",)).write(golden / GoldenImages.FILE)
    scores = np.array([1, 7, -3, 7, 0, 5, 6, 2, -8, 4], np.int8)
    for name, content in (("0.png", b""), ("0.input.bin", b""), ("0.output.bin", scores.tobytes())):
        (golden / name).write_bytes(content)
    classes = [f"class {label}" for label in range(10)]
    (pair,) = copy_golden(artifact, tmp_path / "bundle", TASK_OUTPUTS["classification"], classes, (8, 8))
    assert pair.top == ("class 1", "class 3", "class 6", "class 5", "class 9")
    assert (pair.classes, pair.name, pair.image) == (None, "one.jpg", "golden/images/0.png")
    assert not (tmp_path / "bundle/golden/classes").exists()


def test_the_card_and_what_it_is_written_from(finished: Finished, bundle: Path) -> None:
    card, summary = (bundle / "MODEL_CARD.md").read_text(encoding="utf8"), Summary.read(finished.folder / Summary.FILE)
    (fast,) = summary.models
    evaluation = EvaluationRecord.read(bundle / EvaluationRecord.FILE)
    by_board = evaluation.score("board")
    assert by_board is not None and fast.board is not None and by_board.score == fast.board.score
    assert evaluation.model_sha256 == file_digest(bundle / "model.tflite")
    for words in (
        "# Model card: tiny-fast",
        "Semantic segmentation of RGB images, at 64 x 96 pixels.",
        f"| **fast** | {fast.score_fp32:.2f} | {fast.score_int8:.2f} | {fast.board.score.value:.2f} [",
        f"| the teacher trained on (T+) | {summary.teacher_plus.score_fp32:.2f} |",
        f"| sky | {by_board.classes[0]:.1f} |",
        "## Limits",
        "hilnas loop --config experiment.toml --board loopback",
        "budget fast: latency",
        "| hilnas | 0.1.0 | Apache-2.0 |",
        "Images: scenes, generated",
    ):
        assert words in card, f"{words!r} is not in\n{card}"
    assert Provenance.read(bundle / Provenance.FILE).keys == {
        stage: state.key for stage, state in RunState.read(finished.folder / RunState.FILE).stages.items()
    }
    assert str(Path.home()) not in card and str(finished.folder) not in card


def test_every_sample_of_its_latency(finished: Finished, bundle: Path) -> None:
    measured = BundleMeasurement.read(bundle / BundleMeasurement.FILE)
    samples = [us for us_of_round in measured.rounds_us for us in us_of_round]
    assert len(measured.rounds_us) == 4 and len(samples) == measured.latency_us.n
    assert float(np.median(samples)) == pytest.approx(measured.latency_us.median)


def test_how_each_layer_is_quantized(bundle: Path) -> None:
    found = QuantizedLayers.read(bundle / QuantizedLayers.FILE)
    kinds = {layer.operator: layer for layer in found.layers}
    first = kinds["CONV_2D"]
    assert first.weights == "int8" and (first.scales or 0) > 1 and first.scale and first.zero_point is not None
    assert kinds["ARG_MAX"].scale is None and found.executed_bits == (8,)


def test_the_model_is_the_one_that_was_measured(finished: Finished, bundle: Path) -> None:
    """Its metadata and labels are in it before it is evaluated and measured; those of the search have none."""
    assert (bundle / "model.tflite").read_bytes() == (finished.folder / "models/fast.tflite").read_bytes()
    with zipfile.ZipFile(bundle / "model.tflite") as archive:
        assert archive.read("labels.txt") == (bundle / "labels.txt").read_bytes()
    for path in (finished.folder / "models").glob("candidate-*.tflite"):
        assert not zipfile.is_zipfile(path) and b"TFLITE_METADATA" not in path.read_bytes()


def test_a_bundle_of_another_of_its_models(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["bundle", "export", "--run", str(finished.folder), "--model", "teacher_plus", "--out", str(out)]
    assert main(command) == 0
    card = (out / "MODEL_CARD.md").read_text(encoding="utf8")
    assert "# Model card: tiny-teacher_plus" in card and "| the teacher | " in card and "Less T+" not in card
    assert not BundleMeasurement.read(out / BundleMeasurement.FILE).rounds_us
    assert len(Manifest.read(out / Manifest.FILE).golden) == IMAGES


def test_the_same_run_gives_the_same_bundle(finished: Finished, bundle: Path, tmp_path: Path) -> None:
    assert main(["bundle", "export", "--run", str(finished.folder), "--out", str(tmp_path / "again")]) == 0
    files = {p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    again = {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()}
    differing = {str(name) for name in files.keys() | again.keys() if files.get(name) != again.get(name)}
    assert differing <= {"README.md", "manifest.json"}  # whose facts name the board's runtime, or do not
