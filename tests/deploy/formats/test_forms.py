"""The same integers written in other forms: uint8, INT4, float ends."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType

from deploy.compile.artifact import quantize
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.segmenter import Head, student
from nas.nsr import evaluate_all, golden_input
from nas.quant import simulate, uint8
from nas.quant.scheme import Scheme
from tests.deploy.networks import block_data, interpret, simulated, space, trained_like

DEMO = space("demo")


def judged_blocks(block: int, bits: int, granularity: str, few_bits: str = "asymmetric"):
    torch.manual_seed(block)
    data = block_data(DEMO, block, (11, 14), seed=block)
    supernet = trained_like(SuperBlock(DEMO, block), block)
    return golden_input(data), list(evaluate_all(supernet, data, bits, Scheme(granularity, few_bits=few_bits)))[::4]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_uint8_answers_as_its_own_simulation(block, bits):
    """Which is int8's but for depthwise convolutions."""
    q, found = judged_blocks(block, bits, "tensor")
    integers = torch.from_numpy(q).permute(0, 3, 1, 2).float()
    for judged in found:
        answer = interpret(
            write(judged.graph, form=Form(activations="uint8")), (q.astype(np.int16) + 128).astype(np.uint8)
        )
        expected = simulate.as_nhwc(uint8.run(judged.graph, integers) + 128, np.int32).astype(np.uint8)
        np.testing.assert_array_equal(answer, expected, str(judged.subnet))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_whole_uint8_model_up_to_its_class_map(seed):
    torch.manual_seed(seed)
    model = student(DEMO, DEMO.sample(random.Random(seed)), 11, Head(16, (2, 4))).eval()
    images = (torch.randint(0, 256, (2, 3, 96, 128)).float() - 128) / 128
    recalibrate(model, images)
    graph = quantize(model, [images], (96, 128), scheme=Scheme("tensor"))
    q = simulate.quantize(images[:1], graph.tensors[graph.input])
    shifted = simulate.as_nhwc(q + 128, np.int32).astype(np.uint8)
    answer = interpret(write(graph, form=Form(activations="uint8")), shifted)
    np.testing.assert_array_equal(answer, simulate.as_nhwc(uint8.run(graph, q), np.int32)[..., 0])


def test_uint8_with_scales_per_channel_is_refused():
    _, found = judged_blocks(4, 8, "channel")
    with pytest.raises(QuantizationError, match="uint8 weights have one scale"):
        write(found[0].graph, form=Form(activations="uint8"))


def test_int4_answers_as_the_same_values_in_int8():
    """On the builtin kernels; XNNPACK leaves INT4 convolutions to them, and rounds int8 ones otherwise."""
    q, found = judged_blocks(4, 4, "channel", "symmetric")
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    for judged in found:
        packed, plain = write(judged.graph, form=Form(few_bits="int4")), write(judged.graph)
        assert len(packed) < 0.75 * len(plain)
        np.testing.assert_array_equal(interpret(packed, q, kernels), interpret(plain, q, kernels), str(judged.subnet))


def test_asymmetric_weights_are_refused_in_int4():
    _, found = judged_blocks(4, 4, "channel")
    with pytest.raises(QuantizationError, match=r"b4/0/expand/weight'.* do not fit INT4 .*few_bits = \"symmetric\""):
        write(found[0].graph, form=Form(few_bits="int4"))


def test_float_ends_are_exact():
    q, found = judged_blocks(1, 8, "channel")
    graph = found[0].graph
    source, sink = graph.tensors[graph.input], graph.tensors[graph.output]
    images = simulate.dequantize(torch.from_numpy(q).float().permute(0, 3, 1, 2), source)
    answer = interpret(write(graph, form=Form(ends="float")), images.permute(0, 2, 3, 1).contiguous().numpy())
    expected = simulated(graph, torch.from_numpy(q).float().permute(0, 3, 1, 2)).astype(np.float32) - sink.zero_point
    np.testing.assert_array_equal(answer, expected * np.float32(sink.scale))
