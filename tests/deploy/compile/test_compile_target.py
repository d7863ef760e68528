"""Whole models held to a target before they are written: resizes made safe, errors named, widths read back."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from deploy.compile.artifact import Artifact, lint_written, model_metadata, quantize, read_back, save_model
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import load_target
from hil.errors import ModelError
from nas.errors import QuantizationError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Head, student
from nas.nsr import evaluate_all
from nas.quant.integer_graph import IntegerGraph, IntTensor, QResize
from nas.quant.safe_resize import split_resizes
from nas.quant.scheme import Scheme
from tests.deploy.inspected_models import CHANNEL, TENSOR, edited, graph, written
from tests.deploy.networks import block_data, interpret, simulated, space, trained_like

NPU, CPU = (load_target(None, name) for name in ("imx8mp-vx", "cpu-xnnpack"))
OS16 = space("table1-os16")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    architecture = OS16.sample(random.Random(0))
    model = student(OS16, architecture, 5, Head(16, (2,))).eval()
    images = (torch.randint(0, 256, (2, 3, 64, 96)).float() - 128) / 128
    recalibrate(model, images)
    return model, architecture, images


def compiled(network, factors=(), size=(64, 96)) -> IntegerGraph:
    model, architecture, images = network
    return quantize(model, [images], size, architecture=architecture, scheme=Scheme("tensor"), resize_factors=factors)


# Resizes


def test_a_network_of_stride_16_is_wrong_on_the_npu_until_its_resize_is_split(network, tmp_path):
    _, _, images = network
    whole = compiled(network)
    with pytest.raises(ModelError) as caught:
        save_model(whole, images[:1], Artifact.at(tmp_path, "whole"), {}, NPU)
    words = ("whole on imx8mp-vx", "RESIZE_BILINEAR of 16x 'upsampled'", "gives wrong outputs", "159 to 241 LSB")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not list(tmp_path.iterdir())

    split = compiled(network, NPU.safe_resize_factors)
    artifact = save_model(split, images[:1], Artifact.at(tmp_path, "split"), {}, NPU)
    found = inspect_model(parse(artifact.model.read_bytes(), "split"))
    assert [op.resize for op in found.operators if op.resize] == ["from 1x1", "4x", "4x"]
    answer = interpret(artifact.model.read_bytes(), np.fromfile(artifact.input, np.int8).reshape(1, 64, 96, 3))
    assert answer.tobytes() == artifact.expected.read_bytes()


def test_a_target_without_safe_factors_changes_nothing(network):
    assert not CPU.safe_resize_factors
    assert write(compiled(network, CPU.safe_resize_factors)) == write(compiled(network))


def test_an_input_that_the_stride_does_not_divide_is_refused(network):
    with pytest.raises(QuantizationError, match=r"'upsampled' resizes 4x6 to 60x96, 15 times the height, 16 times"):
        compiled(network, NPU.safe_resize_factors, (60, 96))


def test_only_ratios_that_are_known_right_are_safe():
    """Every safe factor has a rule that calls it right, and only those."""
    (rule,) = [r for r in NPU.rules if r.resize and "2x" in r.resize]
    assert not rule.wrong and {f"{f}x" for f in NPU.safe_resize_factors} | {"1x"} == set(rule.resize or ())


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    factor=st.sampled_from([2, 3, 4, 6, 8, 9, 12, 16, 24, 32]),
    seed=st.integers(0, 2**31),
)
def test_split_resizes_answer_as_simulated(size, factor, seed):
    height, width = size
    tensors = {
        "input": IntTensor("input", (height, width, 3), 0.5, -3),
        "up": IntTensor("up", (height * factor, width * factor, 3), 0.5, -3),
    }
    one = IntegerGraph(tensors, (QResize("up", "input"),), "input")
    split = split_resizes(one, NPU.safe_resize_factors)
    q = np.random.default_rng(seed).integers(-128, 128, (1, height, width, 3)).astype(np.int8)
    images = torch.from_numpy(q.astype(np.float32)).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(interpret(write(split), q), simulated(split, images))
    lint_written(write(split), "split", NPU)


# What lint says of what was written


def test_a_model_that_holds_is_judged_by_the_caller():
    assert lint_written(written(TENSOR), "m", NPU).off_share == 0
    assert lint_written(written(CHANNEL), "m", NPU).off_share == 1.0  # slow is no error


def test_an_operator_that_cannot_run_is_named():
    def custom(model):
        code = model.operatorCodes[model.subgraphs[0].operators[2].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, "Mine"

    with pytest.raises(ModelError, match=r"m on imx8mp-vx: operator 2, Mine 'c', cannot run: .*no kernel"):
        lint_written(edited(written(TENSOR), custom), "m", NPU)


# Widths


@pytest.fixture(scope="module")
def few_bits() -> IntegerGraph:
    torch.manual_seed(0)
    demo = space("demo")
    supernet, data = trained_like(SuperBlock(demo, 4), 0), block_data(demo, 4, (6, 6))
    return next(evaluate_all(supernet, data, 4, Scheme(few_bits="symmetric"))).graph


def test_three_figures_of_few_bits(few_bits, tmp_path):
    """Asked for 4 bits: an int8 container holds 8, INT4 holds 4, and both are multiplied in 8."""
    metadata = model_metadata(few_bits, "b4", "0123")
    assert metadata == {"subnet": "b4", "requested_bits": [4], "size_bits": few_bits.size_bits, "key": "0123"}
    for form, stored in ((Form(), 8), (Form(few_bits="int4"), 4)):
        path = tmp_path / f"{stored}.tflite"
        path.write_bytes(write(few_bits, metadata, form))
        found = read_back(path, CPU)
        assert (found.requested_bits, found.stored_bits, found.executed_bits) == ((4,), (stored,), (8,))


def test_inspect_says_the_three_figures(few_bits, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(write(few_bits, model_metadata(few_bits, "b4", "0123"), Form(few_bits="int4")))
    assert main(["inspect", str(path)]) == 0
    assert "bits of the weights: requested 4, stored 4, executed 8\n" in capsys.readouterr().out
    path.write_bytes(write(few_bits))
    assert main(["inspect", str(path)]) == 0
    assert "bits of the weights: requested unknown, stored 8, executed 8\n" in capsys.readouterr().out


def test_int4_weights_multiply_as_int8_ones(few_bits):
    """What `executed_bits` rests on: the builtin kernels answer alike, so the widths of their products are alike."""
    shape = few_bits.tensors[few_bits.input].shape
    q = np.random.default_rng(0).integers(-128, 128, (1, *shape)).astype(np.int8)
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    packed, contained = (interpret(write(few_bits, {}, form), q, kernels) for form in (Form(few_bits="int4"), Form()))
    np.testing.assert_array_equal(packed, contained)


def test_a_whole_model_says_every_width(network, tmp_path):
    graph = compiled(network)
    mixed = dataclasses.replace(graph.operators[3], bits=4)
    operators = (*graph.operators[:3], mixed, *graph.operators[4:])
    graph = dataclasses.replace(graph, operators=operators)
    artifact = save_model(graph, network[2][:1], Artifact.at(tmp_path, "m"), model_metadata(graph, "s", "k"), CPU)
    found = read_back(artifact.model, CPU)
    assert (found.requested_bits, found.stored_bits, found.executed_bits) == ((4, 8), (8,), (8,))
    assert found.placement is not None and found.placement.target == "cpu-xnnpack"
    assert 0 <= found.placement.off_share < 1 and read_back(artifact.model, None).placement is None


@pytest.mark.parametrize("said", [None, "8", [], ["8"], [True], [8.0], True])
def test_widths_that_nobody_asked_for(said):
    found = inspect_model(parse(write(graph(TENSOR), {} if said is None else {"requested_bits": said}), "m"))
    assert found.requested_bits == (() if said == [] else None) and found.stored_bits == (8,)


@pytest.mark.parametrize(
    ("weights", "inputs", "executed"),
    [
        ("INT8", "INT8", 8),
        ("INT4", "INT8", 8),
        ("INT8", "INT16", 16),
        ("INT8", "FLOAT32", 8),
        ("FLOAT32", "FLOAT32", 32),
    ],
)
def test_executed_widths_follow_from_the_types(weights, inputs, executed):
    model = parse(written(TENSOR), "m")
    op = model.operators[0]
    tensors = list(model.tensors)
    for index, dtype in ((op.inputs[1], weights), (op.inputs[0], inputs)):
        tensors[index] = dataclasses.replace(tensors[index], dtype=dtype)
    found = inspect_model(dataclasses.replace(model, tensors=tuple(tensors))).operators[0]
    assert found.executed_bits == executed


def test_float_weights_behind_a_dequantize_execute_as_floats():
    """Stored in 8 bits, dequantized by an operator of the file, multiplied in 32."""
    model = parse(written(TENSOR), "m")
    conv = model.operators[0]
    real = dataclasses.replace(model.tensors[conv.inputs[1]], name="w", dtype="FLOAT32", data=memoryview(b""))
    index = len(model.tensors)
    expand = dataclasses.replace(conv, name="DEQUANTIZE", inputs=(conv.inputs[1],), outputs=(index,))
    read = dataclasses.replace(conv, inputs=(conv.inputs[0], index, *conv.inputs[2:]))
    operators = (expand, read, *model.operators[1:])
    found = inspect_model(dataclasses.replace(model, tensors=(*model.tensors, real), operators=operators)).operators[1]
    assert (found.weight_bits, found.executed_bits) == (8, 32)
