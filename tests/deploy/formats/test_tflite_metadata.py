"""TFLite Metadata in a file that ships: read by the published schema, not by the code that writes it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

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
from tests.deploy.networks import interpret, random_integers, small_segmenter_graph

CLASSES = tuple(f"class {label}" for label in range(11))
DESCRIBED = Description("a name", "What it does.", "1a2b", CLASSES, Normalization((128.0,), (128.0,)))

TEXT, FLOATS, BYTE = "string", "[float]", "byte"
SCHEMA: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ModelMetadata": (
        ("name", TEXT), ("description", TEXT), ("version", TEXT), ("subgraph_metadata", "[SubGraphMetadata]"),
        ("author", TEXT), ("license", TEXT), ("associated_files", "[AssociatedFile]"), ("min_parser_version", TEXT),
    ),
    "SubGraphMetadata": (
        ("name", TEXT), ("description", TEXT), ("input_tensor_metadata", "[TensorMetadata]"),
        ("output_tensor_metadata", "[TensorMetadata]"), ("associated_files", "[AssociatedFile]"),
    ),
    "TensorMetadata": (
        ("name", TEXT), ("description", TEXT), ("dimension_names", "[string]"), ("content", "Content"),
        ("process_units", "[ProcessUnit]"), ("stats", "Stats"), ("associated_files", "[AssociatedFile]"),
    ),
    "Content": (("content_properties_type", BYTE), ("content_properties", "ImageProperties"), ("range", "ValueRange")),
    "ImageProperties": (("color_space", BYTE), ("default_size", "ImageSize")),
    "ProcessUnit": (("options_type", BYTE), ("options", "NormalizationOptions")),
    "NormalizationOptions": (("mean", FLOATS), ("std", FLOATS)),
    "AssociatedFile": (("name", TEXT), ("description", TEXT), ("type", BYTE), ("locale", TEXT)),
}  # fmt: skip
"""The tables of metadata_schema.fbs (tflite-support), their fields in the schema's order; a union is two of them."""


def read_table(data: bytes, at: int, name: str) -> dict[str, Any]:
    """A flatbuffer's table by its vtable, as the format's documentation has it."""
    vtable = at - struct.unpack_from("<i", data, at)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    found = {}
    for number, (field, kind) in enumerate(SCHEMA[name]):
        slot = 4 + 2 * number
        offset = struct.unpack_from("<H", data, vtable + slot)[0] if slot < size else 0
        if offset:
            found[field] = read_value(data, at + offset, kind)
    return found


def read_value(data: bytes, at: int, kind: str) -> Any:
    if kind == BYTE:
        return data[at]
    at += struct.unpack_from("<I", data, at)[0]
    if kind in SCHEMA:
        return read_table(data, at, kind)
    length = struct.unpack_from("<I", data, at)[0]
    if kind == TEXT:
        return data[at + 4 : at + 4 + length].decode()
    if kind == FLOATS:
        return list(struct.unpack_from(f"<{length}f", data, at + 4))
    return [read_value(data, at + 4 + 4 * i, kind[1:-1]) for i in range(length)]


def entries_of(content: bytes) -> dict[str, bytes]:
    model = tflite.Model.GetRootAs(content, 0)
    listed = [model.Metadata(i) for i in range(model.MetadataLength())]
    return {entry.Name().decode(): bytes(model.Buffers(entry.Buffer()).DataAsNumpy()) for entry in listed}


@pytest.fixture(scope="module")
def graph() -> IntegerGraph:
    return small_segmenter_graph()


def test_the_ecosystems_schema_reads_it(graph: IntegerGraph) -> None:
    data = entries_of(write(graph, {}, described=DESCRIBED))["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    found = read_table(data, struct.unpack_from("<I", data)[0], "ModelMetadata")
    (subgraph,) = found.pop("subgraph_metadata")
    assert found == {
        "name": "a name", "description": "What it does.", "version": "1a2b", "min_parser_version": "1.0.0",
    }  # fmt: skip
    (source,), (sink,) = subgraph["input_tensor_metadata"], subgraph["output_tensor_metadata"]
    assert source["content"] == {"content_properties_type": 2, "content_properties": {"color_space": 1}}
    assert source["process_units"] == [{"options_type": 1, "options": {"mean": [128.0], "std": [128.0]}}]
    (labels,) = sink["associated_files"]
    assert (labels["name"], labels["type"]) == (LABELS, 3)  # TENSOR_VALUE_LABELS: the output is the class map


def test_of_logits_the_last_axis_is_labelled(graph: IntegerGraph) -> None:
    logits, _ = in_file(graph, "logits")
    data = entries_of(write(logits, {}, described=DESCRIBED))["TFLITE_METADATA"]
    found = read_table(data, struct.unpack_from("<I", data)[0], "ModelMetadata")
    (sink,) = found["subgraph_metadata"][0]["output_tensor_metadata"]
    assert (sink["name"], sink["associated_files"][0]["type"]) == ("scores", 2)  # TENSOR_AXIS_LABELS


def test_a_reader_of_the_ecosystem_where_one_is_installed(graph: IntegerGraph) -> None:
    schema = pytest.importorskip("tflite_support.metadata_schema_py_generated")
    data = entries_of(write(graph, {}, described=DESCRIBED))["TFLITE_METADATA"]
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAsModelMetadata(data, 0))
    (subgraph,) = found.subgraphMetadata
    (unit,) = subgraph.inputTensorMetadata[0].processUnits
    assert found.name == b"a name" and list(unit.options.mean) == list(unit.options.std) == [128.0]
    assert subgraph.outputTensorMetadata[0].associatedFiles[0].name == LABELS.encode()


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


def test_outputs_that_are_no_classes_have_their_names(graph: IntegerGraph) -> None:
    described = Description("n", "d", "1", (), None)
    content = write(graph, {}, described=described)
    found = entries_of(content)["TFLITE_METADATA"]
    (subgraph,) = read_table(found, struct.unpack_from("<I", found)[0], "ModelMetadata")["subgraph_metadata"]
    assert subgraph["input_tensor_metadata"] == [{"name": graph.input}]
    assert subgraph["output_tensor_metadata"] == [{"name": graph.output}]
    assert normalization(parse(content, "m")) is None and not zipfile.is_zipfile(io.BytesIO(content))


@pytest.mark.parametrize(("colours", "space"), [("rgb", {"color_space": 1}), ("grey", {"color_space": 2}), ("bgr", {})])
def test_the_colours_of_an_image(graph: IntegerGraph, colours: Any, space: dict[str, int]) -> None:
    described = Description("n", "d", "1", (), Normalization((0.0,), (255.0,)), colours)
    found = entries_of(write(graph, {}, described=described))["TFLITE_METADATA"]
    (subgraph,) = read_table(found, struct.unpack_from("<I", found)[0], "ModelMetadata")["subgraph_metadata"]
    assert subgraph["input_tensor_metadata"][0]["content"]["content_properties"] == space


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
