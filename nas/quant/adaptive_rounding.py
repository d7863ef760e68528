"""Adaptive rounding: each weight is rounded up or down to minimise the layer's output error, not the weight's own.

Source: Nagel et al., arXiv 2004.10568, section 3: the task's loss is replaced by the layer's squared output error,
dw' E[xx'] dw, a quadratic over one bit per weight. The paper relaxes and trains it; here it is minimised by coordinate
descent, one flip at a time from the nearest rounding, so no layer's error on the calibration images can grow. Every
layer reads the float network's maps (the paper's asymmetric form, which reads the quantized ones, is left out).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import QuantizationError
from nas.networks.blocks import pad_same
from nas.quant.float_graph import INPUT, FullyConnected, Node, Weighted, run
from nas.quant.lower import quantize_weight
from nas.quant.scheme import Granularity

MOST_INPUTS = 4096  # of one output: the Gram matrix of more would not fit; such a layer keeps the nearest rounding
ON_GRID = 1e-3  # steps; a weight this close to an integer stays there: a channel's largest, which sets the scale, is
IMAGES_AT_ONCE = 8
FLIPS_PER_WEIGHT = 4  # at most, on average


@torch.no_grad()
def adaptively_rounded(
    nodes: Sequence[Node], batches: Iterable[Tensor], granularity: Granularity = "channel"
) -> list[Node]:
    """`nodes` with weights on the grid of their own `bits`; the nearest rounding in `quantize` leaves them there.

    `batches` are calibration images (N, C, H, W). Raises `QuantizationError` if there are none, or for weights that
    are not finite.
    """
    grams = gram_matrices(nodes, batches)
    return [
        _on_grid(node, grams[node.name], granularity) if isinstance(node, Weighted) and node.name in grams else node
        for node in nodes
    ]


@torch.no_grad()
def gram_matrices(nodes: Sequence[Node], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """For each weighted node, the sum of xx' over its input patches x: (groups, K, K) float64, K = I/groups k k."""
    sums: dict[str, Tensor] = {}
    for batch in batches:
        for images in torch.split(batch, IMAGES_AT_ONCE):
            env = {INPUT: images}
            run(nodes, env)
            for node in nodes:
                if isinstance(node, Weighted) and node.weight[0].numel() <= MOST_INPUTS:
                    columns = _columns(node, env[node.x]).double()
                    gram = columns @ columns.transpose(1, 2)
                    sums[node.name] = sums[node.name] + gram if node.name in sums else gram
    if not sums:
        raise QuantizationError("adaptive rounding: no calibration images; give at least one")
    return sums


def _columns(node: Weighted, x: Tensor) -> Tensor:
    """The input patch of each output position: (groups, K, positions)."""
    if isinstance(node, FullyConnected):
        return x.flatten(1).T[None]
    kernel = node.weight.shape[2]
    groups = x.shape[1] // node.weight.shape[1]
    padded = pad_same(x, kernel, node.stride, node.dilation)
    columns = F.unfold(padded, kernel, node.dilation, 0, node.stride)  # (N, C k k, positions)
    return columns.transpose(0, 1).reshape(groups, -1, columns.shape[0] * columns.shape[2])


def _on_grid(node: Weighted, gram: Tensor, granularity: Granularity) -> Node:
    nearest, scales, _ = quantize_weight(node, 1.0, granularity)
    qmax = 2 ** (node.bits - 1) - 1
    scale = torch.from_numpy(scales).to(gram.device).reshape(-1, *[1] * (node.weight.ndim - 1))
    shape = (gram.shape[0], -1, gram.shape[1])  # groups, outputs of one, K
    q = torch.from_numpy(nearest).to(gram.device).double().reshape(shape)
    wanted = (node.weight.double() / scale).reshape(shape)
    best = descended(q, wanted, gram, qmax).reshape(node.weight.shape)
    return replace(node, weight=(best * scale).to(node.weight.dtype))


def descended(q: Tensor, wanted: Tensor, gram: Tensor, qmax: int) -> Tensor:
    """Integers (groups, R, K), from `q` by flips between the two neighbours of `wanted` until none lowers the error.

    The steepest flip of every row is taken at once: rows do not depend on each other.
    """
    q, error = q.clone(), q - wanted
    step = torch.where(error.abs() > ON_GRID, -torch.sign(error), torch.zeros_like(error))
    step = torch.where((q + step).abs() > qmax, torch.zeros_like(step), step)
    curvature = torch.diagonal(gram, dim1=1, dim2=2)[:, None]  # (groups, 1, K)
    slope = error @ gram
    group = torch.arange(len(gram), device=gram.device)[:, None]
    for _ in range(FLIPS_PER_WEIGHT * q.shape[2]):
        change = 2 * step * slope + step.square() * curvature
        least, place = change.min(2)
        taken = torch.where(least < -1e-9 * (1 + curvature.amax(2)), 1.0, 0.0)[:, :, None]
        if not taken.any():
            break
        at = place[:, :, None]
        move = step.gather(2, at) * taken
        q.scatter_add_(2, at, move)
        slope += move * gram[group, place]
        step.scatter_add_(2, at, -2 * move)  # a flipped weight may only flip back
    return q
