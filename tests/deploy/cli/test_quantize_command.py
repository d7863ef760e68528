"""`hilnas quantize`: files that a board accepts, and networks, data and options that cannot be used."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from deploy.cli import main  # noqa: E402
from deploy.formats.tflite.read import read  # noqa: E402
from deploy.targets.inspection import inspect_model  # noqa: E402
from tests.deploy.cli.failing import MODEL, USAGE, Fails, profile  # noqa: E402
from tests.deploy.onnx_files import CONSTANTS, NODES, network, write_images  # noqa: E402
from tests.deploy.tiny_experiment import REPOSITORY, one_line  # noqa: E402

SHARED = REPOSITORY.parent / "shared/data/models"
RECORD = "quantization.json"
SECONDS, BYTES = 30, 4 << 30  # of a core, and of memory beside what is used before


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return network(tmp_path / "net.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 3)


def quantize(model: Path, out: Path, *options: object, data: object = "random") -> list[object]:
    return ["quantize", model, "--data", data, "--out", out, *options]


def done(*words: object) -> int:
    return main([str(word) for word in words])


# What it writes


@pytest.mark.parametrize("scheme", ["channel int8", "tensor int8", "tensor uint8"])
def test_the_file_and_its_golden_pair_are_what_profile_and_lint_take(tmp_path, classifier, photos, capfd, scheme):
    command = quantize(classifier, tmp_path / "out", "--scheme", scheme, "--mean", 127.5, "--std", 127.5, data=photos)
    assert done(*command) == 0, capfd.readouterr().err
    kind = scheme.split()[1]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    model = tmp_path / "out" / f"net.{kind}.tflite"
    assert written == sorted(
        [f"net.{kind}{end}" for end in (".tflite", ".input.bin", ".expected.bin", ".golden")] + [RECORD]
    )
    assert [end.dtype for end in inspect_model(read(model)).inputs] == [kind.upper()]
    said = capfd.readouterr()
    assert scheme in said.out and "3 examples, rgb, (pixel - [127.5]) / [127.5]" in said.out and not said.err
    assert done(*profile(tmp_path, model)) == 0  # parity is exact
    assert "unchecked" not in capfd.readouterr().out
    assert done("lint", model, "--target", "cpu-xnnpack", "--max-off-nn", 1) == 0


def test_the_record_has_every_tensor_and_is_what_json_prints(tmp_path, classifier, photos, capfd):
    command = quantize(classifier, tmp_path, "--mean", "0,0,0", "--std", "255", "--images", 2, "--json", data=photos)
    assert done(*command) == 0
    record = json.loads(capfd.readouterr().out)
    assert record == json.loads((tmp_path / RECORD).read_text())
    assert (record["scheme"], record["images"], record["outputs"]) == ("channel int8", 2, ["y"])
    by_name = {entry["name"]: entry for entry in record["tensors"]}
    assert by_name["x"]["low"] == 0 and 0.5 < by_name["x"]["high"] <= 1
    assert by_name["y"]["noise_db"] < -20


def test_random_data_is_marked_wherever_it_is_shown(tmp_path, classifier, capfd):
    assert done(*quantize(classifier, tmp_path, "--seed", 3, "--images", 4)) == 0
    said = capfd.readouterr()
    marked = "random noise, no data: 4 examples, seed 3"
    assert marked in said.err and "for a first look only" in said.err and marked in said.out
    assert marked in json.loads((tmp_path / RECORD).read_text())["data"]


def test_the_same_command_writes_the_same_files(tmp_path, classifier, capfd):
    for folder in ("a", "b"):
        assert done(*quantize(classifier, tmp_path / folder, "--images", 4)) == 0
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_arrays_and_a_toml(tmp_path, classifier, photos, capfd):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((4, 3, 12, 16), np.float32))
    assert done(*quantize(classifier, tmp_path / "arrays", data=tmp_path / "data.npz")) == 0
    toml = tmp_path / "images.toml"
    toml.write_text('mean = [127.5]\nstd = [127.5]\nsize = [14, 18]\ncolours = "bgr"\n')
    capfd.readouterr()
    assert done(*quantize(classifier, tmp_path / "a", "--preprocessing", toml, "--colours", "rgb", data=photos)) == 0
    assert "resized to 14x18, rgb, (pixel - [127.5]) / [127.5]" in capfd.readouterr().out


def test_it_is_cut_at_outputs(tmp_path, classifier, capfd):
    assert done(*quantize(classifier, tmp_path, "--outputs", "r,y", "--images", 4)) == 0
    model = inspect_model(read(tmp_path / "net.int8.tflite"))
    assert [end.shape for end in model.outputs] == [(1, 6, 8, 8), (1, 5)]
    capfd.readouterr()
    assert done(*profile(tmp_path, tmp_path / "net.int8.tflite")) == 0
    assert "unchecked" not in capfd.readouterr().out


def test_open_sizes_are_given(tmp_path, fails: Fails):
    model = network(tmp_path / "net.onnx", shape=("batch", 3, "height", "width"))
    fails(MODEL, quantize(model, tmp_path), "net.onnx", "--input-shape x=1x3xNxN")
    assert done(*quantize(model, tmp_path, "--input-shape", "x=1x3x10x14", "--images", 4)) == 0
    assert inspect_model(read(tmp_path / "net.int8.tflite")).inputs[0].shape == (1, 10, 14, 3)


def test_what_the_readme_quantizes(tmp_path, capfd):
    name = "ch_ppocr_mobile_v2.0_cls_infer"
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    assert done(*quantize(path, tmp_path, "--input-shape", "x=1x3x48x192", "--images", 8)) == 0
    capfd.readouterr()
    assert done(*profile(tmp_path, tmp_path / f"{name}.int8.tflite")) == 0
    assert "unchecked" not in capfd.readouterr().out


# What cannot be used


def nothing_written(folder: Path) -> bool:
    return not list(folder.glob("*.tflite")) and not list(folder.glob("*.bin")) and not (folder / RECORD).exists()


def test_every_operator_without_a_float_node_is_named(tmp_path, fails: Fails):
    nodes = (
        NODES[0],
        helper.make_node("LRN", ["c"], ["l"], "norm", size=3),
        helper.make_node("Erf", ["l"], ["e"], "erf"),
        helper.make_node("Det", ["e"], ["y"], "det"),
    )
    model = network(tmp_path / "net.onnx", nodes)
    fails(MODEL, quantize(model, tmp_path), "'norm' (LRN)", "--outputs NAME")
    assert nothing_written(tmp_path)
    assert done(*quantize(model, tmp_path, "--outputs", "c", "--images", 4)) == 0


def test_several_operators_are_named_at_once(tmp_path, fails: Fails):
    nodes = (
        helper.make_node("Erf", ["x"], ["e"], "erf"),
        helper.make_node("LRN", ["x"], ["l"], "norm", size=3),
        helper.make_node("Add", ["e", "l"], ["y"], "add"),
    )
    fails(MODEL, quantize(network(tmp_path / "n.onnx", nodes), tmp_path), "2 nodes", "'erf' (Erf)", "'norm' (LRN)")


def test_control_flow(tmp_path, fails: Fails):
    info = [onnx.ValueInfoProto(name="z")]
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "b", [], info)
    nodes = (helper.make_node("If", ["yes"], ["y"], "if", then_branch=branch, else_branch=branch),)
    model = network(tmp_path / "net.onnx", nodes, yes=np.array(True))
    fails(MODEL, quantize(model, tmp_path), "'if' (If)", "control flow")


def test_int64_that_tflite_has_not(tmp_path, fails: Fails):
    model = network(tmp_path / "in.onnx", kind=TensorProto.INT64)
    fails(MODEL, quantize(model, tmp_path), "input 'x' holds INT64", "floats")
    nodes = (
        helper.make_node("Cast", ["x"], ["i"], "cast", to=TensorProto.INT64),
        helper.make_node("Add", ["i", "one"], ["y"], "add"),
    )
    fails(MODEL, quantize(network(tmp_path / "n.onnx", nodes, one=np.array(1)), tmp_path), "'cast' (Cast)")


def test_external_weights_that_are_missing(tmp_path, classifier, fails: Fails):
    model = onnx.load(classifier)
    onnx.save(model, classifier, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    fails(MODEL, quantize(classifier, tmp_path), "net.onnx", "another file, 'weights.bin'", "put it beside the model")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["w", "v"])
def test_weights_that_are_no_numbers(tmp_path, fails: Fails, name, value):
    wrong = CONSTANTS[name].copy()
    wrong.flat[3] = value
    fails(MODEL, quantize(network(tmp_path / "net.onnx", **{name: wrong}), tmp_path), "NaN or infinity")
    assert nothing_written(tmp_path)


def test_weights_whose_results_overflow(tmp_path, fails: Fails):
    model = network(tmp_path / "net.onnx", w=np.full((8, 3, 3, 3), 3e38, np.float32))
    fails(MODEL, quantize(model, tmp_path), "(Conv) gives NaN or infinity on the calibration data")


def test_outputs_that_are_constant(tmp_path, fails: Fails):
    dead = network(tmp_path / "dead.onnx", v=np.zeros((5, 8), np.float32))
    fails(MODEL, quantize(dead, tmp_path), "output 'y' is constant", "--outputs")
    nodes = (*NODES, helper.make_node("Add", ["v", "v"], ["z"], "constant"))
    fails(MODEL, quantize(network(tmp_path / "c.onnx", nodes, ("y", "z")), tmp_path), "output 'z' is a constant")


def test_sizes_of_another_world(tmp_path, fails: Fails):
    model = network(tmp_path / "net.onnx", shape=(1, 3, 1 << 20, 1 << 20))
    fails(MODEL, quantize(model, tmp_path), "the input has", "give a smaller --input-shape")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--outputs", "none"], ["--outputs none", "no node computes"]),
        (["--input-shape", "z=1x3x12x16"], ["the network's input is 'x'"]),
        (["--input-shape", "x=1x3x13x16"], ["--input-shape x=1x3x13x16 does not fit the file's 1x3x12x16"]),
        (["--images", 0], ["--images 0"]),
        (["--mean", "a", "--std", 1], ["--mean a: write a number"]),
        (["--mean", 1], ["--mean without --std"]),
        (["--size", "12"], ["--size 12: write HxW"]),
        (["--preprocessing", "none.toml"], ["none.toml: no such file"]),
    ],
)
def test_options_that_do_not_fit(tmp_path, classifier, fails: Fails, options, words):
    fails(USAGE, quantize(classifier, tmp_path, *options), *words)
    assert nothing_written(tmp_path)


def test_data_that_does_not_fit(tmp_path, classifier, photos, fails: Fails):
    """All of it: tests/deploy/quantize/test_calibration_data.py."""
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 12, 16, 3), np.float32))
    fails(USAGE, quantize(classifier, tmp_path, data=tmp_path / "data.npz"), "is 4x12x16x3", "reads Nx3x12x16")
    fails(USAGE, quantize(classifier, tmp_path, data=photos), "nothing says how pixels become", "--mean")
    fails(USAGE, quantize(classifier, tmp_path, data="nothing"), "--data nothing", "random")


def test_files_that_are_no_networks(tmp_path, fails: Fails):
    path = tmp_path / "net.pt"
    path.write_bytes(b"PK")
    fails(USAGE, quantize(path, tmp_path), "net.pt", "networks are read from .onnx", "torch.onnx.export")
    fails(USAGE, quantize(tmp_path / "none.onnx", tmp_path), "none.onnx", "No such file")


# Hostile files


@pytest.fixture(scope="module")
def limited() -> Iterator[None]:
    """This process may not grow beyond BYTES more than it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_end_in_one_line_in_bounded_time_and_memory(tmp_path, limited, capfd, data):
    """Bytes that are cut or changed anywhere: a model all the same, or one line."""
    content = bytearray(network(tmp_path / "net.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "net.onnx").write_bytes(bytes(content))
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    code = done(*quantize(tmp_path / "net.onnx", tmp_path / "out", "--images", 2))
    assert sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before < SECONDS
    said = capfd.readouterr().err
    assert code in (0, USAGE, MODEL)
    if code:
        one_line(said)
