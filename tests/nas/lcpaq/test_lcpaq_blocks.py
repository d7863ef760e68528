"""A block with bit widths per layer: against the table's tree, and against the slow and obvious way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.lcpaq.blocks import evaluate_refined
from nas.lcpaq.policy import Policy, applied
from nas.networks.blocks import recalibrate
from nas.noise import NsrReference
from nas.nsr import BlockData, EvaluatedSubnet, block_input, evaluate
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Weighted, run
from nas.quant.folding import fold_layers
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Subnet
from nas.training.threads import one_thread
from tests.nas.prefix_tree import SPACE, alone, assert_same, data_of, supernet_of

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
SCHEMES = (DEFAULT, Scheme("tensor"), Scheme(equalize=True, bias_correction=True))


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def layers_of(subnet: Subnet) -> list[str]:
    nodes = fold_layers(supernet_of(subnet.block).path(subnet), f"b{subnet.block}", INPUT)
    return [node.name for node in nodes if isinstance(node, Weighted)]


@cache
def table(block: int, scheme: Scheme) -> dict[Subnet, EvaluatedSubnet]:
    """Every ninth subnet, all in one traversal."""
    wanted = list(SPACE.subnets(block))[:: 9 if block == 1 else 27]
    return {evaluated.subnet: evaluated for evaluated in evaluate(supernet_of(block), data_of(block), wanted, scheme)}


@pytest.mark.parametrize("scheme", SCHEMES, ids=["default", "tensor", "everything"])
@pytest.mark.parametrize("block", [1, 2])
def test_one_width_in_every_layer_is_the_tables_entry_bit_for_bit(block: int, scheme: Scheme):
    for subnet, expected in list(table(block, scheme).items())[::3]:
        policy = Policy({"stem": 3, **dict.fromkeys(layers_of(subnet), subnet.bits), "logits": 8})
        other = replace(subnet, bits=8)  # a policy decides the bits, not the name
        found = evaluate_refined(supernet_of(block), data_of(block), other, policy, scheme)
        assert_same(replace(found, subnet=subnet), expected)
        assert found.graph.size_bits == expected.graph.size_bits


def mixed_alone(subnet: Subnet, policy: Policy) -> EvaluatedSubnet:
    """As `prefix_tree.alone`, at the policy's bits."""
    supernet, data = supernet_of(subnet.block), data_of(subnet.block)
    alone(supernet, data, subnet, "channel")  # sets the batch norms
    nodes = applied(fold_layers(supernet.path(subnet), f"b{subnet.block}", INPUT), policy)
    ranges = calibrate(nodes, [data.x_calibration])
    ranges[INPUT] = tuple(float(v) for v in data.x_calibration.aminmax())
    source = block_input(data)
    graph = lower(nodes, ranges, source.shape, "channel")
    q = simulate.run(graph, simulate.quantize(data.x_evaluation, source))
    output = simulate.dequantize(q, graph.tensors[graph.output])
    return EvaluatedSubnet(subnet, NsrReference(data.target).noise([output]), graph, simulate.as_nhwc(q[:1]))


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_mixed_bits_are_evaluated_as_a_separate_subnet_is(data: st.DataObject):
    block = data.draw(st.sampled_from([1, 2]), "block")
    subnet = data.draw(st.sampled_from(list(SPACE.subnets(block, 8))), "subnet")
    policy = Policy({name: data.draw(st.integers(2, 8), name) for name in layers_of(subnet)})
    found = evaluate_refined(supernet_of(block), data_of(block), subnet, policy)
    assert_same(found, mixed_alone(subnet, policy))
    assert {op.name: op.bits for op in found.graph.operators if hasattr(op, "bits")} == policy.bits


def test_more_bits_are_larger_by_their_weights_and_less_noisy():
    """Against the float subnet's own output."""
    subnet = next(SPACE.subnets(2, 8))
    supernet, x = supernet_of(2), data_of(2).x_calibration
    y = x
    for layer in supernet.path(subnet):
        recalibrate(layer, y)
        y = run(fold_layers([layer], "layer", INPUT), {INPUT: y})
    own, names = BlockData(x, x, y), layers_of(subnet)
    few = evaluate_refined(supernet, own, subnet, Policy(dict.fromkeys(names, 3)))
    for name in names[-3:]:
        more = evaluate_refined(supernet, own, subnet, Policy({**dict.fromkeys(names, 3), name: 8}))
        layer = next(op for op in more.graph.operators if op.name == name)
        assert more.graph.size_bits == few.graph.size_bits + 5 * layer.weight.size - 8 * layer.bias.size  # no offsets
    all_8 = evaluate_refined(supernet, own, subnet, Policy(dict.fromkeys(names, 8)))
    assert all_8.nsr < 0.1 * few.nsr and np.isfinite(few.nsr) and torch.isfinite(y).all()


def test_policies_that_no_table_has_are_refused():
    subnet = next(SPACE.subnets(1, 8))
    names = layers_of(subnet)
    for policy, words in (
        (Policy(dict.fromkeys(names[1:], 8)), f"does not name layer '{names[0]}' of b1_k3e2"),
        (Policy(dict.fromkeys(names, 8), {names[0]: 4}), f"'{names[0]}' reads 4 bits"),
        (Policy(dict.fromkeys(names, 1)), "2 to 8 bits"),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate_refined(supernet_of(1), data_of(1), subnet, policy)
