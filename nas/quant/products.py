"""1 x 1 convolutions as int8 matrix products with int32 sums: as exact as in float, and faster.

A map (N, I, H, W) is a matrix of I rows, the weights are one of I columns, and both are used as int8 unchanged: the
input's zero point is subtracted at the end, as its product with each output channel's sum of weights.
"""

from __future__ import annotations

from functools import cache
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from nas.quant.integer_graph import IntTensor, QConv, Weighted
from nas.quant.windows import UNPADDED, pair

INT32_EXACT = 2**31
MULTIPLE, ROWS = 8, 24  # CUDA's products require sizes that are multiples of 8, and more than 16 rows


def is_product(op: Weighted, channels: int) -> TypeGuard[QConv]:
    """Whether an operator that reads a map of `channels` is a matrix product at every position."""
    if not isinstance(op, QConv) or op.padding not in ("same", UNPADDED):
        return False
    return not op.depthwise and op.weight.shape[1:] == (1, 1, channels)


@cache
def exact_on(device: torch.device) -> bool:
    """Whether int8 products are exact on `device`; tested once, on the largest factors.

    A processor without VNNI may add two products in 16 bits, which saturate; some devices have no such product.
    """
    extremes = torch.tensor([-128, 127], dtype=torch.int8)
    generator = torch.Generator().manual_seed(0)
    a, b = (extremes[torch.randint(2, shape, generator=generator)] for shape in ((64, 128), (128, 256)))
    try:
        product = torch._int_mm(a.to(device), b.to(device)).cpu()
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(product.long(), a.long() @ b.long())


def accumulate(op: QConv, q: Tensor, x: IntTensor) -> Tensor:
    """The accumulators (N, O, H/s, W/s), bias included, as int32, for the integers `q` (N, I, H, W) of the tensor `x`.

    Exact where no sum of absolute products reaches `INT32_EXACT`.
    """
    vertical, horizontal = pair(op.stride)
    q = q[:, :, ::vertical, ::horizontal]  # SAME pads nothing for 1 x 1 kernels
    outputs, inputs = len(op.weight), q.shape[1]
    count, _, height, width = q.shape
    columns = count * height * width
    weight = torch.zeros(max(_padded(outputs), ROWS), _padded(inputs), dtype=torch.int8)
    weight[:outputs, :inputs] = torch.from_numpy(op.weight.reshape(outputs, inputs))
    rows = torch.zeros(_padded(inputs), _padded(columns), dtype=torch.int8, device=q.device)
    rows[:inputs, :columns].view(inputs, count, height, width).copy_(q.transpose(0, 1))
    sums = op.weight.reshape(outputs, inputs).sum(axis=1, dtype=np.int64)
    offset = torch.from_numpy((op.bias - x.zero_point * sums).astype(np.int32)).to(q.device)
    product = torch._int_mm(weight.to(q.device), rows)[:outputs, :columns].add_(offset[:, None])
    return product.view(outputs, count, height, width).transpose(0, 1)


def _padded(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE
