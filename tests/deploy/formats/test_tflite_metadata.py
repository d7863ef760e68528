"""TFLite Metadata in a file that ships: shown and read by Netron, not by the code that writes it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal

import ai_edge_litert.schema_py_generated as tflite
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from deploy.formats.tflite import metadata
from deploy.formats.tflite.metadata import LABELS, Description, min_runtime
from deploy.formats.tflite.normalization import Normalization, normalization
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import described_again, write
from nas.quant.integer_graph import IntegerGraph
from nas.quant.tails import in_file
from tests.deploy.netron import Shown, in_netron, shown
from tests.deploy.networks import interpret, random_integers, small_segmenter_graph

CLASSES = tuple(f"class {label}" for label in range(11))
DESCRIBED = Description("a name", "What it does.", "1a2b", CLASSES, Normalization((128.0,), (128.0,)))


def entries_of(content: bytes) -> dict[str, bytes]:
    model = tflite.Model.GetRootAs(content, 0)
    listed = [model.Metadata(i) for i in range(model.MetadataLength())]
    return {entry.Name().decode(): bytes(model.Buffers(entry.Buffer()).DataAsNumpy()) for entry in listed}


@pytest.fixture(scope="module")
def graph() -> IntegerGraph:
    return small_segmenter_graph()


@pytest.fixture(scope="module")
def found(graph: IntegerGraph, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return shown(write(graph, {}, described=DESCRIBED), tmp_path_factory.mktemp("served"))


@in_netron
def test_netron_shows_it(found: Shown) -> None:
    assert (found.model["name"], found.model["version"]) == ("a name", "1a2b")
    assert "What it does." in found.model["description"] and found.model["runtime"].startswith("2.2.0")
    source, sink = found.graph["input"], found.graph["classes"]
    assert "Image(RGB)" in source and "resized bilinearly" in source and "The class of each pixel." in sink
    assert found.graph["signature"] == "serving_default"


@in_netron
def test_its_reader_of_the_schema_has_normalization_and_labels(found: Shown) -> None:
    read = found.metadata
    assert [read[key] for key in ("name", "description", "version", "min_parser_version")] == [
        "a name", "What it does.", "1a2b", "1.0.0",
    ]  # fmt: skip
    (source,) = read["subgraph_metadata"][0]["input_tensor_metadata"]
    (sink,) = read["subgraph_metadata"][0]["output_tensor_metadata"]
    assert source["content"]["content_properties"] == {"color_space": 1, "default_size": None}
    assert source["process_units"] == [{"options": {"mean": [128.0], "std": [128.0]}}]
    (labels,) = sink["associated_files"]
    assert (labels["name"], labels["type"]) == (LABELS, 3)  # TENSOR_VALUE_LABELS: the output is the class map


@in_netron
def test_of_logits_the_last_axis_is_labelled(graph: IntegerGraph, tmp_path: Path) -> None:
    logits, _ = in_file(graph, "logits")
    read = shown(write(logits, {}, described=DESCRIBED), tmp_path).metadata
    (sink,) = read["subgraph_metadata"][0]["output_tensor_metadata"]
    assert (sink["name"], sink["associated_files"][0]["type"]) == ("scores", 2)  # TENSOR_AXIS_LABELS


def test_the_labels_are_an_uncompressed_zip_behind_the_model(graph: IntegerGraph) -> None:
    content = write(graph, {}, described=DESCRIBED)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == (LABELS, zipfile.ZIP_STORED)
        assert archive.read(LABELS).decode().split("\n") == [*CLASSES, ""]
    assert content == write(graph, {}, described=DESCRIBED)


def test_what_the_runtime_runs_is_the_same(graph: IntegerGraph) -> None:
    plain, described = write(graph, {"subnet": "x"}), write(graph, {"subnet": "x"}, described=DESCRIBED)
    q = random_integers(graph, 0)
    given = np.ascontiguousarray(q.permute(0, 2, 3, 1).to(torch.int8).numpy())
    assert np.array_equal(interpret(described, given), interpret(plain, given))
    read = parse(described, "m")
    assert normalization(read) == DESCRIBED.normalization
    assert {name: bytes(data) for name, data in read.metadata.items() if name == "hilnas"} == entries_of(plain)


@pytest.mark.parametrize("form", [Form(), Form(activations="uint8"), Form(ends="float")])
@pytest.mark.parametrize("before", [None, DESCRIBED])
def test_what_is_described_again_is_what_would_have_been_written(
    graph: IntegerGraph, form: Form, before: Description | None
) -> None:
    other = Description("boxes", "No classes.", "2", (), Normalization((1.0,), (2.0,)), "bgr")
    for described in (DESCRIBED, other):
        wanted = write(graph, {"model": "m", "n": 1}, form, described)
        assert described_again(write(graph, {"model": "x"}, form, before), {"model": "m", "n": 1}, described) == wanted


@in_netron
def test_outputs_that_are_no_classes_have_their_names(graph: IntegerGraph, tmp_path: Path) -> None:
    content = write(graph, {}, described=Description("n", "d", "1", (), None))
    (subgraph,) = shown(content, tmp_path).metadata["subgraph_metadata"]
    (source,), (sink,) = subgraph["input_tensor_metadata"], subgraph["output_tensor_metadata"]
    assert (source["name"], sink["name"]) == (graph.input, graph.output)
    assert not source["content"] and not source["process_units"] and not sink["associated_files"]
    assert normalization(parse(content, "m")) is None and not zipfile.is_zipfile(io.BytesIO(content))


@in_netron
@pytest.mark.parametrize(("colours", "space"), [("rgb", 1), ("grey", 2), ("bgr", 0)])
def test_the_colours_of_an_image(
    graph: IntegerGraph, tmp_path: Path, colours: Literal["rgb", "bgr", "grey"], space: int
) -> None:
    described = Description("n", "d", "1", (), Normalization((0.0,), (255.0,)), colours)
    (subgraph,) = shown(write(graph, {}, described=described), tmp_path).metadata["subgraph_metadata"]
    assert subgraph["input_tensor_metadata"][0]["content"]["content_properties"]["color_space"] == space


def test_the_signature_is_servings_default(graph: IntegerGraph) -> None:
    interpreter = Interpreter(model_content=write(graph, {}, described=DESCRIBED))
    ((name, ends),) = interpreter.get_signature_list().items()
    assert name == "serving_default" and ends["inputs"] == [graph.input] and len(ends["outputs"]) == 1
    runner = interpreter.get_signature_runner()
    given = np.zeros(runner.get_input_details()[graph.input]["shape"], np.int8)
    assert runner(**{graph.input: given})[ends["outputs"][0]].dtype == np.int32


@pytest.mark.parametrize(
    ("operators", "version"),
    [((), b"1.14.0"), (((metadata.Codes.ADD, 2),), b"1.14.0"), (((metadata.Codes.CONV_2D, 7), (0, 2)), b"2.11.0")],
)
def test_the_oldest_runtime(operators: tuple[tuple[int, int], ...], version: bytes) -> None:
    assert min_runtime(operators) == version.ljust(16, b"\0")


@pytest.mark.parametrize(("form", "version"), [(Form(), "2.2.0"), (Form(activations="uint8"), "2.2.0")])
def test_of_a_file(graph: IntegerGraph, form: Form, version: str) -> None:
    """RESIZE_BILINEAR with half-pixel centres came last of all that it has."""
    entry = entries_of(write(graph, {}, form, DESCRIBED))["min_runtime_version"]
    assert entry == version.encode().ljust(16, b"\0")
