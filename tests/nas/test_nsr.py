"""The tree of prefixes against every subnet alone, the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.blocks import SuperBlock, recalibrate
from nas.distil import channel_variance, nsr
from nas.errors import QuantizationError
from nas.nsr import BlockData, block_input, walk
from nas.quant import simulate
from nas.quant.float_graph import INPUT, fold_layers, run
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.space import Block, SearchSpace, Subnet

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 12, 3, 1, dilation=2)), kernels=(3, 5), expansions=(2, 3)
)


def data_of(block: int, seed: int = 0) -> BlockData:
    generator = torch.Generator().manual_seed(seed)
    channels = SPACE.input_channels(block)
    shape = (4, 12, 4, 5) if block == 1 else (4, 12, 8, 10)
    calibration, evaluation = (torch.randn(4, channels, 8, 10, generator=generator) for _ in range(2))
    return BlockData(calibration, evaluation, torch.randn(shape, generator=generator))


def alone(supernet: SuperBlock, data: BlockData, subnet: Subnet) -> tuple[float, np.ndarray, list]:
    """Recalibrate, fold, calibrate, quantize and run one subnet as if there were no others."""
    x = data.x_calibration
    for layer in supernet.path(subnet):  # each layer's statistics come from the folded ones before it
        recalibrate(layer, x)
        x = run(fold_layers([layer], "layer", INPUT), {INPUT: x})
    nodes = fold_layers(supernet.path(subnet), f"b{subnet.block}", INPUT, subnet.bits)
    ranges = calibrate(nodes, [data.x_calibration])
    ranges[INPUT] = tuple(float(v) for v in data.x_calibration.aminmax())
    source = block_input(data)
    graph = lower(nodes, ranges, source.shape)
    q = simulate.run(graph, simulate.quantize(data.x_evaluation, source))
    output = simulate.dequantize(q, graph.tensors[graph.output])
    weights = [op.weight for op in graph.operators if hasattr(op, "weight")]
    return float(nsr(data.target, output, channel_variance(data.target))), simulate.as_nhwc(q[:1]), weights


@pytest.mark.parametrize(("block", "bits"), [(1, 8), (2, 8), (2, 4)])
def test_the_tree_gives_what_every_subnet_alone_gives(block, bits):
    torch.manual_seed(block)
    supernet, data = SuperBlock(SPACE, block), data_of(block)
    found = list(walk(supernet, data, bits))
    assert [judged.subnet for judged in found] == list(SPACE.subnets(block, bits))
    for judged in found[:: 1 if block == 1 else 5]:
        value, output, weights = alone(supernet, data, judged.subnet)
        assert judged.nsr == value, judged.subnet
        np.testing.assert_array_equal(judged.golden_output, output)
        ours = [op.weight for op in judged.graph.operators if hasattr(op, "weight")]
        assert all((a == b).all() for a, b in zip(ours, weights, strict=True))


def test_what_is_done_is_left_out_and_changes_nothing():
    torch.manual_seed(1)
    supernet, data = SuperBlock(SPACE, 1), data_of(1)
    values = {judged.subnet: judged.nsr for judged in walk(supernet, data, 8)}
    done = list(values)[::3]
    rest = {judged.subnet: judged.nsr for judged in walk(supernet, data, 8, done=done)}
    assert rest == {subnet: value for subnet, value in values.items() if subnet not in done}


def test_fewer_bits_are_noisier():
    torch.manual_seed(2)
    supernet, data = SuperBlock(SPACE, 1), data_of(1)
    x = data.x_calibration
    subnet = next(SPACE.subnets(1, 8))
    for layer in supernet.path(subnet):
        x = recalibrate(layer, x)
    target = BlockData(data.x_calibration, data.x_calibration, x)  # what the float subnet itself says
    by_bits = [
        next(j.nsr for j in walk(supernet, target, bits) if j.subnet.choices == subnet.choices) for bits in (4, 6, 8)
    ]
    assert by_bits[0] > 4 * by_bits[1] > 16 * by_bits[2] / 4


def test_nan_weights_are_named():
    supernet, data = SuperBlock(SPACE, 1), data_of(1)
    with torch.no_grad():
        supernet.layer(0, SPACE.choices[1]).project.weight.fill_(float("nan"))
    with pytest.raises(QuantizationError, match=r"b1/0/project"):
        list(walk(supernet, data, 8))
