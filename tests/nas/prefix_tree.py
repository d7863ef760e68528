"""A small space and its blocks, and one subnet evaluated separately: what the tree of prefixes is compared with."""

from __future__ import annotations

import numpy as np
import torch

from nas.networks.blocks import SuperBlock, recalibrate
from nas.noise import NsrReference
from nas.nsr import BlockData, EvaluatedSubnet, block_input
from nas.quant import simulate
from nas.quant.float_graph import INPUT, run
from nas.quant.folding import fold_layers
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.quant.scheme import Granularity
from nas.space import Block, SearchSpace, Subnet

SPACE = SearchSpace(
    "tiny",
    8,
    8,
    (Block(2, 12, 2, 1), Block(1, 12, 3, 1, dilation=2)),
    kernels=(3, 5),
    expansions=(2, 3),
    bits=(4, 6, 8),
)


def data_of(block: int, seed: int = 0) -> BlockData:
    generator = torch.Generator().manual_seed(seed)
    channels = SPACE.input_channels(block)
    shape = (5, 12, 4, 5) if block == 1 else (5, 12, 8, 10)
    calibration, evaluation = (torch.randn(n, channels, 8, 10, generator=generator) for n in (4, 5))
    return BlockData(calibration, evaluation, torch.randn(shape, generator=generator))


def supernet_of(block: int) -> SuperBlock:
    torch.manual_seed(block)
    return SuperBlock(SPACE, block)


def alone(supernet: SuperBlock, data: BlockData, subnet: Subnet, granularity: Granularity) -> EvaluatedSubnet:
    """Recalibrate, fold, calibrate, quantize and run one subnet as if there were no others."""
    x = data.x_calibration
    for layer in supernet.path(subnet):  # each layer's statistics come from the folded ones before it
        recalibrate(layer, x)
        x = run(fold_layers([layer], "layer", INPUT), {INPUT: x})
    nodes = fold_layers(supernet.path(subnet), f"b{subnet.block}", INPUT, subnet.bits)
    ranges = calibrate(nodes, [data.x_calibration])
    ranges[INPUT] = tuple(float(v) for v in data.x_calibration.aminmax())
    source = block_input(data)
    graph = lower(nodes, ranges, source.shape, granularity)
    q = simulate.run(graph, simulate.quantize(data.x_evaluation, source))
    output = simulate.dequantize(q, graph.tensors[graph.output])
    return EvaluatedSubnet(subnet, NsrReference(data.target).noise([output]), graph, simulate.as_nhwc(q[:1]))


def assert_same(found: EvaluatedSubnet, expected: EvaluatedSubnet) -> None:
    assert (found.subnet, found.noise) == (expected.subnet, expected.noise)
    np.testing.assert_array_equal(found.golden_output, expected.golden_output)
    assert found.graph.tensors == expected.graph.tensors
    for ours, theirs in zip(found.graph.operators, expected.graph.operators, strict=True):
        assert (type(ours), ours.name) == (type(theirs), theirs.name)
        for array in ("weight", "weight_scale", "bias"):
            np.testing.assert_array_equal(getattr(ours, array, 0), getattr(theirs, array, 0))
        assert getattr(ours, "bits", 8) == getattr(theirs, "bits", 8)
