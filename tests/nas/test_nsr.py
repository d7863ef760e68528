"""The tree of prefixes against every subnet alone, the slow and obvious way."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.training import distil
from nas.networks.blocks import SuperBlock, recalibrate
from nas.errors import QuantizationError
from nas.nsr import BlockData, Judged, Target, Tree, block_input, graphs, judge, walk
from nas.quant import simulate
from nas.quant.float_graph import INPUT, fold_layers, run
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.quant.scheme import DEFAULT, Granularity, Scheme
from nas.space import Block, SearchSpace, Subnet
from nas.training.threads import one_thread

SPACE = SearchSpace(
    "tiny",
    8,
    8,
    (Block(2, 12, 2, 1), Block(1, 12, 3, 1, dilation=2)),
    kernels=(3, 5),
    expansions=(2, 3),
    bits=(4, 6, 8),
)


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def data_of(block: int, seed: int = 0) -> BlockData:
    generator = torch.Generator().manual_seed(seed)
    channels = SPACE.input_channels(block)
    shape = (5, 12, 4, 5) if block == 1 else (5, 12, 8, 10)
    calibration, evaluation = (torch.randn(n, channels, 8, 10, generator=generator) for n in (4, 5))
    return BlockData(calibration, evaluation, torch.randn(shape, generator=generator))


def supernet_of(block: int) -> SuperBlock:
    torch.manual_seed(block)
    return SuperBlock(SPACE, block)


def alone(supernet: SuperBlock, data: BlockData, subnet: Subnet, granularity: Granularity) -> Judged:
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
    return Judged(subnet, Target(data.target).nsr([output]), graph, simulate.as_nhwc(q[:1]))


def assert_same(found: Judged, expected: Judged) -> None:
    assert (found.subnet, found.nsr) == (expected.subnet, expected.nsr)
    np.testing.assert_array_equal(found.golden_output, expected.golden_output)
    assert found.graph.tensors == expected.graph.tensors
    for ours, theirs in zip(found.graph.operators, expected.graph.operators, strict=True):
        assert (type(ours), ours.name) == (type(theirs), theirs.name)
        for array in ("weight", "weight_scale", "bias"):
            np.testing.assert_array_equal(getattr(ours, array, 0), getattr(theirs, array, 0))
        assert getattr(ours, "bits", 8) == getattr(theirs, "bits", 8)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("block", [1, 2])
def test_one_descent_gives_what_every_subnet_alone_gives_at_every_width(block, granularity):
    supernet, data = supernet_of(block), data_of(block)
    found = list(judge(supernet, data, SPACE.subnets(block), Scheme(granularity)))
    by_subnet = {judged.subnet: judged for judged in found}
    assert len(by_subnet) == len(found) and by_subnet.keys() == set(SPACE.subnets(block))
    for judged in found[:: 1 if block == 1 else 5]:
        assert_same(judged, alone(supernet, data, judged.subnet, granularity))


@cache
def whole(block: int) -> dict[Subnet, Judged]:
    every = judge(supernet_of(block), data_of(block), SPACE.subnets(block), batch=5)
    return {judged.subnet: judged for judged in every}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_neither_the_batch_nor_the_others_change_a_number(data):
    """Any part of the subnets, in any order, any number of images at a time: as in the whole descent."""
    block = data.draw(st.sampled_from([1, 2]), "block")
    wanted = data.draw(st.lists(st.sampled_from(list(SPACE.subnets(block))), unique=True, max_size=12), "wanted")
    batch = data.draw(st.integers(1, 6), "batch")
    found = list(judge(supernet_of(block), data_of(block), wanted, batch=batch))
    assert {judged.subnet for judged in found} == set(wanted) and len(found) == len(wanted)
    for judged in found:
        assert_same(judged, whole(block)[judged.subnet])


def test_what_is_done_is_left_out_and_changes_nothing():
    supernet, data = supernet_of(1), data_of(1)
    values = {judged.subnet: judged.nsr for judged in walk(supernet, data, 8)}
    done = list(values)[::3]
    rest = {judged.subnet: judged.nsr for judged in walk(supernet, data, 8, done=done)}
    assert rest == {subnet: value for subnet, value in values.items() if subnet not in done}


def test_unjudged_graphs_are_the_judged_ones_at_several_widths():
    supernet, data = supernet_of(1), data_of(1)
    wanted = list(SPACE.subnets(1))[::5]
    for subnet, graph in graphs(supernet, data.x_calibration, (8, 10), wanted):
        expected = whole(1)[subnet]
        assert_same(replace(expected, graph=graph, subnet=subnet), expected)


def test_the_nsr_is_the_distillation_loss_in_double_precision():
    generator = torch.Generator().manual_seed(3)
    maps, output = (torch.randn(7, 6, 9, 11, generator=generator) * 3 + 1 for _ in range(2))
    value = Target(maps).nsr(output.split(3))
    assert value == pytest.approx(float(distil.nsr(maps, output, distil.channel_variance(maps))), rel=1e-5)
    wide = output.double().numpy() - maps.double().numpy()
    variance = maps.double().numpy().var((0, 2, 3))
    assert value == pytest.approx(((wide**2).mean((0, 2, 3)) / (variance + distil.EPSILON)).mean(), rel=1e-6)
    assert all(Target(maps).nsr(output.split(n)) == value for n in range(1, 8))
    with pytest.raises(ValueError, match="shorter"):
        Target(maps).nsr(output[:5].split(2))


# Memory


def test_a_descent_holds_one_prefix_a_level(monkeypatch):
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most, extend = [0], Tree.extend

    def counted(self: Tree, prefix: object, *more: object) -> object:
        alive.add(prefix)
        made = extend(self, prefix, *more)
        alive.add(made)
        most[0] = max(most[0], len(alive))
        return made

    monkeypatch.setattr(Tree, "extend", counted)
    for _ in judge(supernet_of(2), data_of(2), SPACE.subnets(2)):
        pass
    assert most[0] == 3 + 1  # the block's layers and its input


PEAKS = """
import resource, torch
from nas.networks.blocks import SuperBlock
from nas.nsr import BlockData, judge
from nas.space import Block, SearchSpace
torch.set_num_threads(1)
space = SearchSpace("peaks", 8, 8, (Block(1, 8, 3, 1),), kernels=(1, 3, 5, 7), expansions=(2,), bits=(4, 8))
x = torch.randn(8, 8, 64, 64)  # 1 MB, 0.25 MB as int8: all leaves together would be 48 MB
peaks = []
for _ in judge(SuperBlock(space, 1), BlockData(x, x, x), space.subnets(1)):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
print(len(peaks), peaks[len(peaks) // 8], peaks[-1])
"""


def test_the_peak_does_not_grow_with_the_subnets():
    ended = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True, timeout=120)
    count, early_mb, late_mb = map(float, ended.stdout.split())
    assert count == 2 * 4**3
    assert late_mb - early_mb < 8, ended.stdout


# What a number says


def test_fewer_bits_are_noisier():
    supernet, data = supernet_of(1), data_of(1)
    x = data.x_calibration
    subnet = next(SPACE.subnets(1, 8))
    for layer in supernet.path(subnet):
        x = recalibrate(layer, x)
    target = BlockData(data.x_calibration, data.x_calibration, x)  # what the float subnet itself says
    by_bits = [j.nsr for j in judge(supernet, target, [replace(subnet, bits=bits) for bits in (4, 6, 8)])]
    assert by_bits[0] > 4 * by_bits[1] > 16 * by_bits[2] / 4


@pytest.mark.parametrize("scheme", [DEFAULT, Scheme("tensor")], ids=lambda scheme: scheme.granularity)
def test_nan_weights_are_named(scheme):
    supernet, data = supernet_of(1), data_of(1)
    with torch.no_grad():
        supernet.layer(0, SPACE.choices[1]).project.weight.fill_(float("nan"))
    with pytest.raises(QuantizationError, match=r"b1/0/project"):
        list(walk(supernet, data, 8, scheme))
