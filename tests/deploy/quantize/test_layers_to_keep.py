"""Layers that are left in float: those that hurt, found by taking their rounding away one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from deploy.compile.scheme import QuantizationScheme
from deploy.quantize import quantize
from deploy.quantize.float_layers import check_count, images_of, layers_to_keep
from deploy.quantize.noise import noise_of
from hil.errors import UsageError
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Weighted
from nas.quant.integer_graph import QFloatLayer
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.lowered_operators import float_layer
from tests.deploy.formats.importers.test_importing_onnx import Graph, network
from tests.deploy.quantize.test_quantized_networks import data

TENSOR = QuantizationScheme("tensor")


def uneven(wide: int = 1):
    """Three convolutions; one channel of the one at `wide` is a hundred times the others: one scale is coarse."""
    g, x = Graph((1, 4, 12, 12)), "x"
    for position in range(3):
        weight = g.weights(4, 4, 3, 3)
        x = g.node("Conv", x, weight, g.weights(4), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        if position == wide:
            many = np.array([100, 1, 1, 1], np.float32).reshape(4, 1, 1, 1)
            held = next(c for c in g.constants if c.name == weight)
            values = np.frombuffer(held.raw_data, np.float32).reshape(4, 4, 3, 3) * many
            held.raw_data = values.astype(np.float32).tobytes()
        x = g.node("Relu", x)
    return network(g.model())


def finished(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def slowly(quantized, inputs, count: int) -> list[str]:
    """As one would: all networks with one more layer in float, each run whole."""
    nodes, kept, graph = {n.name: n for n in quantized.nodes if isinstance(n, Weighted)}, [], quantized.graph
    for _ in range(count):
        found = {}
        for name, node in nodes.items():
            operators = tuple(
                float_layer(node, op) if op.name == name and isinstance(op, QWeighted) else op for op in graph.operators
            )
            one = replace(graph, operators=operators)
            noise = noise_of(quantized.nodes, one, [x for x, _ in inputs], simulate.apply)
            if name not in kept:
                found[name] = (max(noise[output] for output in graph.outputs), one)
        best = min(found, key=lambda name: found[name][0])
        kept.append(best)
        graph = found[best][1]
    return kept


def test_they_are_those_that_whole_networks_name() -> None:
    of = uneven()
    quantized = quantize(of, data(of, 8), TENSOR)
    inputs = images_of(quantized, data(of, 8))
    assert len(inputs[0][0]) == 8
    for count in (1, 2, 3):
        assert list(finished(layers_to_keep(quantized, inputs, count))) == slowly(quantized, inputs, count)


def test_the_network_gains_by_them() -> None:
    of = uneven()
    plain = quantize(of, data(of, 8), TENSOR)
    kept = finished(layers_to_keep(plain, images_of(plain, data(of, 8)), 1))
    better = quantize(of, data(of, 8), TENSOR, in_float=kept)
    assert [op.name for op in better.graph.operators if isinstance(op, QFloatLayer)] == list(kept)
    assert better.output_noise_db < plain.output_noise_db - 1
    assert str(better.option) == "tensor int8, 1 in float"


@pytest.mark.parametrize("count", [0, 4])
def test_as_many_as_there_are(count) -> None:
    of = uneven()
    check_count(of, 3)
    with pytest.raises(UsageError, match=f"--keep-float {count}: the network has 3 layers with weights"):
        check_count(of, count)


def test_biases_are_corrected_around_them() -> None:
    from nas.quant.scheme import Scheme

    of = uneven()
    found = quantize(of, data(of, 8), TENSOR, Scheme(bias_correction=True, equalize=True), uneven_names(of)[:1])
    q = simulate.quantize(found.example, found.graph.tensors[INPUT])
    assert torch.isfinite(simulate.run(found.graph, q)).all() and found.output_noise_db < -10


def uneven_names(of) -> list[str]:
    return [node.name for node in of.nodes if isinstance(node, Weighted)]
