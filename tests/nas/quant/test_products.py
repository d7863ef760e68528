"""1 x 1 convolutions as int8 products: the float simulation's numbers, bit for bit, wherever they run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.quant import products, simulate
from nas.quant.integer_graph import IntTensor, QAdd, QConv, QFullyConnected, QMean, QResize

CPU = torch.device("cpu")
X = IntTensor("x", (1, 1, 1), 0.5, 3)
sides = st.integers(1, 9)


def conv(shape: tuple[int, ...], *, seed: int = 0, stride: int = 1, depthwise: bool = False) -> QConv:
    """Random weights of TFLite's `shape`, extremes among them, and biases of any size that a product may have."""
    rng = np.random.default_rng(seed)
    weight = rng.choice(np.array([-127, 127, *range(-20, 21)], np.int8), shape)
    outputs = shape[3] if depthwise else shape[0]
    bias = rng.integers(-(2 ** rng.integers(1, 31)), 2**30, outputs, dtype=np.int32)
    scale = rng.uniform(1e-4, 1e-2, outputs).astype(np.float32)
    return QConv("y", "x", weight, scale, bias, stride, 1, depthwise, "relu6", 8)


class OneDevice(TorchDispatchMode):
    """As a GPU: no operator but a copy takes tensors of two devices, unless one is a plain number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        assert len({t.device for t in tensors}) <= 1 or func is torch.ops.aten.copy_.default, func
        return func(*args, **(kwargs or {}))


def images(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed)).float()


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 3), sides, sides),
    st.integers(1, 3),
    st.sampled_from([-128, -1, 0, 5, 127]),
    st.integers(0, 2**31),
)
def test_products_are_float64s_numbers(weights, maps, stride, zero_point, seed):
    (outputs, inputs), (count, height, width) = weights, maps
    op, x = conv((outputs, 1, 1, inputs), seed=seed, stride=stride), replace(X, zero_point=zero_point)
    q = images((count, inputs, height, width), seed)
    found = products.accumulate(op, q, x)
    assert found.dtype == torch.int32
    assert torch.equal(found.double(), simulate.accumulate_in_float(op, q, x, torch.float64))


def test_the_largest_sums_and_maps_in_another_memory_order():
    op = conv((40, 1, 1, 960))
    op.weight[:] = np.where(np.arange(40)[:, None, None, None] % 2, 127, -127)
    for value in (-128.0, 127.0):
        q = torch.full((2, 960, 5, 7), value).to(memory_format=torch.channels_last)
        slow = simulate.accumulate_in_float(op, q, X, torch.float64)
        assert torch.equal(products.accumulate(op, q, X).double(), slow)


@pytest.mark.parametrize("exact", [True, False])
def test_the_simulation_takes_them_where_they_are_exact_and_answers_alike(monkeypatch, exact):
    """A device without exact products, and sums that int32 cannot hold, are left to floats."""
    taken = []
    monkeypatch.setattr(products, "exact_on", lambda device: exact)
    product = products.accumulate
    monkeypatch.setattr(products, "accumulate", lambda *given: taken.append(given[0]) or product(*given))
    small, large = conv((24, 1, 1, 16), seed=1), conv((24, 1, 1, 16), seed=2)
    large.bias[3] = 2**31 - 1
    others = [conv((8, 3, 3, 16)), conv((1, 1, 1, 16), depthwise=True)]
    vector = QFullyConnected("y", "x", small.weight[:, 0, 0], small.weight_scale, small.bias, "none", 8)
    for op in (small, large, *others, vector):
        q = images((2, 16, 1, 1) if op is vector else (2, 16, 6, 5), 1)
        env, tensors = {"x": q}, {"x": X, "y": replace(X, name="y", scale=40.0)}
        slow = simulate.accumulate_in_float(op, q, X, torch.float64)
        assert torch.equal(simulate.accumulate(op, q, X).double(), slow)
        assert torch.equal(simulate.apply(op, env, tensors), simulate._requantized(slow, op, X, tensors["y"]))
    assert all(op is small for op in taken) and bool(taken) == exact


def test_products_that_saturate_are_found_out(monkeypatch):
    """As a processor without VNNI may add: pairs of products in 16 bits."""
    exact = torch._int_mm

    def saturating(a, b):
        pairs = torch.stack([a[:, k : k + 2].int() @ b[k : k + 2].int() for k in range(0, a.shape[1], 2)])
        return pairs.clamp(-(2**15), 2**15 - 1).sum(0).int()

    small = torch.full((32, 8), 3, dtype=torch.int8)
    assert torch.equal(saturating(small, small.T.contiguous()), exact(small, small.T.contiguous()))
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not products.exact_on.__wrapped__(CPU)
    monkeypatch.delattr(torch, "_int_mm")
    assert not products.exact_on.__wrapped__(CPU)
    assert not products.exact_on.__wrapped__(torch.device("meta")), "a device that has none"


@pytest.mark.parametrize(
    "op",
    [
        conv((24, 1, 1, 16)),
        conv((24, 1, 1, 16), stride=2),
        conv((8, 3, 3, 16)),
        conv((1, 3, 3, 16), depthwise=True),
        QAdd("y", "x", "x"),
        QMean("y", "x"),
        QResize("y", "x"),
    ],
    ids=["1x1", "strided", "3x3", "depthwise", "add", "mean", "resize"],
)
def test_a_result_stays_on_the_device_of_what_it_was_made_of(monkeypatch, op):
    """Torch's device without data stands in for a GPU, which refuses what is on the processor."""
    monkeypatch.setattr(products, "exact_on", lambda device: True)
    q = torch.empty((2, 16, 6, 10), device="meta")
    tensors = {"x": replace(X, shape=(6, 10, 16)), "y": IntTensor("y", (12, 20, 16), 0.7, 1)}
    with OneDevice():
        y = simulate.apply(op, {"x": q}, tensors)
    assert y.device.type == "meta" and y.dtype == torch.float32
