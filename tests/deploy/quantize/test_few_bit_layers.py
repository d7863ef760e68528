"""Weights of fewer than 8 bits in every layer that has any: the file's outputs are the simulation's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.importers.network import ImportedNetwork, Value
from deploy.quantize import quantize
from nas.quant.float_graph import INPUT, Conv, FullyConnected, Node, Reshape, TransposedConv
from nas.quant.integer_graph import Weighted
from nas.quant.scheme import FewBits, Rounding, Scheme
from tests.deploy.networks import widest_span
from tests.deploy.quantize.test_quantized_networks import exact


def network(bits: int) -> ImportedNetwork:
    """A plain, a grouped, a depthwise (two results per channel) and a transposed convolution, and two products."""
    generator = torch.Generator().manual_seed(bits)

    def drawn(*shape: int) -> Tensor:
        return 0.4 * torch.randn(*shape, generator=generator)

    nodes: list[Node] = [
        Conv("plain", INPUT, drawn(8, 3, 3, 3), drawn(8), 2, activation="relu", bits=bits),
        Conv("grouped", "plain", drawn(8, 4, 3, 3), drawn(8), activation="relu6", bits=bits),
        Conv("depthwise", "grouped", drawn(16, 1, 3, 3), drawn(16), bits=bits),
        TransposedConv("transposed", "depthwise", drawn(4, 16, 2, 2), drawn(4), 2, bits=bits),
        Reshape("rows", "transposed", (12, 48)),
        FullyConnected("product", "rows", drawn(6, 48), drawn(6), bits=bits),
        Reshape("vector", "product", (-1,)),
        FullyConnected("last", "vector", drawn(5, 72), drawn(5), bits=bits),
    ]
    outputs = {"last": Value("last", (1, 5), (None, None, 1))}
    return ImportedNetwork(tuple(nodes), Value(INPUT, (1, 3, 12, 12), (2, 3, 1)), outputs, "x")


@pytest.mark.parametrize("rounding", ["nearest", "adaptive"])
@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("scheme", ["channel int8", "tensor int8", "tensor uint8"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_few_bits_in_every_layer(bits: int, scheme: str, few_bits: FewBits, rounding: Rounding) -> None:
    images = np.random.default_rng(0).standard_normal((6, 12, 12, 3), np.float32)
    options = Scheme(few_bits=few_bits, rounding=rounding)
    found = quantize(network(bits), [images], QuantizationScheme.parse(scheme), options)
    layers = [op for op in found.graph.operators if isinstance(op, Weighted)]
    assert len(layers) == 6 and all(0 < widest_span(op) < 2**bits for op in layers)
    exact(found)
