"""Layers and networks: padding, folding, the encoder's start."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.networks.blocks import ConvBN, MBConv, conv_same, recalibrate, same_padding
from nas.networks.segmenter import Head, assemble, load_encoder, student, teacher
from nas.quant.float_graph import INPUT, run
from nas.quant.folding import fold_mbconv, fold_segmenter
from nas.space import Block, Choice, SearchSpace

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 16, 1, 2, dilation=2)), kernels=(3, 5), expansions=(2, 3)
)


@given(st.integers(1, 40), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]))
def test_same_padding_gives_the_ceiling(size, kernel, stride, dilation):
    before, after = same_padding(size, kernel, stride, dilation)
    assert 0 <= after - before <= 1
    assert (size + before + after - (kernel - 1) * dilation - 1) // stride + 1 == -(-size // stride)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([3, 5, 7]), st.sampled_from([1, 2, 4]))
def test_both_ways_of_padding_agree_at_stride_1(height, width, kernel, dilation):
    x, weight = torch.randn(1, 2, height, width), torch.randn(3, 2, kernel, kernel)
    top, _ = same_padding(height, kernel, 1, dilation)
    left, _ = same_padding(width, kernel, 1, dilation)
    padded = torch.nn.functional.pad(x, (left, left, top, top))
    expected = torch.nn.functional.conv2d(padded, weight, dilation=dilation)
    torch.testing.assert_close(conv_same(x, weight, None, 1, dilation), expected)


@pytest.mark.parametrize(("kernel", "expected"), [(3, (0, 1)), (5, (1, 2)), (7, (2, 3))])
def test_stride_2_pads_as_tflite_on_even_maps(kernel, expected):
    assert same_padding(32, kernel, 2, 1) == expected


def test_folding_changes_nothing():
    torch.manual_seed(0)
    layer = MBConv((8, 8, 1, 2), Choice(5, 3))
    x = torch.randn(3, 8, 9, 7)
    recalibrate(layer, x)
    layer.eval()
    torch.testing.assert_close(run(fold_mbconv(layer, "l", INPUT), {INPUT: x}), layer(x), rtol=1e-4, atol=1e-4)


def test_a_folded_network_is_the_network():
    torch.manual_seed(0)
    model = teacher(SPACE, 5, Head(8, (1, 2))).eval()
    x = torch.randn(2, 3, 24, 32)
    nodes = fold_segmenter(model, (24, 32))
    env = {INPUT: x}
    run(nodes, env)
    torch.testing.assert_close(env["logits"], model(x), rtol=1e-4, atol=1e-4)
    assert env["classes"].shape == (2, 1, 24, 32)


def test_recalibration_sets_this_batchs_statistics():
    torch.manual_seed(0)
    conv = ConvBN(3, 4, 3)
    x = torch.randn(8, 3, 10, 10)
    recalibrate(conv, x)
    conv.eval()
    y = conv.bn(conv_same(x, conv.weight, None, 1, 1))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    assert conv.bn.momentum == 0.1


def test_an_encoder_starts_from_folded_convolutions():
    torch.manual_seed(0)
    source, target = teacher(SPACE, 5, Head(8, (1,))).eval(), teacher(SPACE, 5, Head(8, (1,)))
    x = torch.randn(2, 3, 24, 32)
    recalibrate(source, x)
    folded = [
        m.folded()
        for part in (source.stem, source.first, source.blocks)
        for m in part.modules()
        if isinstance(m, ConvBN)
    ]
    load_encoder(target, folded, x)
    target.eval()
    other = torch.randn(2, 3, 24, 32)
    for a, b in zip(source.boundaries(other), target.boundaries(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    target.train()  # batch statistics: near the same function, not a renormalized one
    torch.testing.assert_close(target.boundaries(x)[-1], source.boundaries(x)[-1], rtol=0.05, atol=0.05)
    with pytest.raises(ConfigError, match="only 1"):
        load_encoder(target, folded[:1], x)
    with pytest.raises(ConfigError, match="convolution 0 of the encoder"):
        load_encoder(target, folded[::-1], x)


def test_an_assembled_student_is_made_of_copies():
    from nas.space import Architecture
    from nas.training.distil import supernets

    torch.manual_seed(0)
    of, blocks = teacher(SPACE, 5, Head(8, (1,))), list(supernets(SPACE))
    architecture = Architecture.parse("b1_k3e2-k5e3_w8+b2_k5e2_w8")
    model = assemble(student(SPACE, architecture, 5, Head(8, (1,))), of, blocks, architecture)
    trained = blocks[0].path(architecture.subnets[0])[1]
    assert torch.equal(model.blocks[0][1].project.weight, trained.project.weight)
    with torch.no_grad():
        model.blocks[0][1].project.weight.zero_()
    assert trained.project.weight.abs().sum() > 0
    assert torch.equal(model.stem.weight, of.stem.weight)
