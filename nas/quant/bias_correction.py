"""Empirical bias correction: subtract from every bias the mean error that quantization left in its channel.

Source: Nagel et al., arXiv 1906.04721, section 4.2 and appendix D: layer by layer in execution order,
the earlier ones already quantized and corrected, the difference between the mean of the quantized and of the float
pre-activation of each output channel, E[y~] - E[y], is taken off its bias. Pre-activations, because the mean of a
clipped difference does not give the error of the clipped values. Here the quantized ones are the deployed int32
accumulators, so the correction is an integer in the bias's own units and no clamp of the output hides a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nas.quant import simulate
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
    for node, operator, done in zip(nodes, operators, last_reads(nodes), strict=True):
        if isinstance(node, Weighted) and isinstance(operator, QWeighted):
            expected = _mean([_pre_activation(node, env) for env in reals])
            operator = _corrected(operator, tensors[operator.x], expected, integers)  # noqa: PLW2901
        else:
            for env in reals:
                env[node.name] = node(env)
        for env in integers:
            env[node.name] = simulate.apply(operator, env, tensors)
        for env in (*reals, *integers):
            for name in done:
                del env[name]
        corrected.append(operator)
    return corrected


def _pre_activation(node: Weighted, env: dict[str, Tensor]) -> Tensor:
    """The node's result before its activation; the activated one is stored in `env`."""
    y = replace(node, activation="none")(env)
    env[node.name] = activated(y, node.activation)
    return y


def _mean(maps: Sequence[Tensor]) -> Tensor:
    """Each channel's mean (C,), float64, over maps (N, C, H, W) of several batches."""
    total = torch.stack([y.double().sum((0, 2, 3)) for y in maps]).sum(0)
    return total / sum(y.numel() // y.shape[1] for y in maps)


def _corrected(op: QWeighted, x: IntTensor, expected: Tensor, integers: Sequence[Mapping[str, Tensor]]) -> QWeighted:
    """`op` with the bias for which its accumulators have the float network's `expected` mean in each channel, (C,)."""
    unit = np.float64(np.float32(x.scale)) * op.weight_scale.astype(np.float64)
    actual = _mean([simulate.accumulate(op, env[op.x], x) for env in integers]).numpy()
    error = np.rint(actual - expected.numpy() / unit)
    bias = (op.bias - error).clip(INT32.min, INT32.max).astype(np.int32)
    return replace(op, bias=bias)
