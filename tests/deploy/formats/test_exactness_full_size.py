"""Table I at the sizes of its use: LiteRT answers the integers' arithmetic byte for byte, on both kernel sets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType

from deploy.compile.block_forms import random_reference
from deploy.compile.weights import Origin
from deploy.formats.tflite.writer import write
from nas.networks.segmenter import Head
from nas.quant import simulate
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import Granularity
from nas.space import SearchSpace, Subnet
from tests.deploy.networks import interpret, quantized_subnet, random_integers, referenced, simulated, space

pytestmark = pytest.mark.usefixtures("one_thread")
MIXED = replace(space("table1"), bits=(4, 6, 8))  # the paper's few-bit mixed-precision space
BLOCKS = range(1, len(MIXED.blocks) + 1)


def subnets_of(block: int, count: int, size: tuple[int, int]) -> Iterator[tuple[Subnet, IntegerGraph]]:
    """`count` random subnets of block number `block` for images of `size`: every bit width, both granularities."""
    rng = random.Random(block)
    depth = MIXED.blocks[block - 1].layers
    granularities: tuple[Granularity, ...] = ("channel", "tensor")
    for i in range(count):
        choices = tuple(rng.choice(MIXED.choices) for _ in range(depth))
        subnet = Subnet(block, choices, MIXED.bits[i % 3])
        yield subnet, quantized_subnet(MIXED, subnet, Origin(MIXED, size).map_size(block), granularities[i % 2], seed=i)


@pytest.mark.parametrize("block", BLOCKS)
def test_random_subnets_of_every_block(block):
    for seed, (subnet, graph) in enumerate(subnets_of(block, 8, (360, 480))):
        q = random_integers(graph, seed)
        np.testing.assert_array_equal(interpret(write(graph), simulate.as_nhwc(q)), simulated(graph, q), str(subnet))


@pytest.mark.parametrize("block", BLOCKS)
def test_random_subnets_on_the_reference_kernels(block):
    for seed, (subnet, graph) in enumerate(subnets_of(block, 4, (180, 240))):
        q = random_integers(graph, seed)
        answer = interpret(write(graph), simulate.as_nhwc(q), OpResolverType.BUILTIN_REF)
        np.testing.assert_array_equal(answer, referenced(graph, q), str(subnet))


def random_student(of: SearchSpace, size: tuple[int, int], seed: int, head: Head = Head()) -> IntegerGraph:  # noqa: B008
    architecture = of.sample(random.Random(seed))
    granularity: Granularity = "tensor" if seed % 2 else "channel"
    return random_reference(of, size, architecture=architecture, head=head, granularity=granularity, seed=seed)


@pytest.mark.parametrize(("size", "seed"), [((180, 240), 0), ((360, 480), 1), ((512, 1024), 2)])
def test_whole_students_with_the_full_head(size, seed):
    """512 channels and rates 12, 24, 36; logits, upsampled logits and class map."""
    graph = random_student(MIXED, size, seed)
    q = random_integers(graph, seed)
    cut = graph.until("logits")
    logits = simulate.run(cut, q)
    assert len(logits.unique()) > 100, "too few different answers to tell anything"
    tail = IntegerGraph(graph.tensors, graph.operators[len(cut.operators) :], "logits")
    np.testing.assert_array_equal(interpret(write(cut), simulate.as_nhwc(q)), simulate.as_nhwc(logits))
    for name in ("upsampled", "classes"):
        answer = interpret(write(graph.until(name)), simulate.as_nhwc(q))
        np.testing.assert_array_equal(answer, simulated(tail.until(name), logits), name)


@pytest.mark.parametrize("size", [(90, 122), (180, 240), (360, 480), (512, 1024)], ids=str)
def test_a_whole_student_on_the_reference_kernels(size):
    """A head of 64 channels: the reference kernels are plain C."""
    graph = random_student(MIXED, size, 3, Head(64))
    q = random_integers(graph, 3)
    for name in ("logits", "upsampled", "classes"):
        cut = graph.until(name)
        answer = interpret(write(cut), simulate.as_nhwc(q), OpResolverType.BUILTIN_REF)
        np.testing.assert_array_equal(answer, referenced(cut, q), name)
