"""Files that somebody broke: refused in one line, soon, and without the memory that they ask for."""

from __future__ import annotations

import dataclasses
import json
import time
import tracemalloc

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import lint, load_target
from hil.errors import ModelError
from tests.deploy.inspected_models import CHANNEL, edited, one_operator, written

SECONDS_A_CASE = 2.0  # a healthy file of this size takes two milliseconds
TARGET = load_target(None, "imx8mp-vx")


def _wrong(content: bytes, path, *words: str) -> None:
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(ModelError) as caught:
        inspect_model(read(path))
    assert time.process_time() - started < SECONDS_A_CASE
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def _graph(change):
    return lambda model: change(model.subgraphs[0])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_graph(lambda g: g.operators[0].inputs.__setitem__(0, -2)), "not there"),
        (_graph(lambda g: g.operators[0].inputs.__setitem__(0, 99)), "not there"),
        (_graph(lambda g: g.operators[0].outputs.__setitem__(0, -1)), "not there"),
        (_graph(lambda g: g.operators[0].inputs.__setitem__(0, g.operators[0].outputs[0])), "later operator"),
        (_graph(lambda g: g.operators[0].inputs.__setitem__(0, g.operators[3].outputs[0])), "later operator"),
        (_graph(lambda g: g.operators[2].outputs.__setitem__(0, g.operators[0].outputs[0])), "another one writes"),
        (_graph(lambda g: g.outputs.__setitem__(0, 77)), "no inputs or outputs"),
        (_graph(lambda g: g.tensors[0].shape.__setitem__(0, -1)), "shape"),
        (_graph(lambda g: setattr(g.tensors[0], "shape", [1] * 99)), "shape"),
        (_graph(lambda g: setattr(g.tensors[0], "buffer", 1000)), "buffer"),
        (_graph(lambda g: g.tensors[0].quantization.scale.__setitem__(0, np.nan)), "scales"),
        (_graph(lambda g: setattr(g.operators[0].builtinOptions, "strideH", 0)), "StrideH"),
        (_graph(lambda g: setattr(g.operators[0], "opcodeIndex", 50)), "IndexError"),
        (_graph(lambda g: g.operators[0].inputs.__setitem__(1, -1)), "CONV_2D"),
        (lambda m: setattr(m, "version", 4), "schema version"),
        (lambda m: setattr(m, "subgraphs", []), "subgraphs"),
        (lambda m: setattr(m.buffers[-1], "data", np.frombuffer(b"{", np.uint8)), "hilnas"),
        (lambda m: setattr(m.buffers[-1], "data", np.frombuffer(b'{"a":' * 90 + b"1" + b"}" * 90, np.uint8)), "levels"),
    ],
)
def test_a_model_that_contradicts_itself(tmp_path, change, word):
    _wrong(edited(written(), change), tmp_path / "m.tflite", word)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 2**24])
@pytest.mark.parametrize("field", ["shape", "name", "scale", "data", "inputs", "tensors", "operators", "buffers"])
def test_a_vector_longer_than_the_file(tmp_path, field, length):
    content = bytearray(written())
    model = schema.Model.GetRootAs(bytes(content), 0)
    graph = model.Subgraphs(0)
    table, slot = {
        "shape": (graph.Tensors(0), 4),
        "name": (graph.Tensors(0), 10),
        "scale": (graph.Tensors(0).Quantization(), 8),
        "data": (model.Buffers(1), 4),
        "inputs": (graph.Operators(0), 6),
        "tensors": (graph, 4),
        "operators": (graph, 10),
        "buffers": (model, 12),
    }[field]
    at = table._tab.Vector(table._tab.Offset(slot)) - 4
    content[at : at + 4] = length.to_bytes(4, "little")
    path = tmp_path / "m.tflite"
    if field == "name":  # it ends with the file
        path.write_bytes(content)
        assert read(path).operators
    else:
        _wrong(bytes(content), path, "corrupt")


@pytest.mark.parametrize(("length", "times"), [(100_000, 5_000), (0, 50_000)])
def test_bytes_that_are_pointed_to_again_and_again(tmp_path, length, times):
    """Small files that would unfold into 500 million numbers, and into 50 000 operators out of one."""
    builder = flatbuffers.Builder(1 << 20)
    inputs = builder.CreateNumpyVector(np.zeros(length, np.int32))
    schema.OperatorStart(builder)
    schema.OperatorAddInputs(builder, inputs)
    operator = schema.OperatorEnd(builder)
    schema.SubGraphStartOperatorsVector(builder, times)
    for _ in range(times):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.OperatorCodeStart(builder)
    code = schema.OperatorCodeEnd(builder)
    schema.ModelStartOperatorCodesVector(builder, 1)
    builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    content = bytes(builder.Output())
    tracemalloc.start()
    try:
        _wrong(content, tmp_path / "m.tflite", "more than the file has bytes")
        assert tracemalloc.get_traced_memory()[1] < 20 * len(content)  # 500 million take 4 GB
    finally:
        tracemalloc.stop()


def test_a_layer_without_an_input():
    model = one_operator("FULLY_CONNECTED", [((3, 10), b""), ((7, 10), b"constant")], (3, 7))
    operator = dataclasses.replace(model.operators[0], inputs=(-1, 1))
    with pytest.raises(ModelError, match=r"operator 0 \(FULLY_CONNECTED\) has other tensors than its kind"):
        inspect_model(dataclasses.replace(model, operators=(operator,)))


def _try(content: bytes, path) -> None:
    """Whatever the bytes: read, inspected and placed, or one line; and soon."""
    path.write_bytes(content)
    started = time.process_time()
    try:
        model = inspect_model(read(path))
        json.dumps(model.to_json())
        json.dumps(lint(model, TARGET, 0.0).to_json())
    except ModelError as error:
        assert "\n" not in str(error)
    assert time.process_time() - started < SECONDS_A_CASE


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WHOLE = written(CHANNEL)
HOSTILE = st.sampled_from([0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)


@FUZZ
@given(length=st.integers(0, len(WHOLE)))
def test_truncations(tmp_path, length):
    _try(WHOLE[:length] if length >= 8 else b"1234TFL3"[:8], tmp_path / "m.tflite")


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(8, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_changed_bytes(tmp_path, changes):
    content = bytearray(WHOLE)
    for at, value in changes:
        content[at] = value
    _try(bytes(content), tmp_path / "m.tflite")


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(2, len(WHOLE) // 4 - 1), HOSTILE), min_size=1, max_size=4))
def test_changed_words(tmp_path, changes):
    content = bytearray(WHOLE)
    for at, value in changes:
        content[4 * at : 4 * at + 4] = value.to_bytes(4, "little")
    _try(bytes(content), tmp_path / "m.tflite")


@FUZZ
@given(root=st.integers(0, 2**16), rest=st.binary(max_size=512))
def test_random_bytes_after_the_identifier(tmp_path, root, rest):
    _try(root.to_bytes(4, "little") + b"TFL3" + rest, tmp_path / "m.tflite")
