"""The tree of prefixes against every subnet evaluated separately, the slow and obvious way."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas import noise
from nas.errors import QuantizationError
from nas.networks.blocks import recalibrate
from nas.noise import NsrReference
from nas.nsr import BlockData, EvaluatedSubnet, Tree, evaluate, evaluate_all, graphs
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Subnet
from nas.training.threads import one_thread
from tests.nas.prefix_tree import SPACE, alone, assert_same, data_of, supernet_of


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("block", [1, 2])
def test_one_traversal_equals_every_subnet_evaluated_separately_at_every_width(block, granularity):
    supernet, data = supernet_of(block), data_of(block)
    found = list(evaluate(supernet, data, SPACE.subnets(block), Scheme(granularity)))
    by_subnet = {evaluated.subnet: evaluated for evaluated in found}
    assert len(by_subnet) == len(found) and by_subnet.keys() == set(SPACE.subnets(block))
    for evaluated in found[:: 1 if block == 1 else 5]:
        assert_same(evaluated, alone(supernet, data, evaluated.subnet, granularity))


@cache
def full_traversal(block: int) -> dict[Subnet, EvaluatedSubnet]:
    every = evaluate(supernet_of(block), data_of(block), SPACE.subnets(block), batch=5)
    return {evaluated.subnet: evaluated for evaluated in every}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_neither_the_batch_nor_the_others_change_a_number(data):
    """Any part of the subnets, in any order, any number of images at a time: as in the full traversal."""
    block = data.draw(st.sampled_from([1, 2]), "block")
    wanted = data.draw(st.lists(st.sampled_from(list(SPACE.subnets(block))), unique=True, max_size=12), "wanted")
    batch = data.draw(st.integers(1, 6), "batch")
    found = list(evaluate(supernet_of(block), data_of(block), wanted, batch=batch))
    assert {evaluated.subnet for evaluated in found} == set(wanted) and len(found) == len(wanted)
    for evaluated in found:
        assert_same(evaluated, full_traversal(block)[evaluated.subnet])


def test_what_is_done_is_left_out_and_changes_nothing():
    supernet, data = supernet_of(1), data_of(1)
    values = {evaluated.subnet: evaluated.nsr for evaluated in evaluate_all(supernet, data, 8)}
    done = list(values)[::3]
    rest = {evaluated.subnet: evaluated.nsr for evaluated in evaluate_all(supernet, data, 8, done=done)}
    assert rest == {subnet: value for subnet, value in values.items() if subnet not in done}


def test_graphs_alone_are_those_of_an_evaluation_at_several_widths():
    supernet, data = supernet_of(1), data_of(1)
    wanted = list(SPACE.subnets(1))[::5]
    for subnet, graph in graphs(supernet, data.x_calibration, (8, 10), wanted):
        expected = full_traversal(1)[subnet]
        assert_same(replace(expected, graph=graph, subnet=subnet), expected)


def test_the_nsr_is_the_distillation_loss_in_double_precision():
    generator = torch.Generator().manual_seed(3)
    maps, output = (torch.randn(7, 6, 9, 11, generator=generator) * 3 + 1 for _ in range(2))
    value = NsrReference(maps).nsr(output.split(3))
    assert value == pytest.approx(float(noise.nsr(maps, output, noise.channel_variance(maps))), rel=1e-5)
    wide = output.double().numpy() - maps.double().numpy()
    variance = maps.double().numpy().var((0, 2, 3))
    assert value == pytest.approx(((wide**2).mean((0, 2, 3)) / (variance + noise.EPSILON)).mean(), rel=1e-6)
    assert all(NsrReference(maps).nsr(output.split(n)) == value for n in range(1, 8))
    with pytest.raises(ValueError, match="shorter"):
        NsrReference(maps).nsr(output[:5].split(2))


# Memory


def test_a_traversal_holds_one_prefix_per_level(monkeypatch):
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most, extend = [0], Tree.extend

    def counted(self: Tree, prefix: object, *more: object) -> object:
        alive.add(prefix)
        made = extend(self, prefix, *more)
        alive.add(made)
        most[0] = max(most[0], len(alive))
        return made

    monkeypatch.setattr(Tree, "extend", counted)
    for _ in evaluate(supernet_of(2), data_of(2), SPACE.subnets(2)):
        pass
    assert most[0] == 3 + 1  # the block's layers and its input


PEAKS = """
import resource, torch
from nas.networks.blocks import SuperBlock
from nas.nsr import BlockData, evaluate
from nas.space import Block, SearchSpace
torch.set_num_threads(1)
space = SearchSpace("peaks", 8, 8, (Block(1, 8, 3, 1),), kernels=(1, 3, 5, 7), expansions=(2,), bits=(4, 8))
x = torch.randn(8, 8, 64, 64)  # 1 MB, 0.25 MB as int8: all leaves together would be 48 MB
peaks = []
for _ in evaluate(SuperBlock(space, 1), BlockData(x, x, x), space.subnets(1)):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
print(len(peaks), peaks[len(peaks) // 8], peaks[-1])
"""


def test_the_peak_does_not_grow_with_the_subnets():
    ended = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True, timeout=120)
    count, early_mb, late_mb = map(float, ended.stdout.split())
    assert count == 2 * 4**3
    assert late_mb - early_mb < 8, ended.stdout


# What a number means


def test_fewer_bits_are_noisier():
    supernet, data = supernet_of(1), data_of(1)
    x = data.x_calibration
    subnet = next(SPACE.subnets(1, 8))
    for layer in supernet.path(subnet):
        x = recalibrate(layer, x)
    target = BlockData(data.x_calibration, data.x_calibration, x)  # the float subnet's own output
    by_bits = [j.nsr for j in evaluate(supernet, target, [replace(subnet, bits=bits) for bits in (4, 6, 8)])]
    assert by_bits[0] > 4 * by_bits[1] > 16 * by_bits[2] / 4


@pytest.mark.parametrize("scheme", [DEFAULT, Scheme("tensor")], ids=lambda scheme: scheme.granularity)
def test_nan_weights_are_named(scheme):
    supernet, data = supernet_of(1), data_of(1)
    with torch.no_grad():
        supernet.layer(0, SPACE.choices[1]).project.weight.fill_(float("nan"))
    with pytest.raises(QuantizationError, match=r"b1/0/project"):
        list(evaluate_all(supernet, data, 8, scheme))
