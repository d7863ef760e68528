"""`hilnas evaluate`: the board's own answers are the simulation's on a loopback; stopped, compared, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deploy.cli import main
from deploy.ship import evaluate as evaluate_module
from deploy.ship.evaluation import AT_ONCE
from deploy.ship.evaluation_record import CONFUSIONS, EvaluationRecord
from hil import outputs
from nas.data import open_data
from tests.deploy.foreign_models import Foreign
from tests.deploy.inspected_models import edited
from tests.deploy.tiny_experiment import Finished, finished_run, one_line, record

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (64, 96)
BOARDS = """
[loopback]
kind = "loopback"
target = "cpu-xnnpack"
[reference]
kind = "loopback"
kernels = "reference"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture
def evaluate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`hilnas evaluate ARGUMENTS`: code, out, err, and the folders of evaluations."""
    (tmp_path / "boards.toml").write_text(BOARDS)

    def run(*given: object) -> SimpleNamespace:
        capfd.readouterr()
        options = ["--boards", tmp_path / "boards.toml", "--out", tmp_path / "out"]
        code = main([str(word) for word in ("evaluate", *given, *options)])
        ended = capfd.readouterr()
        folders = sorted(p for p in (tmp_path / "out").glob("*") if p.is_dir())
        return SimpleNamespace(code=code, out=ended.out, err=ended.err, folders=folders)

    return run


@pytest.fixture
def runs(finished: Finished) -> list[object]:
    """The arguments that name the finished run."""
    return [finished.folder, "--config", finished.config]


def counted(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[bytes]:
    """The inputs that a device is asked for from here on; the device is lost after so many outputs."""
    asked: list[bytes] = []
    real = outputs.outputs_of

    def counting(session: Any, model: Path, inputs: Iterator[bytes], **options: Any) -> Any:
        def seen() -> Iterator[bytes]:
            for one in inputs:
                asked.append(one)
                yield one

        for number, found in enumerate(real(session, model, seen(), **options)):
            if number == stop_after:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr("deploy.ship.evaluation.outputs_of", counting)
    return asked


def scores(folder: Path) -> dict[str, float]:
    return {one.predictor: one.score.value for one in EvaluationRecord.read(folder / "evaluation.json").scores}


def test_on_a_loopback_the_board_scores_what_the_integers_score(evaluate, runs, finished) -> None:
    ended = evaluate(*runs, "--board", "loopback")
    assert ended.code == 0, ended.err
    (folder,) = ended.folders
    found = EvaluationRecord.read(folder / EvaluationRecord.FILE)
    (fast,) = (m for m in record(finished.folder / "final.json")["models"] if m["name"] == "fast")
    assert [one.predictor for one in found.scores] == ["board", "integer simulation", "float network"]
    board, integers, floats = found.scores
    assert board.score == integers.score and board.classes == integers.classes
    assert integers.score.value == fast["miou_int8"] and floats.score.value == pytest.approx(fast["miou_fp32"])
    exact, rest = found.differences[0].points, found.differences[1:]
    assert (exact.value, exact.low, exact.high) == (0, 0, 0) and found.differ_most == () and found.failed == ()
    assert [(one.predictor, one.other) for one in rest] == [
        ("board", "float network"),
        ("integer simulation", "float network"),
    ]
    assert found.images.scored == 4 and found.images.size == SIZE and found.conditions is not None
    for words in ("differ most on: no image", "as hilnas trains and deploys", "IoU %", "road", "written to"):
        assert words in ended.out


def test_each_images_confusions_are_in_parquet(evaluate, runs) -> None:
    (folder,) = evaluate(*runs, "--board", "loopback").folders
    frame = pd.read_parquet(folder / CONFUSIONS)
    data = open_data("scenes", "val", SIZE, count=4)
    assert sorted(frame["name"].unique()) == [f"scenes {i}" for i in range(4)]
    assert set(frame["predictor"]) == {"board", "integer simulation", "float network"}
    for index, part in frame[frame["predictor"] == "board"].groupby("image"):
        labels = data[int(index)].label
        for label, rows in part.groupby("label"):
            assert rows["count"].sum() == (labels == label).sum()
    assert frame.attrs["classes"] == list(data.classes)


def test_without_a_board_this_machine_simulates(evaluate, runs, monkeypatch) -> None:
    monkeypatch.setattr(evaluate_module, "open_board", None)  # nothing is opened
    ended = evaluate(*runs)
    assert ended.code == 0 and "none took part" in ended.out
    found = EvaluationRecord.read(ended.folders[0] / EvaluationRecord.FILE)
    assert [one.predictor for one in found.scores] == ["integer simulation", "float network"]
    assert found.conditions is None and found.differ_most


@pytest.mark.parametrize(("split", "images"), [("train", 5), ("test", 3), ("val", 2)])
def test_any_split_and_so_many_images(evaluate, runs, split, images) -> None:
    ended = evaluate(*runs, "--split", split, "--images", images, "--json")
    shown = json.loads(ended.out)
    assert shown["images"]["split"] == split and shown["images"]["scored"] == images
    assert shown == record(ended.folders[0] / "evaluation.json")


def test_a_stopped_evaluation_goes_on_where_it_was(evaluate, runs, monkeypatch) -> None:
    command = (*runs, "--split", "train", "--images", 3 * AT_ONCE, "--board", "loopback")
    asked = counted(monkeypatch, stop_after=2 * AT_ONCE)
    stopped = evaluate(*command)
    assert stopped.code == 130 and "run the same command to go on" in stopped.err
    (folder,) = stopped.folders
    journal = folder / "images.jsonl"
    assert len(journal.read_text().splitlines()) == 2 * AT_ONCE and not (folder / "evaluation.json").exists()
    with journal.open("a") as file:
        file.write('{"key": "cut sh')  # as a kill leaves it
    monkeypatch.undo()
    asked = counted(monkeypatch)
    ended = evaluate(*command)
    assert ended.code == 0 and len(asked) == AT_ONCE
    shutil.rmtree(folder)
    asked.clear()
    whole = evaluate(*command)
    assert len(asked) == 3 * AT_ONCE and whole.folders == [folder]
    assert ended.out == whole.out
    asked.clear()
    assert evaluate(*command).out == whole.out and not asked


def test_another_board_or_changed_images_are_scored_anew(evaluate, tmp_path, monkeypatch) -> None:
    model = Foreign(SIZE, 11, "UINT8", "classes", scale=1 / 255).write(tmp_path / "m.tflite")
    data = camvid(tmp_path / "camvid")
    command = (model, "--data", f"camvid:{data}", "--normalize", "0,255", "--board")
    asked = counted(monkeypatch)
    assert evaluate(*command, "loopback").code == 0 and len(asked) == 6  # by the board, and by this machine
    assert evaluate(*command, "reference").code == 0 and len(asked) == 12
    asked.clear()
    Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(data / "val" / "1.png")
    assert evaluate(*command, "loopback").code == 0 and len(asked) == 2


def camvid(folder: Path) -> Path:
    """Three images in CamVid's layout, whose class is in the red channel; one pixel in nine is void."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("", "annot"):
            (folder / f"{split}{name}").mkdir(parents=True)
        for i in range(3):
            label = rng.integers(0, 11, SIZE).astype(np.uint8)
            image = np.stack([np.rint(label * 25.5), label * 0, label * 0], axis=-1).astype(np.uint8)
            label[::3, ::3] = 11
            Image.fromarray(image).save(folder / split / f"{i}.png")
            Image.fromarray(label).save(folder / f"{split}annot" / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("dtype", "output"),
    [("FLOAT32", "scores"), ("UINT8", "classes"), ("INT8", "classes64"), ("UINT8", "column"), ("INT8", "scores")],
)
def test_any_file_is_evaluated_by_what_it_says(evaluate, tmp_path, dtype, output) -> None:
    """The image shows its labels, and the model reads them: all is right, by the board and by this machine."""
    model = Foreign(SIZE, 11, dtype, output, zero_point=-128 if dtype == "INT8" else 0).write(tmp_path / "m.tflite")
    says = ("--normalize", "0,255") if dtype == "FLOAT32" else ()
    ended = evaluate(model, "--data", f"camvid:{camvid(tmp_path / 'camvid')}", *says, "--board", "reference")
    assert ended.code == 0, ended.err
    assert scores(ended.folders[0]) == {"board": 100.0, "this machine": 100.0}
    assert "points [+0.00, +0.00] against this machine, over" in ended.out
    assert ("assumed, as the file does not say" in ended.out) == (dtype != "FLOAT32")
    assert f"{dtype.lower()} 64 x 96 RGB" in ended.out


@pytest.mark.parametrize("output", ["scores", "classes"])
def test_a_file_that_leaves_its_size_open_is_evaluated_at_the_size_given(evaluate, tmp_path, output) -> None:
    model = Foreign(SIZE, 11, "UINT8", output, open_size=True).write(tmp_path / "m.tflite")
    command = (model, "--data", f"camvid:{camvid(tmp_path / 'camvid')}", "--board", "reference")
    ended = evaluate(*command, "--input-shape", "image=1x64x96x3")
    assert ended.code == 0, ended.err
    assert scores(ended.folders[0]) == {"board": 100.0, "this machine": 100.0}
    conditions = EvaluationRecord.read(ended.folders[0] / EvaluationRecord.FILE).conditions
    assert conditions is not None and conditions.input_shapes == "image=1x64x96x3"
    other = evaluate(*command, "--input-shape", "image=1x32x48x3")
    assert other.code == 0 and len(other.folders) == 2 and "uint8 32 x 48 RGB" in other.out


def test_a_files_metadata_is_followed_and_may_be_overridden(evaluate, tmp_path) -> None:
    wrong = Foreign(SIZE, 11, normalization=([200], [1])).write(tmp_path / "m.tflite")
    data = f"camvid:{camvid(tmp_path / 'camvid')}"
    assert scores(evaluate(wrong, "--data", data).folders[0])["this machine"] < 20
    ended = evaluate(wrong, "--data", data, "--normalize", "0,255")
    assert [scores(folder)["this machine"] for folder in ended.folders].count(100.0) == 1


def test_a_file_of_a_run_alone_scores_as_in_its_run(evaluate, finished, tmp_path) -> None:
    model, (fast,) = finished.folder / "models/fast.tflite", record(finished.folder / "final.json")["models"][1:]
    ended = evaluate(model, "--data", "scenes", "--images", 4)
    assert scores(ended.folders[0]) == {"this machine": fast["miou_int8"]}
    bundle = evaluate(finished.folder / "bundle", "--data", "scenes", "--images", 4)
    assert bundle.code == 0 and f"{fast['miou_int8']:.2f}" in bundle.out


def test_two_models_are_compared_on_the_same_images(evaluate, runs, finished) -> None:
    other = finished.folder / "models/teacher.tflite"
    ended = evaluate(*runs, "--board", "loopback", "--against", other)
    assert ended.code == 0, ended.err
    ours, theirs = (next(f for f in ended.folders if f.name.startswith(name)) for name in ("fast", "teacher"))
    found = EvaluationRecord.read(ours / EvaluationRecord.FILE)
    pairs = [(one.predictor, one.other_predictor) for one in found.against]
    assert pairs == [("board", "board"), ("integer simulation", "this machine")]
    for one in found.against:
        assert one.model == str(other)
        assert one.points.value == pytest.approx(scores(ours)["board"] - scores(theirs)["board"])
        assert one.points.low <= one.points.value <= one.points.high
    assert f"against {other}" in ended.out
    itself = evaluate(*runs, "--against", finished.folder)
    assert "+0.00 points [+0.00, +0.00]" in itself.out


def test_an_image_that_the_board_fails_on_is_named_and_counted(evaluate, tmp_path, monkeypatch) -> None:
    data = camvid(tmp_path / "camvid")
    model = Foreign(SIZE, 11).write(tmp_path / "m.tflite")
    command = (model, "--data", f"camvid:{data}", "--normalize", "0,255")
    real = evaluate_module.image_scores

    def with_nan(evaluated: Any, *given: Any, **options: Any) -> Any:
        encode = evaluated.input.encode

        def encoded(image: np.ndarray) -> bytes:
            content = bytearray(encode(image))
            if np.array_equal(image, open_data(f"camvid:{data}", "val", SIZE)[1].image):
                content[:4] = np.float32("nan").tobytes()
            return bytes(content)

        object.__setattr__(evaluated.input, "encode", encoded)
        return real(evaluated, *given, **options)

    monkeypatch.setattr(evaluate_module, "image_scores", with_nan)
    ended = evaluate(*command)
    assert ended.code == 4
    one_line(ended.err, "1 of 3 images failed", "val/1.png", "NaN", "--retry-failed")
    assert "2 images, 1 more failed" in ended.out
    found = EvaluationRecord.read(ended.folders[0] / EvaluationRecord.FILE)
    assert found.images.scored == 2 and found.scores[0].score.value == 100.0 and len(found.failed) == 1
    monkeypatch.undo()
    again = evaluate(*command)
    assert again.code == 4  # what failed is kept, and said again
    assert evaluate(*command, "--retry-failed").code == 0


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({}, (), ("float32 and nothing says", "--normalize")),
        ({"dtype": "UINT8", "classes": 19}, (), ("1x64x96x19", "11 classes", "sky")),
        ({"dtype": "UINT8"}, ("--normalize", "1"), ("--normalize 1",)),
        ({"dtype": "UINT8"}, ("--normalize", "1,0"), ("STD not 0",)),
        ({"dtype": "UINT8"}, ("--model", "fast"), ("--model fast", "is no run")),
        ({"dtype": "UINT8"}, ("--split", "valid"), ("unknown split 'valid'", "did you mean 'val'")),
        ({"dtype": "UINT8"}, ("--images", "0"), ("count 0",)),
        ({"dtype": "UINT8"}, ("--board", "lopback"), ("lopback", "did you mean 'loopback'")),
        ({"dtype": "UINT8", "size": (16, 16)}, (), ("too small to show a street",)),
        ({"dtype": "UINT8", "open_size": True}, (), ("leaves sizes of its inputs open", "--input-shape image=1xHxWx3")),
        ({"dtype": "UINT8"}, ("--input-shape", "x=1x64x96x3"), ("no model has an input 'x'", "'image'")),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(evaluate, tmp_path, settings, more, words) -> None:
    model = Foreign(**{"size": SIZE, "classes": 11} | settings).write(tmp_path / "m.tflite")
    ended = evaluate(model, "--data", "scenes", *more)
    assert ended.code in (2, 4)
    one_line(ended.err, *words)


def test_a_class_that_the_data_has_not_is_named_with_its_image(evaluate, tmp_path) -> None:
    model = Foreign(SIZE, 21, "UINT8", "classes").write(tmp_path / "m.tflite")
    ended = evaluate(model, "--data", f"camvid:{camvid(tmp_path / 'camvid')}")
    assert ended.code == 4
    one_line(ended.err, "val/0.png", "class 20 is predicted", "camvid names 11")


def test_a_file_compiled_for_another_npu_is_named_before_any_image(evaluate, tmp_path) -> None:
    def compiled(model: Any) -> None:
        model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
        model.operatorCodes[0].customCode = b"edgetpu-custom-op"

    path = Foreign(SIZE, 11, "UINT8").write(tmp_path / "edgetpu.tflite")
    path.write_bytes(edited(path.read_bytes(), compiled))
    ended = evaluate(path, "--data", "scenes", "--board", "loopback")
    assert ended.code == 4
    one_line(ended.err, "edgetpu.tflite", "Edge TPU")


def test_subjects_that_are_none_are_named(evaluate, tmp_path, finished) -> None:
    for subject, words in (
        (tmp_path / "none.tflite", ("none.tflite: no such file",)),
        (tmp_path, ("no finished run there",)),
    ):
        ended = evaluate(subject, "--data", "scenes")
        assert ended.code == 2
        one_line(ended.err, *words)
    ended = evaluate(finished.folder / "models/fast.tflite")
    one_line(ended.err, "which images? give --data")
    ended = evaluate(finished.folder, "--config", finished.config, "--model", "quick")
    one_line(ended.err, "no model 'quick'; there are teacher, fast, teacher_plus")
    ended = evaluate(finished.folder, "--config", finished.config, "--normalize", "0,1")
    one_line(ended.err, "--normalize is for a file alone")


def test_another_configuration_than_the_runs_is_refused(evaluate, finished, tmp_path) -> None:
    """The file has to be what the configuration's network quantizes to."""
    text = finished.config.read_text()
    shutil.copy(finished.config.with_name("space.toml"), tmp_path)
    other = tmp_path / "other.toml"
    other.write_text(text.replace("calibration_images = 4", "calibration_images = 3"))
    ended = evaluate(finished.folder, "--config", other)
    assert ended.code == 2
    one_line(ended.err, "fast.tflite: not the file that configuration", "--config", "hilnas evaluate")


def test_labels_that_are_all_void_are_named(evaluate, tmp_path) -> None:
    data = camvid(tmp_path / "camvid")
    for path in (data / "testannot").iterdir():
        Image.fromarray(np.full(SIZE, 11, np.uint8)).save(path)
    model = Foreign(SIZE, 11, "UINT8").write(tmp_path / "m.tflite")
    ended = evaluate(model, "--data", f"camvid:{data}", "--split", "test")
    assert ended.code == 2
    one_line(ended.err, "none of 3 images has a labelled pixel")


def test_two_at_once_in_one_folder(evaluate, runs, tmp_path) -> None:
    folder = evaluate(*runs).folders[0]
    with evaluate_module._alone_in(folder):
        one_line(evaluate(*runs).err, "another hilnas evaluates there")
