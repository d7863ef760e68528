"""Inspection: every figure of a model by hand, and the command. Broken files: test_hostile_files.py."""

from __future__ import annotations

import json

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from deploy.cli import main
from deploy.formats.tflite.read import OperatorOptions, read
from deploy.targets.inspected_operator import resize_ratio
from deploy.targets.inspection import Inspection, inspect_model
from tests.deploy.inspected_models import CHANNEL, METADATA, TENSOR, edited, one_operator, written
from tests.deploy.networks import REPOSITORY
from tests.deploy.tiny_experiment import one_line

MACS = {"a": 5 * 5 * 6 * 3 * 3 * 4, "b": 5 * 5 * 6 * 5 * 5, "d": 5 * 5 * 3 * 6}


@pytest.fixture
def inspected(tmp_path):
    def inspect(content: bytes) -> Inspection:
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        return inspect_model(read(path))

    return inspect


# What is in a file


@pytest.mark.parametrize("granularity", [CHANNEL, TENSOR])
def test_every_operator(inspected, granularity):
    model = inspected(written(granularity))
    a, b, c, d, e, f = model.operators
    assert [op.name for op in model.operators] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
        "CONV_2D",
        "RESIZE_BILINEAR",
        "ARG_MAX",
    ]
    assert (a.input_shapes, a.output_shapes) == (((1, 9, 10, 4),), ((1, 5, 5, 6),))
    assert (a.kernel, a.stride, a.dilation, a.activation, a.version) == ((3, 3), (2, 2), (1, 1), "NONE", 3)
    assert (b.kernel, b.stride, b.dilation, b.activation) == ((5, 5), (1, 1), (2, 2), "RELU6")
    assert [op.granularity for op in (a, b, c, d)] == [granularity, granularity, None, granularity]
    assert [op.weight_bits for op in (a, b, c, d)] == [8, 8, None, 8]
    assert [op.weight_bytes for op in (a, b, c, d)] == [216, 150, 0, 18]
    assert [op.macs for op in model.operators] == [MACS["a"], MACS["b"], 0, MACS["d"], 0, 0]
    assert c.input_shapes == ((1, 5, 5, 6), (1, 5, 5, 6)) and c.input_dtypes == ("INT8", "INT8")
    assert (e.resize, e.centers, e.constant_size) == ("2x", "half pixel", True)
    assert (f.input_dtypes, f.output_dtypes, f.at_output, e.at_output) == (("INT8",), ("INT32",), True, False)


def test_totals_and_ends(inspected):
    content = written()
    model = inspected(content)
    assert model.macs == 5400 + 3750 + 450
    assert model.parameters == (216 + 6) + (150 + 6) + (18 + 3)
    assert model.weight_bytes == 216 + 150 + 18 + 4 * (6 + 6 + 3)
    assert model.file_bytes == len(content)
    assert model.operators_by_kind["CONV_2D"] == 2 and sum(model.operators_by_kind.values()) == 6
    (source,), (sink,) = model.inputs, model.outputs
    assert (source.shape, source.dtype, source.scale, source.zero_point) == ((1, 9, 10, 4), "INT8", (0.5,), (3,))
    assert (sink.shape, sink.dtype, sink.scale) == ((1, 10, 10), "INT32", ())
    assert model.hilnas == METADATA and model.signatures == ("serving_default",) and model.subgraphs == 1


X, W = (1, 6, 8, 4), b"constant"


@pytest.mark.parametrize(
    ("name", "inputs", "output", "macs"),
    [
        ("FULLY_CONNECTED", [((3, 10), b""), ((7, 10), W)], (3, 7), 3 * 7 * 10),
        ("TRANSPOSE_CONV", [((4,), W), ((5, 2, 3, 4), W), (X, b"")], (1, 12, 16, 5), 6 * 8 * 4 * 5 * 2 * 3),
        ("CONV_2D", [(X, b""), ((8, 3, 3, 2), W)], (1, 6, 8, 8), 6 * 8 * 8 * 3 * 3 * 2),
        ("CONV_3D", [((1, 4, 6, 8, 2), b""), ((3, 3, 3, 2, 5), W)], (1, 4, 6, 8, 5), 4 * 6 * 8 * 5 * 27 * 2),
        ("BATCH_MATMUL", [((2, 5, 9), b""), ((2, 9, 4), b"")], (2, 5, 4), 2 * 5 * 4 * 9),
        ("MAX_POOL_2D", [(X, b"")], (1, 3, 4, 4), 0),
    ],
)
def test_multiply_accumulates(name, inputs, output, macs):
    model = inspect_model(one_operator(name, inputs, output))
    assert model.macs == macs
    if name == "CONV_2D":
        assert model.operators[0].groups == 2
    if macs and name != "BATCH_MATMUL":
        assert (model.operators[0].weight_bits, model.operators[0].granularity) == (32, None)


def test_a_transposed_matrix_product():
    options = OperatorOptions(adjoint=True)
    model = inspect_model(one_operator("BATCH_MATMUL", [((9, 5), b""), ((9, 4), b"")], (5, 4), options))
    assert model.macs == 5 * 4 * 9


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ((1, 1), (33, 65), "from 1x1"),
        ((6, 8), (6, 8), "1x"),
        ((6, 8), (96, 128), "16x"),
        ((6, 8), (12, 24), "unequal"),
        ((1, 8), (4, 8), "unequal"),
        ((6, 8), (9, 12), "fractional up"),
        ((6, 8), (3, 4), "down"),
        ((0, 8), (3, 4), "empty"),
    ],
)
def test_resize_ratios(before, after, word):
    assert resize_ratio(before, after) == word


def test_align_corners_counts_the_distances_between_samples():
    assert resize_ratio((33, 33), (513, 513), True) == "16x"
    assert resize_ratio((33, 33), (513, 513)) == "fractional up"


def _as_int4(model):
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[0].inputs[1]]
    tensor.type = schema.TensorType.INT4
    model.buffers[tensor.buffer].data = np.zeros(216 // 2, np.uint8)


def test_packed_weights(inspected):
    op = inspected(edited(written(), _as_int4)).operators[0]
    assert (op.weight_bits, op.weight_dtype, op.weight_bytes, op.macs) == (4, "INT4", 108, MACS["a"])


def _as_float16(model):
    graph = model.subgraphs[0]
    op = graph.operators[0]
    weights = graph.tensors[op.inputs[1]]
    stored = schema.TensorT()
    stored.shape, stored.type, stored.name = weights.shape, schema.TensorType.FLOAT16, b"half"
    stored.buffer, weights.buffer = weights.buffer, 0
    model.buffers[stored.buffer].data = np.zeros(216 * 2, np.uint8)
    graph.tensors.append(stored)
    code, restore = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    model.operatorCodes.append(code)
    restore.opcodeIndex = len(model.operatorCodes) - 1
    restore.inputs, restore.outputs = [len(graph.tensors) - 1], [op.inputs[1]]
    graph.operators.insert(0, restore)


def test_weights_that_a_dequantize_restores(inspected):
    model = inspected(edited(written(), _as_float16))
    op = model.operators[1]
    assert (op.name, op.weight_bits, op.weight_bytes) == ("CONV_2D", 16, 432) and model.parameters == 399


def _as_custom(model):
    code = model.operatorCodes[2]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, 32
    code.customCode = "My\x1b[31mOp"


def test_a_custom_operator_and_a_name_that_a_terminal_would_obey(inspected):
    op = inspected(edited(written(), _as_custom)).operators[2]
    assert (op.name, op.custom) == ("CUSTOM", "My?[31mOp")


# The command


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    path = tmp_path / "small.tflite"
    path.write_bytes(written(CHANNEL))
    return str(path)


def test_the_command_for_a_person(model, capsys):
    assert main(["inspect", model, "--target", "imx8mp-vx"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "in  in [1, 9, 10, 4] INT8, scale 0.5 zero point 3"
    (line,) = [line for line in said if line.startswith("   1 DEPTHWISE_CONV_2D v3")]
    assert "1x5x5x6 -> 1x5x5x6 INT8; weights 8 bits per channel, 150 B; kernel 5x5; dilation 2x2; RELU6" in line
    assert "[SH: per-channel weights" in line
    assert "399 parameters, 0.010 MMACs" in said[-1]


def test_the_command_for_a_machine(model, capsys):
    assert main(["inspect", model, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["macs"] == 9600 and record["hilnas"] == METADATA and "placements" not in record
    assert main(["inspect", model, "--json", "--target", "cpu-xnnpack"]) == 0
    placements = json.loads(capsys.readouterr().out)["placements"]
    assert [p["place"] for p in placements] == ["CPU"] * 6
    assert placements[0]["evidence"] == "board"


def _without_weights(model):
    model.subgraphs[0].operators[0].inputs[1] = -1


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 2, ("none.tflite", "give the path")),
        (b"no model at all", 4, ("none.tflite", "not a TFLite file")),
        (written()[:700], 4, ("none.tflite", "corrupt")),
        (edited(written(), _without_weights), 4, ("none.tflite", "operator 0")),
    ],
)
def test_a_file_that_is_missing_or_no_model(tmp_path, capsys, content, code, words):
    path, targets = tmp_path / "none.tflite", str(REPOSITORY / "targets")
    if content is not None:
        path.write_bytes(content)
    for command in (["inspect"], ["lint", "--target", "imx8mp-vx", "--targets", targets]):
        assert main([*command, str(path)]) == code
        one_line(capsys.readouterr().err, *words)
