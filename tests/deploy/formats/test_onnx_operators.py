"""Every operator of a user's own network as QDQ ONNX: onnxruntime's integers are the simulation's, or one beside them.

Measured (onnxruntime 1.31.1, x86-64 with VNNI): of the operators of 300 random networks, of 31 kinds, none is off by
more than one; those that only move integers, maxima and indices are exact. Elsewhere halves are rounded to either side:
5 % of the elements of an addition or a change of scale, 10 % of an average pooling's, fewer of all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from deploy.formats.onnx import to_onnx
from deploy.formats.onnx.resizing import is_certain
from deploy.formats.tflite.operators import Form
from nas.errors import QuantizationError
from nas.quant import simulate, uint8
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, stepwise
from nas.quant.integer_graph import (
    IntegerGraph,
    IntTensor,
    Operator,
    QAdd,
    QArgMax,
    QAveragePool,
    QConv,
    QMaxPool,
    QMean,
    QResize,
    QSoftmax,
    QTransposedConv,
)
from nas.quant.integer_operators import (
    QConcat,
    QConstant,
    QHardSwish,
    QLeakyRelu,
    QPad,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QSigmoid,
    QSlice,
    QTanh,
    QTranspose,
    Rearranging,
)
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.windows import Window
from tests.deploy.exactness import activations, like, seeds, tensor
from tests.deploy.formats.test_float_layers import KINDS, in_float, layer
from tests.deploy.formats.test_lowered_networks import data, quantized
from tests.deploy.formats.test_moving_operators import MAP, MOVES, axes, extents
from tests.deploy.formats.test_window_operators import kernels, paddings, parameters, sizes, strides
from tests.deploy.onnx_sessions import alone, opinions

pytestmark = pytest.mark.usefixtures("one_thread")
UINT8 = Form("uint8")


def apart(tensors: Sequence[IntTensor], operators: Sequence[Operator], rng: np.random.Generator) -> int:
    """The largest difference to the simulation on random integers, in int8 and in uint8."""
    graph = IntegerGraph({t.name: t for t in tensors}, tuple(operators), tensors[0].name)
    given = rng.integers(-128, 128, tensors[0].file_shape)
    q = from_file_order(torch.from_numpy(given.reshape(1, *tensors[0].shape))).float()
    found = [(opinions(graph, given.astype(np.int8))[0], simulate.run(graph, q))]
    if all(getattr(op, "weight_scale", np.ones(1)).size == 1 for op in operators):
        answer = opinions(graph, (given + 128).astype(np.uint8), UINT8)[0].astype(np.int64)
        shift = 128 if graph.tensors[graph.output].dtype == "int8" else 0
        found.append((answer - shift, uint8.run(graph, q)))
    return max(difference(answer, wanted) for answer, wanted in found)


def difference(answer: np.ndarray, wanted: torch.Tensor) -> int:
    whole = to_file_order(wanted).numpy().reshape(answer.shape).astype(np.int64)
    return int(np.abs(answer.astype(np.int64) - whole).max())


def is_exact(op: Operator) -> bool:
    """Whether it only moves integers, or chooses among them."""
    return isinstance(op, Rearranging | QMaxPool | QArgMax) or (isinstance(op, QResize) and op.mode == "nearest")


# Networks


@pytest.mark.parametrize("unsigned", [False, True])
@settings(max_examples=40, deadline=None)
@given(seeds)
def test_every_operator_of_networks_of_any_operators(unsigned, seed):
    graph, q = quantized(seed, Scheme("tensor") if unsigned else DEFAULT)
    env, apply, shift = {graph.input: q}, uint8.apply if unsigned else simulate.apply, 128 * unsigned
    simulate.simulate(graph.operators, graph.tensors, env, apply)
    for op in graph.operators:
        if isinstance(op, QConstant):
            continue
        one, integers = alone(graph, op, env)
        form = UINT8 if unsigned else Form()
        (answer,) = opinions(one, (integers.astype(np.int16) + shift).astype(form.activations), form)
        moved = shift if graph.tensors[op.name].dtype == "int8" else 0
        assert difference(answer.astype(np.int64) - moved, env[op.name]) <= (0 if is_exact(op) else 1), op


@pytest.mark.parametrize("unsigned", [False, True])
@settings(max_examples=30, deadline=None)
@given(seeds)
def test_networks_of_any_operators_resemble_the_simulation(unsigned, seed):
    """With all their outputs, whose types and shapes are the .tflite file's; early differences grow on the way."""
    graph, q = quantized(seed, Scheme("tensor") if unsigned else DEFAULT)
    form, shift = (UINT8, 128) if unsigned else (Form(), 0)
    integers = (to_file_order(q).numpy().astype(np.int16) + shift).astype(form.activations)
    wanted = simulate.outputs_of(graph, q, uint8.apply if unsigned else simulate.apply)
    for name, answer in zip(graph.outputs, opinions(graph, integers, form), strict=True):
        if graph.tensors[name].dtype == "int8":
            whole = to_file_order(wanted[name]).numpy().reshape(answer.shape).astype(np.int64)
            assert np.mean(np.abs(answer.astype(np.int64) - shift - whole)) <= 1.5, name


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), seeds)
def test_layers_in_float(kind, seed):
    made, x = layer(kind, seed), data(seed)
    assume(float(list(stepwise(made.nodes, {INPUT: x}))[-1][1].abs().max()) > 0)  # a ReLU may leave nothing
    graph = in_float(made, x, Scheme())
    q = simulate.quantize(x[:1], graph.tensors[INPUT])
    model = onnx.load_from_string(to_onnx(graph))
    (weight,) = (held for held in model.graph.initializer if held.name.endswith("/weight"))
    assert weight.data_type == onnx.TensorProto.FLOAT
    (answer,) = opinions(graph, simulate.as_nhwc(q))
    assert difference(answer, simulate.run(graph, q)) <= 1


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_float_ends_and_several_outputs_by_their_names(activations):
    """As of a split: read by others or not, one of them twice; names of ends that inner tensors would have."""
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    halves = [QSlice(f"{i}/half", "x", (4 * i,), (4,), (1,)) for i in (0, 1)]
    classes = IntTensor("classes", (6, 4, 1), 1.0, 0, "int32", rank=3)
    tensors = [x, *(like(x, op.name, (4, 6, 4)) for op in halves), like(x, "turned", (6, 4, 4)), classes]
    operators = (*halves, QTranspose("turned", "0/half", (-2, -3, -1)), QArgMax("classes", "turned"))
    outputs, names = ("turned", "0/half", "turned", "classes"), ("x/scale", "0/half/Slice", "zero", "x")
    graph = IntegerGraph({t.name: t for t in tensors}, operators, "x", outputs, ("image", *names))
    form = Form(activations, ends="float")
    model = onnx.load_from_string(to_onnx(graph, form=form))
    assert [end.name for end in (*model.graph.input, *model.graph.output)] == ["image", *names]
    q = rng.integers(-128, 128, (1, *MAP))
    wanted = simulate.outputs_of(graph, from_file_order(torch.from_numpy(q)).float())
    answers = opinions(graph, (q.astype(np.float32) - x.zero_point) * np.float32(x.scale), form)
    for name, answer in zip(outputs[:3], answers[:3], strict=True):
        real = to_file_order(simulate.dequantize(wanted[name], graph.tensors[name])).numpy()
        np.testing.assert_allclose(answer, real, rtol=1e-6)
    np.testing.assert_array_equal(answers[3], to_file_order(wanted["classes"]).numpy()[..., 0])


# Moving


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_is_exact(name):
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    tensors = [x, *(like(x, op.name, shape, rank) for shape, rank, op in MOVES[name])]
    assert apart(tensors, [op for *_, op in MOVES[name]], rng) == 0


def test_an_axis_backwards_and_a_padding_with_a_value():
    rng = np.random.default_rng(0)
    x = tensor("x", MAP, rng)
    back = QSlice("a", "x", (3, 5, 7), (4, 3, 2), (-1, -2, -3))
    assert apart([x, like(x, "a", back.size)], [back], rng) == 0
    padded = QPad("a", "x", (2, 0), (0, 1), (1, 1), value=-90)
    assert apart([x, like(x, "a", (6, 7, 10))], [padded], rng) == 0


def test_constants_joined_and_added_in_both_orders():
    """Behind a pooling, whose maps have the channels first, and in front of it."""
    rng = np.random.default_rng(0)
    x, scalar = tensor("x", MAP, rng), tensor("s", (1, 1, 1), rng)
    tensors = [x, like(x, "k", MAP), scalar, like(x, "joined", (4, 6, 16)), like(x, "pool", (4, 6, 16))]
    tensors += [tensor("y", (4, 6, 16), rng), tensor("z", (4, 6, 16), rng), like(x, "again", (4, 6, 24))]
    operators = (
        QConstant("k", rng.integers(-128, 128, (1, *MAP)).astype(np.int8)),
        QConstant("s", np.array([77], np.int8)),
        QConcat("joined", ("k", "x")),
        QMaxPool("pool", "joined", 1, 1),
        QAdd("y", "pool", "s"),
        QAdd("z", "s", "y"),
    )
    assert apart(tensors, operators, rng) <= 2
    assert apart(tensors, (*operators[:4], QConcat("again", ("pool", "k"))), rng) == 0


def test_what_is_joined_needs_no_requantizing_before():
    rng = np.random.default_rng(0)
    x, y = tensor("x", MAP, rng), tensor("y", (4, 6, 16), rng)
    operators = (QRequantize("r", "x"), QConcat("y", ("r", "r")))
    tensors = [x, like(y, "r", MAP), y]
    assert apart(tensors, operators, rng) <= 1
    graph = IntegerGraph({t.name: t for t in tensors}, operators, "x")
    kinds = [node.op_type for node in onnx.load_from_string(to_onnx(graph)).graph.node]
    assert kinds == ["DequantizeLinear", "Concat", "QuantizeLinear", "Identity"]
    both = replace(graph, several=("y", "r"))
    assert [answer.shape for answer in opinions(both, np.zeros((1, *MAP), np.int8))] == [(1, 4, 6, 16), (1, *MAP)]


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@settings(max_examples=40, deadline=None)
@given(seeds, extents, st.tuples(st.integers(1, 25), st.integers(1, 25)))
@example(0, (7, 9, 2), (25, 21))
def test_every_resize(mode, coordinates, seed, size, after):
    rng = np.random.default_rng(seed)
    x = tensor("x", size, rng)
    found = apart([x, like(x, "y", (*after, size[2]))], [QResize("y", "x", mode, coordinates)], rng)
    assert found <= (1 if mode == "bilinear" else 0)


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_resizes_between_two_elements_do_not_depend_on_the_runtime(coordinates):
    """All sizes up to 40: those whose rounding would, and some do, are written as the elements that they take."""
    rng = np.random.default_rng(0)
    doubtful = [
        (a, b) for a in range(1, 41) for b in range(1, 41) if not is_certain(coordinates, a, b) and (a + b) % 9 == 0
    ]
    assert is_certain(coordinates, 5, 10) and is_certain(coordinates, 13, 13)
    for size_in, size_out in doubtful:
        x = tensor("x", (size_in, 1, 1), rng)
        assert apart([x, like(x, "y", (size_out, 1, 1))], [QResize("y", "x", "nearest", coordinates)], rng) == 0


# Windows


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, kernels, strides, paddings)
def test_convolutions_of_any_window(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    dilation = (1, 1) if stride != (1, 1) else tuple(int(d) for d in rng.integers(1, 3, 2))
    after = Window(kernel, stride, dilation, padding).places(size)
    assume(min(after) > 0)
    inputs, outputs = (int(n) for n in rng.integers(1, 6, 2))
    values = parameters((groups * outputs, *kernel, inputs), groups * outputs, rng)
    conv = QConv("y", "x", stride=stride, dilation=dilation, depthwise=False, padding=padding, **values)
    tensors = [tensor("x", (*size, groups * inputs), rng), tensor("y", (*after, groups * outputs), rng)]
    assert apart(tensors, [conv], rng) <= 1


@settings(max_examples=40, deadline=None)
@given(seeds, st.tuples(st.integers(1, 6), st.integers(1, 6)), kernels, strides, paddings)
@example(0, (4, 5), (2, 2), (2, 2), (0, -1, 0, -1))  # rows and columns of nothing but the bias
@example(3, (6, 6), (1, 4), (3, 1), "same")  # a kernel below the stride
def test_transposed_convolutions_of_any_window(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    if padding == "same":
        after = tuple(n * s for n, s in zip(size, stride, strict=True))
    else:
        full = [(n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True)]
        after = (full[0] - sum(padding[:2]), full[1] - sum(padding[2:]))
    assume(min(after) > 0)
    inputs, outputs = (int(n) for n in rng.integers(1, 10, 2))
    values = parameters((outputs, *kernel, inputs), outputs, rng)
    conv = QTransposedConv("y", "x", stride=stride, padding=padding, **values)
    assert apart([tensor("x", (*size, inputs), rng), tensor("y", (*after, outputs), rng)], [conv], rng) <= 1


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, kernels, strides, paddings)
@example(0, (8, 9), (1, 2), (1, 1), (1, 3, 2, 0))  # padding beyond the window
def test_maxima_of_any_window(seed, size, kernel, stride, padding):
    rng = np.random.default_rng(seed)
    after = Window(kernel, stride, 1, padding).places(size)
    assume(min(after) > 0)
    x = tensor("x", (*size, 3), rng)
    assert apart([x, like(x, "y", (*after, 3))], [QMaxPool("y", "x", kernel, stride, padding)], rng) == 0


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, kernels, strides, st.sampled_from(["same", (0, 0, 0, 0), (1, 1, 1, 1)]))
def test_averages_of_any_window(seed, size, kernel, stride, padding):
    """Also of paddings that TFLite cannot leave out of the mean."""
    rng = np.random.default_rng(seed)
    after = Window(kernel, stride, 1, padding).places(size)
    assume(min(after) > 0 and (padding != (1, 1, 1, 1) or min(kernel) > 1))
    x = tensor("x", (*size, 3), rng)
    assert apart([x, like(x, "y", (*after, 3))], [QAveragePool("y", "x", kernel, stride, padding)], rng) <= 1


# Numbers


@settings(max_examples=40, deadline=None)
@given(seeds, extents, axes, st.booleans())
def test_means_over_all_axes(seed, size, over, keep_dims):
    rng = np.random.default_rng(seed)
    if keep_dims:
        shape = tuple(1 if axis in over else n for axis, n in zip((-3, -2, -1), size, strict=True))
    else:
        shape = tuple(n for axis, n in zip((-3, -2, -1), size, strict=True) if axis not in over)
    assume(shape)  # a number
    rank = len(shape) + 1
    y = tensor("y", (1, 1, *shape) if rank == 2 else shape, rng, rank=rank)
    assert apart([tensor("x", size, rng), y], [QMean("y", "x", over, keep_dims)], rng) <= 1


@pytest.mark.parametrize("per_channel", [True, False])
@settings(max_examples=12, deadline=None)
@given(seeds, st.floats(-4, 4).map(lambda exponent: 2**exponent))
@example(0, 1.0)
@example(1, 0.5)  # ties
def test_single_elements(per_channel, seed, ratio):
    """In the file's order, and behind a pooling in ONNX's."""
    rng = np.random.default_rng(seed)
    x = tensor("x", MAP, rng)
    pool, y = (
        like(x, "pool", MAP),
        IntTensor("y", MAP, float(np.float32(x.scale / ratio)), int(rng.integers(-128, 128))),
    )
    slope = rng.integers(-128, 128, MAP[2] if per_channel else 1).astype(np.int8)
    prelu = QPRelu("y", "x", slope, float(np.float32(rng.uniform(0.001, 0.01))), int(rng.integers(-128, 128)))
    operators = [QRequantize("y", "x"), QRelu("y", "x"), QRelu6("y", "x"), QHardSwish("y", "x"), prelu]
    for op in (*operators, QLeakyRelu("y", "x", float(np.float32(rng.uniform(0, 1))))):
        assert apart([x, y], [op], rng) <= 1, op
        assert apart([x, pool, y], [QMaxPool("pool", "x", 1, 1), replace(op, x="pool")], rng) <= 1, op
    assert apart([x, IntTensor("y", MAP, 1 / 256, -128)], [QSigmoid("y", "x")], rng) <= 1
    assert apart([x, IntTensor("y", MAP, 1 / 128, 0)], [QTanh("y", "x")], rng) <= 1


def test_a_softmax_of_certainty_saturates():
    """Also of one class, in every order, also behind another operator."""
    rng = np.random.default_rng(0)
    for shape, rank in (((1, 1, 5), 2), ((1, 1, 1), 2), ((3, 4), 3), ((2, 3, 1), 4), ((2, 3, 4), 4)):
        x = IntTensor("x", shape, 4.0, 0, rank=rank)
        y, relu = IntTensor("y", shape, 1 / 256, -128, rank=rank), replace(x, name="r")
        assert apart([x, y], [QSoftmax("y", "x")], rng) <= 1
        assert apart([x, relu, y], [QRelu("r", "x"), QSoftmax("y", "r")], rng) <= 1
        if rank == 4:
            assert apart([x, relu, y], [QMaxPool("r", "x", 1, 1), QSoftmax("y", "r")], rng) <= 1


@settings(max_examples=20, deadline=None)
@given(seeds, st.booleans(), activations)
def test_a_map_and_its_means(seed, keep_dims, activation):
    """As squeeze-and-excite has it: with 1 x 1 maps and with vectors, as map or in a row."""
    rng = np.random.default_rng(seed)
    x, y = tensor("x", (4, 5, 6), rng), tensor("y", (4, 5, 6), rng)
    mean = tensor("mean", (1, 1, 6), rng, rank=4 if keep_dims else 2)
    operators = [QMean("mean", "x", keep_dims=keep_dims), QAdd("y", "mean", "x", activation)]
    assert apart([x, mean, y], operators, rng) <= 1 + int(mean.scale / y.scale + 1)


# What is refused


def test_all_that_cannot_be_written_is_named_at_once():
    rng = np.random.default_rng(0)
    values = {**parameters((4, 3, 3, 3), 4, rng), "weight_scale": np.full(4, 0.01, np.float32), "bits": 4}
    conv = QConv("c", "x", stride=1, dilation=1, depthwise=False, **values)
    pool = QAveragePool("p", "c", 2, 2, (2, 2, 0, 0))
    tensors = [tensor("x", (6, 6, 3), rng), tensor("c", (6, 6, 4), rng), tensor("p", (5, 3, 4), rng)]
    graph = IntegerGraph({t.name: t for t in tensors}, (conv, pool), "x")
    with pytest.raises(QuantizationError) as refused:
        to_onnx(graph, form=UINT8)
    assert str(refused.value) == (
        "not as ONNX: 'c': uint8 weights have one scale; quantize with granularity = \"tensor\"; "
        "'p': its padding is as wide as its window, of which nothing would be left to average"
    )
    with pytest.raises(QuantizationError, match="'c': 4-bit weights are written as int8 here"):
        to_onnx(graph.until("c"), form=Form(few_bits="int4"))
