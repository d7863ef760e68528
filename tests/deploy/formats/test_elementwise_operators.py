"""Operators on single integers and on pairs of them, broadcast: on both kernel sets and in uint8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.quant.integer_graph import IntTensor, QAdd, QMean, QMul, QSub
from nas.quant.integer_operators import (
    QConstant,
    QHardSwish,
    QLeakyRelu,
    QPRelu,
    QRelu,
    QRelu6,
    QRequantize,
    QSigmoid,
    QTanh,
)
from tests.deploy.exactness import activations, agrees, differences, seeds, tensor

MAP = (4, 8, 16)  # twice each integer
ratios = st.floats(-4, 4).map(lambda exponent: 2**exponent)
RESCALING = {
    "requantize": lambda rng: QRequantize("y", "x"),
    "relu": lambda rng: QRelu("y", "x"),
    "relu6": lambda rng: QRelu6("y", "x"),
    "leaky relu": lambda rng: QLeakyRelu("y", "x", float(np.float32(rng.choice([0.01, 0.1, 0.2, rng.uniform(0, 1)])))),
    "hard swish": lambda rng: QHardSwish("y", "x"),
}


@pytest.mark.parametrize("operator", [QAdd, QSub, QMul])
@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([(4, 5, 6), (1, 1, 6), (1, 1, 1), (4, 5, 1), (1, 5, 6), (4, 1, 6)]), activations)
def test_arithmetic_with_a_constant(operator, seed, shape, activation):
    rng = np.random.default_rng(seed)
    tensors = [tensor("x", (4, 5, 6), rng), tensor("k", shape, rng), tensor("y", (4, 5, 6), rng)]
    constant = QConstant("k", rng.integers(-128, 128, (1, *shape)).astype(np.int8))
    for a, b in (("x", "k"), ("k", "x")):
        agrees(tensors, [constant, operator("y", a, b, activation)], rng)


@pytest.mark.parametrize("operator", [QAdd, QSub, QMul])
@settings(max_examples=20, deadline=None)
@given(seeds, st.booleans(), activations)
def test_arithmetic_of_a_map_with_its_means(operator, seed, keep_dims, activation):
    """As squeeze-and-excite has it: with 1 x 1 maps and with vectors."""
    rng = np.random.default_rng(seed)
    x, y = tensor("x", (4, 5, 6), rng), tensor("y", (4, 5, 6), rng)
    mean = tensor("mean", (1, 1, 6), rng, rank=4 if keep_dims else 2)
    agrees([x, mean, y], [QMean("mean", "x", keep_dims=keep_dims), operator("y", "x", "mean", activation)], rng)


@pytest.mark.parametrize("name", RESCALING)
@settings(max_examples=40, deadline=None)
@given(seeds, ratios)
@example(0, 1.0)
@example(1, 0.5)  # ties
def test_operators_that_rescale(name, seed, ratio):
    rng = np.random.default_rng(seed)
    x = tensor("x", MAP, rng)
    y = IntTensor("y", MAP, float(np.float32(x.scale / ratio)), int(rng.integers(-128, 128)))
    agrees([x, y], [RESCALING[name](rng)], rng)


@settings(max_examples=40, deadline=None)
@given(seeds, ratios, st.booleans())
def test_prelu(seed, ratio, per_channel):
    rng = np.random.default_rng(seed)
    x = tensor("x", MAP, rng)
    y = IntTensor("y", MAP, float(np.float32(x.scale / ratio)), int(rng.integers(-128, 128)))
    slope = rng.integers(-128, 128, MAP[2] if per_channel else 1).astype(np.int8)
    scale = float(np.float32(rng.uniform(0.001, 0.01)))
    agrees([x, y], [QPRelu("y", "x", slope, scale, int(rng.integers(-128, 128)))], rng)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(-9, 1).map(lambda exponent: 2**exponent))
def test_functions_with_one_range(seed, scale):
    rng = np.random.default_rng(seed)
    x = IntTensor("x", MAP, float(np.float32(scale)), int(rng.integers(-128, 128)))
    agrees([x, IntTensor("y", MAP, 1 / 256, -128)], [QSigmoid("y", "x")], rng)
    agrees([x, IntTensor("y", MAP, 1 / 128, 0)], [QTanh("y", "x")], rng)


def test_sigmoid_times_its_input():
    """SiLU, as it is composed."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        tensors = [tensor("x", MAP, rng), IntTensor("gate", MAP, 1 / 256, -128), tensor("y", MAP, rng)]
        agrees(tensors, [QSigmoid("gate", "x"), QMul("y", "x", "gate")], rng)


def test_scales_far_apart_are_within_one_unit():
    """Beyond XNNPACK's range of multipliers, where no calibrated network is."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = tensor("x", MAP, rng)
        y = IntTensor("y", MAP, float(np.float32(x.scale * 400)), int(rng.integers(-128, 128)))
        assert max(differences([x, y], [QRequantize("y", "x")], rng)) <= 1
        agrees([x, y], [QLeakyRelu("y", "x", 0.1)], rng)


@pytest.mark.parametrize("operator", [QAdd, QSub, QMul])
def test_results_between_two_integers(operator):
    """Scales that are powers of two: half of the sums and products are ties."""
    rng = np.random.default_rng(0)
    tensors = [IntTensor(name, MAP, scale, 3) for name, scale in (("x", 0.5), ("k", 0.25), ("y", 1.0))]
    constant = QConstant("k", rng.integers(-8, 8, (1, *MAP)).astype(np.int8))
    agrees(tensors, [constant, operator("y", "x", "k")], rng)
