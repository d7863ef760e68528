"""Resizes are split into the fewest safe factors, or refused with their ratio."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, IntTensor, QArgMax, QResize
from nas.quant.safe_resize import safe_steps, split_resizes, steps

SAFE = (2, 3, 4, 8)


@pytest.mark.parametrize(
    ("factor", "parts"),
    [(2, (2,)), (6, (2, 3)), (8, (8,)), (9, (3, 3)), (12, (3, 4)), (16, (4, 4)), (32, (4, 8)), (64, (8, 8))],
)
def test_known_splits(factor, parts):
    assert steps(factor, SAFE) == parts


@given(factor=st.integers(2, 130), safe=st.lists(st.integers(1, 9), max_size=4))
def test_the_fewest_and_most_even_parts(factor, safe):
    """Against every ordered choice of up to seven factors: 2 ** 7 is 128."""
    tried = [c for n in range(1, 8) for c in itertools.product({s for s in safe if s > 1}, repeat=n)]
    possible = [c for c in tried if prod(c) == factor]
    found = steps(factor, safe)
    if found is None:
        assert not possible
    else:
        assert prod(found) == factor and list(found) == sorted(found)
        assert (len(found), max(found)) == min((len(c), max(c)) for c in possible)


def resized(before: tuple[int, int], after: tuple[int, int]) -> IntegerGraph:
    tensors = {
        "input": IntTensor("input", (*before, 3), 0.5, -3),
        "up": IntTensor("up", (*after, 3), 0.5, -3),
        "classes": IntTensor("classes", (*after, 1), 1.0, 0, "int32", rank=3),
    }
    return IntegerGraph(tensors, (QResize("up", "input"), QArgMax("classes", "up")), "input")


def test_a_split_graph_has_the_same_ends():
    graph = split_resizes(resized((2, 3), (32, 48)), SAFE)
    assert [(op.name, op.x) for op in graph.operators] == [("up/8x12", "input"), ("up", "up/8x12"), ("classes", "up")]
    assert graph.tensors["up/8x12"] == IntTensor("up/8x12", (8, 12, 3), 0.5, -3)
    assert graph.output == "classes" and graph.tensors["up"].shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("before", "after"), [((4, 6), (16, 24)), ((4, 6), (4, 6)), ((1, 1), (5, 7)), ((1, 1), (16, 16))]
)
def test_what_is_safe_stays(before, after):
    graph = resized(before, after)
    assert split_resizes(graph, SAFE).operators == graph.operators


def test_without_factors_nothing_is_touched():
    graph = resized((4, 6), (64, 24))
    assert split_resizes(graph, ()) is graph


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((4, 6), (16, 48), ("4 times the height, 8 times the width", "multiples of the network's output stride")),
        ((12, 15), (180, 240), ("15 times the height, 16 times the width",)),
        ((4, 4), (10, 10), ("2.5 times the height",)),
        ((4, 4), (2, 2), ("0.5 times the height",)),
        ((4, 4), (20, 20), ("5 times", "2, 3, 4, 8", "change the network's output stride")),
    ],
)
def test_what_cannot_be_split_is_named(before, after, words):
    with pytest.raises(QuantizationError) as caught:
        split_resizes(resized(before, after), SAFE)
    said = f"'up' resizes {before[0]}x{before[1]} to {after[0]}x{after[1]}"
    assert all(word in str(caught.value) for word in (said, *words)), caught.value


@given(size=st.tuples(st.integers(2, 9), st.integers(2, 9)), factor=st.sampled_from([2, 6, 16, 24, 32]))
def test_the_last_step_is_the_size_asked_for(size, factor):
    asked = (size[0] * factor, size[1] * factor)
    path = [size, *safe_steps("up", size, asked, SAFE)]
    assert path[-1] == asked
    for (h, w), (h2, w2) in itertools.pairwise(path):
        assert h2 * w == w2 * h and h2 % h == 0 and h2 // h in SAFE


def test_only_bilinear_resizes_of_half_pixels_are_split():
    graph = resized((2, 3), (32, 48))
    for how in (("nearest", "half_pixel"), ("bilinear", "align_corners")):
        other = replace(graph, operators=(QResize("up", "input", *how), graph.operators[1]))
        assert split_resizes(other, SAFE).operators == other.operators
