"""Operators that move integers, and those along any axis, on tensors of any rank: on both kernel sets and in uint8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.quant import reference, simulate
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QFullyConnected,
    QMean,
    QResize,
    QSoftmax,
)
from nas.quant.integer_operators import (
    QConcat,
    QConstant,
    QDepthToSpace,
    QPad,
    QReshape,
    QSlice,
    QSpaceToDepth,
    QTranspose,
)
from tests.deploy.exactness import activations, agrees, like, seeds, tensor
from tests.deploy.networks import interpret

MAP = (4, 6, 8)
axes = st.sampled_from([(-3,), (-2,), (-1,), (-3, -2), (-2, -1), (-3, -1), (-3, -2, -1)])
extents = st.tuples(*[st.integers(1, 9)] * 3)
MOVES: dict[str, list[tuple[tuple[int, ...], int, Operator]]] = {
    "transpose": [((6, 4, 8), 4, QTranspose("a", "x", (-2, -3, -1)))],
    "channels first": [((8, 4, 6), 4, QTranspose("a", "x", (-1, -3, -2)))],
    "pad channels": [((5, 6, 11), 4, QPad("a", "x", (0, 1), (0, 0), (1, 2)))],
    "slice": [((2, 3, 4), 4, QSlice("a", "x", (1, 1, 2), (2, 3, 4), (1, 1, 1)))],
    "slice channels": [((4, 6, 3), 4, QSlice("a", "x", (2,), (3,), (1,)))],
    "strided slice": [((2, 3, 3), 4, QSlice("a", "x", (1, 0, 1), (2, 3, 3), (2, 2, 3)))],
    "strided columns": [((4, 3, 8), 4, QSlice("a", "x", (1, 0), (3, 8), (2, 1)))],
    "depth to space": [((8, 12, 2), 4, QDepthToSpace("a", "x", 2))],
    "space to depth": [((2, 3, 32), 4, QSpaceToDepth("a", "x", 2))],
    "concat": [((8, 6, 8), 4, QConcat("a", ("x", "x"), -3)), ((8, 12, 8), 4, QConcat("b", ("a", "a"), -2))],
    "sequence": [((24, 8), 3, QReshape("a", "x")), ((8, 24), 3, QTranspose("b", "a", (-1, -2)))],
    "vector": [((1, 1, 192), 2, QReshape("a", "x")), ((4, 6, 8), 4, QReshape("b", "a"))],
    "slice of a sequence": [((24, 8), 3, QReshape("a", "x")), ((5, 3), 3, QSlice("b", "a", (2, 1), (5, 3), (3, 2)))],
    "slice of a vector": [((1, 1, 192), 2, QReshape("a", "x")), ((1, 1, 9), 2, QSlice("b", "a", (2,), (9,), (5,)))],
    "shuffle": [
        ((4, 6, 2, 4), 5, QReshape("a", "x")),
        ((4, 6, 4, 2), 5, QTranspose("b", "a", (-4, -3, -1, -2))),
        ((4, 6, 8), 4, QReshape("c", "b")),
    ],
    "crd": [
        ((4, 6, 2, 2, 2), 6, QReshape("a", "x")),
        ((4, 2, 6, 2, 2), 6, QTranspose("b", "a", (-5, -2, -4, -1, -3))),
        ((8, 12, 2), 4, QReshape("c", "b")),
    ],
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name):
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    agrees(
        [x, *(like(x, op.name, shape, rank) for shape, rank, op in MOVES[name])], [op for *_, op in MOVES[name]], rng
    )


def test_constants_are_read_by_every_image():
    """Joined and added: two images at once equal LiteRT's one at a time."""
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    values = rng.integers(-128, 128, (1, *MAP)).astype(np.int8)
    tensors = [x, like(x, "k", MAP), like(x, "joined", (4, 6, 16)), tensor("y", (4, 6, 16), rng)]
    operators = (QConstant("k", values), QConcat("joined", ("k", "x")), QAdd("y", "joined", "joined"))
    graph = IntegerGraph({t.name: t for t in tensors}, operators, "x")
    q = torch.from_numpy(rng.integers(-128, 128, (2, 8, 4, 6))).float()
    for result in (simulate.run(graph, q), reference.run(graph, q)):
        for i in (0, 1):
            answer = interpret(write(graph), simulate.as_nhwc(q[i : i + 1]))
            np.testing.assert_array_equal(answer, simulate.as_nhwc(result[i : i + 1]))


@pytest.mark.parametrize("ends", ["quantized", "float"])
def test_several_outputs(ends):
    """As of a split: in the file's order, read by others or not."""
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    halves = [QSlice(f"{i}/half", "x", (4 * i,), (4,), (1,)) for i in (0, 1)]
    tensors = [x, *(like(x, op.name, (4, 6, 4)) for op in halves), like(x, "turned", (6, 4, 4))]
    operators = (*halves, QTranspose("turned", "0/half", (-2, -3, -1)))
    graph = IntegerGraph({t.name: t for t in tensors}, operators, "x", ("turned", "0/half", "1/half"))
    q = rng.integers(-128, 128, (1, *MAP)).astype(np.int8)
    interpreter = Interpreter(model_content=write(graph, form=Form(ends=ends)))
    runner = interpreter.get_signature_runner()
    given = q if ends == "quantized" else (q.astype(np.float32) - x.zero_point) * np.float32(x.scale)
    answers = runner(x=given)
    wanted = simulate.outputs_of(graph, from_file_order(torch.from_numpy(q)).float())
    slow = reference.outputs_of(graph, from_file_order(torch.from_numpy(q)))
    order = [answers[name] for name in graph.outputs]
    for y, (name, integers) in zip(order, wanted.items(), strict=True):
        assert torch.equal(integers, slow[name].float())
        expected = integers if ends == "quantized" else simulate.dequantize(integers, graph.tensors[name])
        np.testing.assert_allclose(y, to_file_order(expected).numpy(), rtol=1e-6)
    shapes = [tuple(part["shape"]) for part in interpreter.get_output_details()]
    assert shapes == [(1, 6, 4, 4), (1, 4, 6, 4), (1, 4, 6, 4)]


def test_a_reversing_slice_is_refused_by_name():
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    graph = IntegerGraph({"x": x, "y": like(x, "y", MAP)}, (QSlice("y", "x", (7,), (8,), (-1,)),), "x")
    with pytest.raises(QuantizationError, match="'y' reverses an axis"):
        write(graph)


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@settings(max_examples=40, deadline=None)
@given(seeds, extents, st.tuples(st.integers(1, 25), st.integers(1, 25)))
def test_resizes(mode, coordinates, seed, size, after):
    """All exact, but bilinear in uint8 on the reference kernels, which no simulation has."""
    rng = np.random.default_rng(seed)
    x = tensor("x", size, rng)
    agrees([x, like(x, "y", (*after, size[2]))], [QResize("y", "x", mode, coordinates)], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, extents, axes, st.booleans())
def test_means_over_any_axes(seed, size, over, keep_dims):
    rng = np.random.default_rng(seed)
    if keep_dims:
        shape = tuple(1 if axis in over else n for axis, n in zip((-3, -2, -1), size, strict=True))
    else:
        shape = tuple(n for axis, n in zip((-3, -2, -1), size, strict=True) if axis not in over)
    if not shape:
        return  # a number
    rank = len(shape) + 1
    y = tensor("y", (1, 1, *shape) if rank == 2 else shape, rng, rank=rank)
    agrees([tensor("x", size, rng), y], [QMean("y", "x", over, keep_dims)], rng)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 40), st.integers(1, 12), activations)
def test_sequences_times_weights(seed, steps, inputs, outputs, activation):
    """FULLY_CONNECTED of the last axis, then SOFTMAX and ARG_MAX, as in a recognizer of text."""
    rng = np.random.default_rng(seed)
    x, y = tensor("x", (steps, inputs), rng), tensor("y", (steps, outputs), rng)
    softmax = IntTensor("softmax", y.shape, 1 / 256, -128, rank=3)
    classes = IntTensor("classes", (steps, 1), 1.0, 0, "int32", rank=2)
    scale = rng.uniform(0.001, 0.02, rng.choice([outputs, 1])).astype(np.float32)
    weight, bias = rng.integers(-127, 128, (outputs, inputs)), rng.integers(-3000, 3000, outputs)
    dense = QFullyConnected("y", "x", weight.astype(np.int8), scale, bias.astype(np.int32), activation, 8)
    agrees([x, y], [dense], rng)
    agrees([x, y, softmax], [dense, QSoftmax("softmax", "y")], rng)
    agrees([x, y, classes], [dense, QArgMax("classes", "y")], rng)
