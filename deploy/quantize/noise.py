"""How far every tensor of the integers is from the float network's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deploy.quantize.record import EXACT_DB
from nas.quant.float_graph import INPUT, Node, stepwise
from nas.quant.integer_graph import IntegerGraph
from nas.quant.simulate import Applied, dequantize, quantize, steps


@dataclass
class Sums:
    """Of squares, over all images, by the names of tensors."""

    errors: dict[str, float] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, y: Tensor, error: Tensor) -> None:
        """Of one tensor's values, and of what the integers are off by."""
        self.errors[name] = self.errors.get(name, 0.0) + _squares(error)
        self.values[name] = self.values.get(name, 0.0) + _squares(y)

    def decibels(self) -> dict[str, float]:
        """Of the noise of each tensor."""
        return {name: decibels(error, self.values[name]) for name, error in self.errors.items()}


def _squares(y: Tensor) -> float:
    """Their sum; in float32, whose rounding is far below a thousandth of a decibel."""
    return float(torch.linalg.vector_norm(y)) ** 2


@torch.no_grad()
def noise_of(
    nodes: Sequence[Node], graph: IntegerGraph, batches: Iterable[Tensor], applied: Applied
) -> dict[str, float]:
    """The noise in decibels of every tensor that `nodes` and their integers `graph` both have, by its name.

    `batches` (N, C, H, W) are what the network reads, `applied` what computes the integers.
    """
    sums = Sums()
    for x in (x.contiguous() for x in batches):  # as the integers of pointwise convolutions lie in memory
        source = graph.tensors[INPUT]
        q = quantize(x, source)
        sums.add(INPUT, x, dequantize(q, source) - x)
        reals = stepwise(nodes, {INPUT: x})
        node, y = next(reals)
        for op, found in steps(graph, q, applied):
            if op.name != node.name:
                continue  # it only gives another operator's input its scale
            tensor = graph.tensors[op.name]
            if tensor.dtype != "int32":
                sums.add(op.name, y, dequantize(found, tensor).sub_(y))
            node, y = next(reals, (node, y))
    return sums.decibels()


def decibels(error: float, value: float) -> float:
    """Of two sums of squares; a tensor that is zero has all of its error as noise."""
    return 10 * math.log10(error / value) if error and value else 0.0 if error else EXACT_DB
