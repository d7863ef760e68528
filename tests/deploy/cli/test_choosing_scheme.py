"""`hilnas quantize --scheme auto`: tried, scored, placed, measured, one written; and what gives no choice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from onnx import helper

from deploy.cli import main
from deploy.formats.digest import file_digest
from deploy.formats.tflite.read import read
from deploy.quantize.record import QuantizationRecord
from deploy.quantize.schemes import SchemeTrials
from deploy.targets.inspection import inspect_model
from tests.deploy.cli.failing import BOARDS, MODEL, USAGE, Fails, profile
from tests.deploy.onnx_files import NODES, network, weights

IMAGES = ("--mean", 127.5, "--std", 127.5, "--images", 8, "--labelled-images", 20)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Of the ten classes of `shapes`, untrained."""
    return network(tmp_path / "net.onnx", shape=(1, 3, 24, 24), v=weights(10, 8))


def quantize(model: Path, out: Path, *options: object, data: object = "shapes") -> list[str]:
    return [str(word) for word in ("quantize", model, "--data", data, "--out", out, *IMAGES, *options)]


def trials(folder: Path) -> SchemeTrials:
    return SchemeTrials.read(folder / SchemeTrials.FILE)


def test_the_target_decides_then_the_noise(tmp_path, classifier, capfd):
    assert main(quantize(classifier, tmp_path / "out", "--scheme", "auto", "--target", "imx8mp-vx")) == 0
    said, found = capfd.readouterr().out, trials(tmp_path / "out")
    assert len({one.option for one in found.tried}) == len(found.tried) >= 12
    chosen = next(one for one in found.tried if one.option == found.chosen)
    tensor = [one for one in found.tried if one.option.startswith("tensor")]
    assert chosen in tensor and all(one.off_share == 0 for one in tensor)
    assert all(one.off_share > 0.5 for one in found.tried if one not in tensor)
    kinds = {"int8", "uint8"} & {word.strip(",") for word in found.chosen.split()}
    (file,) = (tmp_path / "out").glob("*.tflite")
    assert file.name == f"net.{kinds.pop()}.tflite" and chosen.size_bytes == file.stat().st_size
    assert found.float_metric is not None and all(one.metric and one.change for one in found.tried)
    assert found.labelled == "shapes, 20 images of val" and "top-1" in said and "least work off the fast place" in said
    assert json.loads((tmp_path / "out/quantization.json").read_text())["scheme"] == found.chosen


def test_the_board_measures_each_and_keeps_what_it_measured(tmp_path, classifier, capfd):
    store = tmp_path / "store.sqlite"
    options = ("--scheme", "auto", "--boards", BOARDS, "--board", "loopback", "--store", store)
    assert main(quantize(classifier, tmp_path / "out", *options)) == 0
    found = trials(tmp_path / "out")
    assert all(one.latency_us.low <= one.latency_us.value <= one.latency_us.high for one in found.tried)
    assert QuantizationRecord.read(tmp_path / "out" / QuantizationRecord.FILE).origin.target == found.target
    assert found.board == "loopback" and "the fastest on loopback" in capfd.readouterr().out

    def rows() -> int:
        with sqlite3.connect(store) as database:
            return database.execute("select count(*) from measurements").fetchone()[0]

    count = rows()
    assert main(quantize(classifier, tmp_path / "again", *options, "--json")) == 0
    assert rows() == count and json.loads(capfd.readouterr().out)["chosen"] == found.chosen
    (file,) = (tmp_path / "out").glob("*.tflite")
    with sqlite3.connect(store) as database:
        measured = [sha256 for (sha256,) in database.execute("select model_sha256 from measurements")]
    assert file_digest(file) in measured, "what ships is what was measured"
    assert main([str(word) for word in profile(tmp_path, file)]) == 0


def test_layers_in_float_and_what_they_cost(tmp_path, classifier, capfd):
    options = ("--scheme", "tensor int8", "--keep-float", 1, "--target", "imx8mp-vx")
    assert main(quantize(classifier, tmp_path / "out", *options)) == 0
    found, said = trials(tmp_path / "out"), capfd.readouterr().out
    plain, kept = found.tried
    assert found.chosen == kept.option == "tensor int8, 1 in float" and len(found.in_float) == 1
    assert kept.off_share > plain.off_share == 0 and "in float: " in said
    (file,) = (tmp_path / "out").glob("*.tflite")
    assert "DEQUANTIZE" in {op.name for op in inspect_model(read(file)).operators}
    assert main([str(word) for word in profile(tmp_path, file)]) == 0
    assert "unchecked" not in capfd.readouterr().out


def test_they_stay_integers_where_the_drop_needs_no_float(tmp_path, classifier):
    options = ("--scheme", "tensor int8", "--keep-float", 1, "--target", "imx8mp-vx", "--metric-drop", 100)
    assert main(quantize(classifier, tmp_path / "out", *options)) == 0
    assert trials(tmp_path / "out").in_float == ()


def test_float_ends(tmp_path, classifier, capfd):
    """By either way, with the same integers inside: the golden pair is of float32."""
    for folder, more in (("plain", ()), ("tried", ("--labelled", "shapes"))):
        assert main(quantize(classifier, tmp_path / folder, "--graph-io", "float", *more)) == 0, capfd.readouterr().err
        model = tmp_path / folder / "net.int8.tflite"
        found = inspect_model(read(model))
        assert [end.dtype for end in (*found.inputs, *found.outputs)] == ["FLOAT32", "FLOAT32"]
        assert model.with_suffix(".input.bin").stat().st_size == 4 * 3 * 24 * 24
        assert main([str(word) for word in profile(tmp_path, model)]) == 0
        assert "unchecked" not in capfd.readouterr().out
    assert trials(tmp_path / "tried").chosen == "channel int8, float ends"
    out = ["--out", tmp_path / "bundle", "--boards", BOARDS]
    assert main([str(word) for word in ("bundle", "export", tmp_path / "plain", *out)]) == USAGE
    assert "its input is float32" in capfd.readouterr().err


def test_every_pixel_may_have_a_label(tmp_path, capfd):
    nodes = (*NODES[:2], helper.make_node("Conv", ["r", "u"], ["y"], "head"))
    model = network(tmp_path / "net.onnx", nodes, shape=(1, 3, 32, 48), u=weights(11, 8, 1, 1))
    command = quantize(model, tmp_path / "out", "--scheme", "auto", "--labelled-images", 3, data="scenes")
    assert main(command) == 0, capfd.readouterr().err
    assert "mIoU" in capfd.readouterr().out
    assert main([*command, "--size", "40x60"]) == 0  # labels follow the middle of the images


def test_labels_of_something_else(tmp_path, capfd, fails: Fails):
    model = network(tmp_path / "net.onnx", shape=(1, 3, 24, 24))
    fails(MODEL, quantize(model, tmp_path, "--scheme", "auto", "--labelled", "shapes"), "scores of 10 classes")
    assert main(quantize(model, tmp_path, "--scheme", "auto")) == 0
    said = capfd.readouterr()
    assert "no metric: shapes: " in said.err and trials(tmp_path).labelled is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scheme", "auto", "--metric-drop", "-1"), "give points, 0 or more"),
        (("--scheme", "auto", "--metric-drop", "nan"), "give points, 0 or more"),
        (("--scheme", "auto", "--labelled-images", "0"), "--labelled-images 0: give at least 1"),
        (("--scheme", "auto", "--labelled", "shape"), "shape"),
        (("--keep-float", "0"), "--keep-float 0: the network has 2 layers with weights"),
        (("--keep-float", "3"), "give 1 to that many"),
        (("--target", "imx9"), "imx9"),
        (("--board", "nobody", "--boards", BOARDS), "nobody"),
    ],
)
def test_what_says_nothing(tmp_path, classifier, fails: Fails, options, said):
    fails(USAGE, quantize(classifier, tmp_path / "out", *options), said)
    assert not (tmp_path / "out").exists()


def test_a_drop_needs_labels(tmp_path, classifier, fails: Fails):
    fails(
        USAGE, quantize(classifier, tmp_path, "--scheme", "auto", "--metric-drop", 1, data="random"), "--labelled SPEC"
    )
