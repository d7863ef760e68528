"""Adaptive rounding: each weight is rounded up or down to minimise the layer's output error, not the weight's own.

Source: Nagel et al., arXiv 2004.10568, section 3: the task's loss is replaced by the layer's squared output error,
dw' E[xx'] dw, a quadratic over one bit per weight. The paper relaxes and trains it; here it is minimised by coordinate
descent, one flip at a time from the nearest rounding, so no layer's error on the calibration images can grow. Every
layer reads the float network's maps (the paper's asymmetric form, which reads the quantized ones, is left out), so that
the tree of prefixes (nas/nsr.py) rounds a layer as the full network does. Transposed convolutions are left out: they
keep the nearest rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import QuantizationError
from nas.quant.file_order import to_file_order
from nas.quant.float_graph import Conv, FullyConnected, Node, Weighted, last_reads
from nas.quant.scheme import FewBits, Granularity
from nas.quant.weights import check_finite, grid_of, on_grid
from nas.quant.windows import pair

MOST_INPUTS = 4096  # of one output: the Gram matrix of more would not fit; such a layer keeps the nearest rounding
ON_GRID = 1e-3  # steps; a weight this close to an integer stays there: a channel's largest, which sets the scale, is
IMAGES_AT_ONCE = 8
FLIPS_PER_WEIGHT = 4  # at most, on average


@torch.no_grad()
def adaptively_rounded(
    nodes: Sequence[Node],
    calibration: Sequence[Mapping[str, Tensor]],
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
) -> list[Node]:
    """`nodes` with weights on the grid of their own `bits`, which they bear: quantizing leaves them there.

    `calibration` has the nodes' inputs for each batch of images, by name (N, C, H, W). Raises `QuantizationError` if
    there are none, or for weights that are not finite.
    """
    return rounded(nodes, gram_matrices(nodes, calibration), granularity, few_bits)


@torch.no_grad()
def rounded(
    nodes: Sequence[Node],
    grams: Mapping[str, Tensor],
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
) -> list[Node]:
    """`adaptively_rounded`, given the Gram matrices of the layers' inputs; layers that have none stay as they are."""
    return [
        _rounded(node, grams[node.name], granularity, few_bits)
        if isinstance(node, Weighted) and node.name in grams
        else node
        for node in nodes
    ]


@torch.no_grad()
def gram_matrices(
    nodes: Sequence[Node], calibration: Sequence[Mapping[str, Tensor]], wanted: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """For each weighted node, the sum of xx' over its input patches x: (groups, K, K) float64, K = I/groups k k.

    Of the nodes in `wanted`; None: of all.
    """
    if not calibration:
        raise QuantizationError("adaptive rounding: no calibration images; give at least one")
    names = {node.name for node in nodes} if wanted is None else set(wanted)
    small = (node for node in nodes if isinstance(node, Weighted) and node.weight[0].numel() <= MOST_INPUTS)
    layers = [node for node in small if isinstance(node, Conv | FullyConnected)]
    left = {layer.name: layer for layer in layers if layer.name in names}
    sums: dict[str, Tensor] = {}
    envs = [dict(env) for env in calibration]
    for node, done in zip(nodes, last_reads(nodes), strict=True):
        if not left:
            break  # no later layer needs maps
        layer = left.pop(node.name, None)
        if layer is not None:
            sums[node.name] = _gram(layer, [env[layer.x] for env in envs])
        for env in envs:
            env[node.name] = node(env)
            for name in done:
                del env[name]
    return sums


def _gram(node: Conv | FullyConnected, maps: Sequence[Tensor]) -> Tensor:
    """The sum of xx' over the input patches x of `node` in maps (N, C, H, W) of several batches."""
    total = torch.zeros((), dtype=torch.float64, device=node.weight.device)
    for part in (part for x in maps for part in torch.split(x, IMAGES_AT_ONCE)):
        columns = _columns(node, part).double()
        total = total + columns @ columns.transpose(1, 2)
    return total


def _columns(node: Conv | FullyConnected, x: Tensor) -> Tensor:
    """The input patch of each output position: (groups, K, positions)."""
    if isinstance(node, FullyConnected):
        return to_file_order(x).flatten(0, -2).T[None]
    groups = x.shape[1] // node.weight.shape[1]
    columns = F.unfold(
        node.window.padded(x), node.kernel, pair(node.dilation), 0, pair(node.stride)
    )  # (N, C k k, positions)
    return columns.transpose(0, 1).reshape(groups, -1, columns.shape[0] * columns.shape[2])


def _rounded(node: Weighted, gram: Tensor, granularity: Granularity, few_bits: FewBits) -> Node:
    check_finite(node)
    grid = grid_of(node, 1.0, granularity, few_bits)  # a scale that a bias needs is found when it is lowered
    along = (-1, *[1] * (node.weight.ndim - 1))
    scale, low = grid.scale.reshape(along), grid.low.double().reshape(along).expand(len(node.weight), *along[1:])
    shape = (gram.shape[0], -1, gram.shape[1])  # groups, outputs of one, K
    q, wanted = (w.double().reshape(shape) for w in (on_grid(node.weight, grid), node.weight.double() / scale))
    least = low.reshape(*shape[:2], 1)
    best = descended(q, wanted, gram, (least, least + grid.steps)).reshape(node.weight.shape)
    return replace(node, weight=(best * scale).to(node.weight.dtype), grid=grid)


def descended(q: Tensor, wanted: Tensor, gram: Tensor, limits: tuple[Tensor, Tensor]) -> Tensor:
    """Integers (groups, R, K), from `q` by flips between the two neighbours of `wanted` until none lowers the error.

    `limits` are the lowest and the highest integer of each row, (groups, R, 1). The steepest flip of every row is taken
    at once: rows do not depend on each other.
    """
    q, error = q.clone(), q - wanted
    step = torch.where(error.abs() > ON_GRID, -torch.sign(error), torch.zeros_like(error))
    step = torch.where((q + step < limits[0]) | (q + step > limits[1]), torch.zeros_like(step), step)
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
