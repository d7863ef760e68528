"""The integers of a layer's weights: their grid, and the rounding to it.

Weights of 8 bits are symmetric, S = max |w| / 127. Those of fewer bits are asymmetric by default, as in QA-BWNAS's
quantizer, Q(r) = Int(r / S) - Z, on the range that loses least: q - Z of less than 8 bits lies within int8, so that
such weights run as int8 weights with zero point 0, and no operator knows of Z. `hilnas study few-bits` says what that
gains on a network's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import QuantizationError
from nas.quant.float_graph import Grid, Weighted
from nas.quant.scheme import FewBits, Granularity

SHARES = tuple(1 - i / 20 for i in range(13))
"""Of the full range, from its ends towards zero: the ranges that are tried."""
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class Deployed:
    """A layer's integers: weight (O, ...), its scales (O,) or (1,), and the bias in units of input x weight scale.

    `offset` is the lowest integer of each scale's weights; None: they are symmetric.
    """

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    offset: NDArray[np.int8] | None


@torch.no_grad()
def quantize_weight(
    node: Weighted, input_scale: float, granularity: Granularity, few_bits: FewBits = "asymmetric"
) -> Deployed:
    """A layer's integers, given the scale of its input; computed on the CPU, so that every device gives the same.

    Raises `QuantizationError` naming a layer that is not finite.
    """
    symmetric = node.bits >= 8 or few_bits == "symmetric"
    if symmetric and node.grid is None:
        return symmetric_weight(node, input_scale, granularity)
    check_finite(node)
    here = _on_cpu(node)
    grid = grid_of(here, input_scale, granularity, few_bits)
    per_unit = 1 / (grid.scale * torch.tensor(input_scale, dtype=torch.float32))
    bias = torch.round(here.bias * per_unit).to(torch.int32)
    return Deployed(
        on_grid(here.weight, grid).to(torch.int8).numpy(),
        grid.scale.numpy(),
        bias.numpy(),
        None if symmetric else grid.low.to(torch.int8).numpy(),
    )


def symmetric_weight(node: Weighted, input_scale: float, granularity: Granularity) -> Deployed:
    """The fast path, in numpy: the same integers as by `grid_of` and `on_grid`, in a third of the time."""
    weight, bias = (part.detach().cpu().numpy() for part in (node.weight, node.bias))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        check_finite(node)
    limit = 2 ** (node.bits - 1) - 1
    peak = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    least = np.maximum(np.abs(bias.astype(np.float64)) / (input_scale * 2.0**30), SMALLEST_SCALE)
    scale = np.maximum(peak / limit, least)
    if granularity == "tensor":
        scale = scale.max(keepdims=True)
    scale32 = scale.astype(np.float32)
    inverse = (np.float32(1) / scale32).reshape(-1, *[1] * (weight.ndim - 1))
    quantized = np.rint(weight * inverse).clip(-limit, limit).astype(np.int8)
    per_unit = np.float32(1) / (scale32 * np.float32(input_scale))
    return Deployed(quantized, scale32, np.rint(bias * per_unit).astype(np.int32), None)


def check_finite(node: Weighted) -> None:
    if not (node.weight.isfinite().all() and node.bias.isfinite().all()):
        raise QuantizationError(f"layer '{node.name}' holds NaN or infinity: the network diverged; retrain it")


def _on_cpu(node: Weighted) -> Weighted:
    grid = node.grid and Grid(node.grid.scale.cpu(), node.grid.low.cpu(), node.grid.steps)
    return replace(node, weight=node.weight.detach().cpu(), bias=node.bias.detach().cpu(), grid=grid)


@torch.no_grad()
def grid_of(node: Weighted, input_scale: float, granularity: Granularity, few_bits: FewBits = "asymmetric") -> Grid:
    """The grid of a layer's weights, given the scale of its input: that which they were rounded to, if there is one."""
    weight, bias = node.weight.detach(), node.bias.detach()
    # A (nearly) dead channel keeps its bias: the scale is never so small that the bias leaves int32.
    least = (bias.double().abs() / (input_scale * 2.0**30)).clamp(min=SMALLEST_SCALE)
    if granularity == "tensor":
        least = least.max().reshape(1)
    if node.grid is not None:
        return Grid(torch.maximum(node.grid.scale, least.float()), node.grid.low, node.grid.steps)
    rows = weight.reshape(len(least), -1)  # one for each scale
    if node.bits < 8 and few_bits == "asymmetric":
        return _least_squares(rows, least, node.bits)
    limit = 2 ** (node.bits - 1) - 1
    scale = torch.maximum(rows.abs().amax(1).double() / limit, least)
    return Grid(scale.float(), torch.full_like(scale, -limit), 2 * limit)


def _least_squares(rows: Tensor, least: Tensor, bits: int) -> Grid:
    """The range of each row (n, K) with the least squared error, of `SHARES` of that of its weights and zero."""
    steps = 2**bits - 1
    low, high = (end.double() for end in (rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)))
    least_error = rows.new_full((len(rows),), torch.inf)
    best_scale, best_low = torch.ones_like(least_error), torch.zeros_like(low)
    for share in SHARES:
        scale = torch.maximum((high - low) * share / steps, least)
        grid = Grid(scale.float(), torch.round(low * share / scale), steps)
        error = (on_grid(rows, grid) * grid.scale[:, None] - rows).square().sum(1)
        better = error < least_error  # of equal ones the widest
        least_error = torch.where(better, error, least_error)
        best_scale = torch.where(better, grid.scale, best_scale)
        best_low = torch.where(better, grid.low, best_low)
    return Grid(best_scale, best_low, steps)


def on_grid(weight: Tensor, grid: Grid) -> Tensor:
    """The grid's integers nearest to `weight` (O, ...), as floats.

    By reciprocals in float32, as in the TensorFlow converter, so that ties are rounded in the same direction.
    """
    along = (-1, *[1] * (weight.ndim - 1))
    low = grid.low.to(weight.dtype).reshape(along)
    return torch.round(weight * (1 / grid.scale).reshape(along)).clamp(low, low + grid.steps)


def straight_through(weight: Tensor, grid: Grid) -> Tensor:
    """`weight` (O, ...) rounded to its grid, as real values; its gradient is the result's (arXiv 1308.3432)."""
    with torch.no_grad():
        error = on_grid(weight, grid) * grid.scale.reshape(-1, *[1] * (weight.ndim - 1)) - weight
    rounded: Tensor = weight + error
    return rounded
