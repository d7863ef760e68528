"""The board's class map against the simulation of XNNPACK's resize, which LiteRT's own equals."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from board_scripts import class_map as board
from nas.quant.integer_resizing import bilinear

sides = st.integers(1, 9)


def simulated(logits: NDArray[np.int8], sizes: list[tuple[int, int]]) -> NDArray[np.int32]:
    q = torch.from_numpy(logits).permute(0, 3, 1, 2).float()
    for size in sizes:
        q = bilinear(q, size)
    return q.argmax(1).numpy().astype(np.int32)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**31), sides, sides, st.sampled_from([1, 2, 3, 19, 256, 257, 300]),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=2),
)  # fmt: skip
@example(0, 4, 4, 19, [(32, 32)])
@example(0, 3, 5, 19, [(12, 20), (48, 80)])
@example(0, 3, 3, 300, [(3, 3)])
@example(0, 9, 9, 256, [(18, 18)])
def test_it_is_the_simulations(seed: int, height: int, width: int, classes: int, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    span = int(rng.choice([1, 3, 128]))  # a narrow one has many ties
    logits = rng.integers(-span, span, (1, height, width, classes)).astype(np.int8)
    logits[rng.random(logits.shape) < 0.2] = rng.choice([-128, 127])  # where sums are largest
    expected = simulated(logits, sizes)
    found = board.class_map(np, logits, sizes)
    assert found.dtype == np.int32 and found.shape == (1, *(sizes[-1] if sizes else (height, width)))
    np.testing.assert_array_equal(found, expected)
    unsigned = (logits.view(np.uint8) ^ 128).copy()
    np.testing.assert_array_equal(board.class_map(np, unsigned, sizes), expected)


def test_deployed_factors_take_sums_of_16_bits() -> None:
    for before, factor, narrow in ((16, 8, True), (32, 4, True), (32, 2, True), (8, 16, False), (10, 3, False)):
        _, _, bits = board.axis(np, before, before * factor)
        assert (2 * bits <= board.CODE_BITS) == narrow, factor
    planes = np.zeros((2, 4, 4), np.int8)
    _, sums, _ = next(board.summed(np, planes, (32, 32)))
    assert sums.dtype == np.int16 and sums.flags.c_contiguous and math.prod(sums.shape) < 2 * 32 * 32


def test_a_class_map_stays_one() -> None:
    classes = np.arange(12, dtype=np.int32).reshape(1, 3, 4)
    np.testing.assert_array_equal(board.class_map(np, classes, ()), classes)
    np.testing.assert_array_equal(board.class_map(np, classes[..., None], ()), classes)
