"""The loop on another task: classification of generated figures, and of a user's folders, to a verified bundle."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from deploy.formats.tflite.read import read
from deploy.run.config import Overrides, load_experiment
from deploy.ship.task_output import TASK_OUTPUTS
from deploy.targets.inspection import inspect_model
from nas.data import DATASETS, open_data
from nas.data.shapes import OUTLINES
from nas.tasks.task import TASKS
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    SUBNETS,
    TIMED,
    Finished,
    arguments,
    one_line,
    record,
    run,
    write_experiment,
)

CLASSIFY = {
    'spec = "scenes"\nsize = [64, 96]': 'spec = "shapes"\nsize = [32, 40]',
    "head = { channels = 8, rates = [2] }": "head = { features = 32 }",
    "val = 4": "val = 20",
}
SIZE = (32, 40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    base = tmp_path_factory.mktemp("classification")
    ended = run("loop", *arguments(write_experiment(base, CLASSIFY), base / "runs"))
    assert ended.returncode == 0, ended.stderr
    assert "top-1 INT8 %" in ended.stdout and "mIoU" not in ended.stdout
    return Finished(base / "tiny.toml", base / "runs" / "tiny")


def labels_by_litert(model: Path, split: str, count: int) -> tuple[list[int], list[int]]:
    """(what LiteRT answers, what is right) for `count` images."""
    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    found, right = [], []
    for sample in open_data("shapes", split, SIZE, count=count):
        interpreter.set_tensor(source["index"], (sample.image.astype(np.int16) - 128).astype(np.int8)[None])
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(scores["index"])[0].argmax()))
        right.append(int(sample.label))
    return found, right


def test_the_summary_names_task_and_metric(finished: Finished) -> None:
    summary = record(finished.folder / "summary.json")
    assert summary["task"] == "classification" and summary["metric"] == {"name": "top-1", "key": "top1"}
    assert summary["data"] == {"spec": "shapes", "size": list(SIZE), "classes": len(OUTLINES), "train": 14, "val": 20}
    for model in (summary["teacher"], *summary["models"]):
        assert 0 <= model["top1_fp32"] <= 100 and not [key for key in model if "miou" in key]
    counts = {"subnets_compiled": SUBNETS, "subnets_measured": TIMED, "subnets_exact_parity": SUBNETS}
    assert summary["counts"] == counts
    assert summary["bundle"]["verified"] is True


def test_the_accuracy_is_what_litert_gets_from_the_shipped_file(finished: Finished) -> None:
    summary = record(finished.folder / "summary.json")
    for model in (summary["teacher"], *summary["models"]):
        path = finished.folder / "models" / f"{model['name']}.tflite"
        found, right = labels_by_litert(path, "val", 20)
        assert model["top1_int8"] == 100 * sum(a == b for a, b in zip(found, right, strict=True)) / 20
        said = inspect_model(read(path)).hilnas
        assert said is not None and said["top1_int8"] == model["top1_int8"]


def test_the_report_says_top_1(finished: Finished) -> None:
    page = (finished.folder / "report.html").read_text(encoding="utf8")
    tables = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert "<th>top-1 FP32, %</th><th>top-1 INT8, %</th>" in tables and "mIoU" not in tables


def bundle_holds(bundle: Path, classes: list[str]) -> None:
    manifest = record(bundle / "manifest.json")
    output = TASK_OUTPUTS["classification"]
    for golden in manifest["golden"]:
        assert (golden["max_mismatch"], golden["max_abs_diff"]) == (output.max_mismatch, output.max_abs_diff)
        assert (bundle / golden["output"]).stat().st_size == len(classes) and set(golden["top"]) <= set(classes)
    assert (bundle / "labels.txt").read_text(encoding="utf8").splitlines() == classes
    assert record(bundle / "preprocessing.json")["size"] == list(SIZE)
    assert "top-1 (INT8, validation)" in manifest["facts"]
    readme = (bundle / "README.md").read_text()
    assert readme.splitlines()[2].startswith(f"Image classification, {len(classes)} classes")
    assert "one score per class, int8" in readme and "class map" not in readme and "pixels may" not in readme


def test_the_bundle_and_an_exported_one_verify(finished: Finished, tmp_path: Path) -> None:
    bundle_holds(finished.folder / "bundle", list(OUTLINES))
    boards = str(REPOSITORY / "boards.toml")
    exported = run(
        "bundle", "export", "--run", str(finished.folder), "--model", "teacher", "--out", str(tmp_path / "b")
    )
    assert exported.returncode == 0, exported.stderr
    bundle_holds(tmp_path / "b", list(OUTLINES))
    verified = run("bundle", "verify", str(tmp_path / "b"), "--board", "loopback", "--boards", boards)
    assert verified.returncode == 0, verified.stderr
    for name, shift in (("near", 3), ("far", 4)):  # the tolerance is what the manifest says
        changed = Path(shutil.copytree(tmp_path / "b", tmp_path / name))
        _shift_golden(changed, shift)
        assert run("bundle", "verify", str(changed), "--boards", boards).returncode == (0 if name == "near" else 4)


def _shift_golden(bundle: Path, by: int) -> None:
    """Every score of the first golden output `by` steps off, with its hash."""
    import hashlib

    manifest = record(bundle / "manifest.json")
    name = manifest["golden"][0]["output"]
    path = bundle / name
    scores = np.frombuffer(path.read_bytes(), np.int8).astype(int)
    content = np.where(scores > 0, scores - by, scores + by).astype(np.int8).tobytes()
    path.write_bytes(content)
    manifest["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def write_folders(root: Path, train: int = 6) -> None:
    """Three classes, each of one colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", 2)):
        for i, name in enumerate(("blue", "green", "red")):
            (root / split / name).mkdir(parents=True)
            for j in range(count):
                pixels = rng.integers(0, 60, (30, 36, 3), np.uint8)
                pixels[..., 2 - i] += 150
                Image.fromarray(pixels).save(root / split / name / f"{j}.png")


def test_a_users_folders_go_the_same_way(tmp_path: Path) -> None:
    write_folders(tmp_path / "data")
    (tmp_path / "data" / "labels.txt").write_text("blue the sky\ngreen grass\nred\n")
    config = write_experiment(tmp_path, {**CLASSIFY, "train = 16\n": "", "val = 4": "val = 5"})
    spec = f"folders:{tmp_path / 'data'}"
    ended = run("loop", *arguments(config, tmp_path / "runs", "--data", spec))
    assert ended.returncode == 0, ended.stderr
    summary = record(tmp_path / "runs" / "tiny" / "summary.json")
    assert summary["data"] == {"spec": "folders", "size": list(SIZE), "classes": 3, "train": 16, "val": 5}
    bundle_holds(tmp_path / "runs" / "tiny" / "bundle", ["the sky", "grass", "red"])


def _empty_class(root: Path) -> None:
    for path in (root / "train" / "green").iterdir():
        path.unlink()


def _unknown_class(root: Path) -> None:
    shutil.copytree(root / "val" / "red", root / "val" / "violet")


def _unreadable(root: Path) -> None:
    for path in (root / "train" / "blue").iterdir():
        path.write_bytes(b"not an image")


def _fewer_labels(root: Path) -> None:
    (root / "labels.txt").write_text("blue\nred\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_empty_class, ("train/green: holds no image that can be read; add some or remove the folder",)),
        (_unknown_class, ("val/violet: ", "has no class 'violet'")),
        (_unreadable, ("train/blue/", "cannot be read as an image")),
        (_fewer_labels, ("labels.txt: names 2 classes and not 'green', one of the 3 folders",)),
    ],
)
def test_bad_folders_end_in_one_line(tmp_path: Path, damage, words: tuple[str, ...]) -> None:
    write_folders(tmp_path / "data", train=2)
    damage(tmp_path / "data")
    config = write_experiment(tmp_path, CLASSIFY)
    ended = run("loop", *arguments(config, tmp_path / "runs", "--data", f"folders:{tmp_path / 'data'}"))
    assert ended.returncode == 2
    one_line(ended.stderr, *words)


def test_a_segmenters_head_is_refused_before_training(tmp_path: Path) -> None:
    config = write_experiment(tmp_path)
    ended = run("loop", *arguments(config, tmp_path / "runs", "--data", "shapes"))
    assert ended.returncode == 2
    one_line(ended.stderr, "data 'shapes' is for classification", "head is written { features = 256 }")
    assert not list((tmp_path / "runs").rglob("*.pt"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_configuration_of_its_task(name: str) -> None:
    experiment, _ = load_experiment(f"demo-{name}", Overrides())
    assert experiment.data.name == name
    task = "classification" if name in ("shapes", "folders") else "segmentation"
    assert isinstance(experiment.teacher.head, TASKS[task].head)
