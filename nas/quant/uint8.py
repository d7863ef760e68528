"""Run an `IntegerGraph` bit for bit as LiteRT does on a CPU when it is written in uint8 (every value shifted by 128).

XNNPACK runs everything except depthwise convolutions and average pooling: those run on the builtin kernels, which round
as the reference kernels do. Here, as everywhere, integers are those of int8.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas.quant import reference, simulate
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator, QAveragePool, QConv, QMean
from nas.quant.integer_windows import sums


def apply(op: Operator, env: dict[str, Tensor], tensors: dict[str, IntTensor]) -> Tensor:
    """One operator's result from the integers in `env`."""
    if isinstance(op, QConv) and op.depthwise:
        q = env[op.x].numpy().astype(np.int64)
        return torch.from_numpy(reference.conv(op, q, tensors, unsigned=True)).float()
    if isinstance(op, QMean):
        return simulate.mean(op, env[op.x], tensors[op.x], tensors[op.name], 128)
    if isinstance(op, QAveragePool):  # ties go up, as away from zero among unsigned integers
        total, count = sums(env[op.x].double(), op)
        return torch.floor(total / count + 0.5).float()
    return simulate.apply(op, env, tensors)


def run(graph: IntegerGraph, q: Tensor) -> Tensor:
    """The graph's output for quantized images (N, C, H, W), in int8's integers."""
    return simulate.run(graph, q, apply)
