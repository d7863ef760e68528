"""Empirical bias correction: subtract from every bias the mean error that quantization left in its channel.

Source: Nagel et al., arXiv 1906.04721, section 4.2 and appendix D: layer by layer in execution order,
the earlier ones already quantized and corrected, the difference between the mean of the quantized and of the float
pre-activation of each output channel, E[y~] - E[y], is taken off its bias. Pre-activations, because the mean of a
clipped difference does not give the error of the clipped values. Here the quantized ones are the deployed int32
accumulators, so the correction is an integer in the bias's own units and no clamp of the output hides a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nas.quant import simulate
from nas.quant.file_order import dimension
from nas.quant.float_graph import Node, Weighted, activated, last_reads
from nas.quant.integer_graph import IntTensor, Operator
from nas.quant.integer_graph import Weighted as QWeighted

INT32 = np.iinfo(np.int32)


@torch.no_grad()
def correct_biases(
    nodes: Sequence[Node],
    operators: Sequence[Operator],
    tensors: dict[str, IntTensor],
    floats: Sequence[Mapping[str, Tensor]],
    integers: Sequence[dict[str, Tensor]],
) -> list[Operator]:
    """`operators` with corrected biases.

    `floats` and `integers` hold, for each calibration batch, the inputs (N, C, H, W) of `nodes` and `operators`: real
    values and integers. The last operator's integers are added to `integers`; others are freed after their last use.
    Correcting a block layer by layer gives the same biases as correcting it at once.
    """
    reals = [dict(env) for env in floats]
    corrected: list[Operator] = []
    for (node, parts), done in zip(_by_node(nodes, operators), last_reads(nodes), strict=True):
        *before, operator = parts
        if isinstance(node, Weighted) and isinstance(operator, QWeighted):
            expected = _mean([_pre_activation(node, env) for env in reals])
            operator = _corrected(operator, tensors[operator.x], expected, integers)
        else:
            for env in reals:
                env[node.name] = node(env)
        for env in integers:
            simulate.simulate([*before, operator], tensors, env)
        for env in (*reals, *integers):
            for name in (*done, *(part.name for part in before)):
                env.pop(name, None)
        corrected += [*before, operator]
    return corrected


def _by_node(nodes: Iterable[Node], operators: Iterable[Operator]) -> Iterator[tuple[Node, list[Operator]]]:
    """Each node with its operators: what prepares its inputs, then the one by its name."""
    left = iter(operators)
    for node in nodes:
        parts = [next(left)]
        while parts[-1].name != node.name:
            parts.append(next(left))
        yield node, parts


def _pre_activation(node: Weighted, env: dict[str, Tensor]) -> Tensor:
    """The node's result before its activation; the activated one is stored in `env`."""
    y = replace(node, activation="none")(env)
    env[node.name] = activated(y, node.activation)
    return y


def _mean(maps: Sequence[Tensor]) -> Tensor:
    """Each channel's mean (C,), float64, over maps (N, C, H, W), or (N, ..., C), of several batches."""
    by_channel = [y.double().movedim(dimension(y, -1), 0).flatten(1) for y in maps]
    return torch.stack([y.sum(1) for y in by_channel]).sum(0) / sum(y.shape[1] for y in by_channel)


def _corrected(op: QWeighted, x: IntTensor, expected: Tensor, integers: Sequence[Mapping[str, Tensor]]) -> QWeighted:
    """`op` with the bias for which its accumulators have the float network's `expected` mean in each channel, (C,)."""
    unit = np.float64(np.float32(x.scale)) * op.weight_scale.astype(np.float64)
    actual = _mean([simulate.accumulate(op, env[op.x], x) for env in integers]).numpy()
    error = np.rint(actual - expected.numpy() / unit)
    bias = (op.bias - error).clip(INT32.min, INT32.max).astype(np.int32)
    return replace(op, bias=bias)
