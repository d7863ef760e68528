"""Cross-layer equalization: even out the channels of a weight, so that a per-tensor scale wastes fewer bits.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (DFQ),
arXiv 1906.04721, eq. 11: what the first convolution's channel i is divided by, s_i = sqrt(r1_i r2_i) / r2_i, the
second's input channel i is multiplied by. Two things differ:

- RELU commutes with a scale, RELU6 only below its clip. DFQ replaces it by RELU, which is another function. Here a
  channel that reaches 6 on the calibration data keeps s_i = 1, and no other channel is raised so far that it
  would: on the calibration data the float function is the same up to rounding. Elsewhere, a lowered channel
  (s_i > 1) can only clip later than before, a raised one earlier; `HEADROOM` keeps it away from that.
- r1_i and r2_i are taken as shares of their tensors' largest. This is eq. 11 up to one factor for the entire
  tensor, which does not matter to a per-tensor scale, and no tensor's largest weight ever grows, whichever channels
  must stay as they are.

Chains of convolutions are equalized, each rectified and read by the next one only: expand -> depthwise -> project.
Projections are not rectified, so no chain reaches beyond an inverted residual, and the tree of prefixes (nas/nsr.py)
can share equalized layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nas.quant.float_graph import Conv, Node, inputs_of, last_reads, stepwise

CLIP = 6.0
HEADROOM = 1.25
"""A raised channel's largest calibrated value stays below the tensor's largest by this factor."""
PASSES = 20
CONVERGED = 1e-3


def equalize(
    nodes: Sequence[Node], calibration: Sequence[Mapping[str, Tensor]], outputs: Collection[str] = ()
) -> list[Node]:
    """`nodes` with equalized weights, given their inputs for each calibration batch: name to (N, C, H, W).

    Chain by chain in execution order, each on the maps of the equalized ones before it: equalizing a block layer by
    layer gives the same weights, bit for bit, as equalizing it at once.
    """
    chains = _chains(nodes, outputs)
    envs = [dict(env) for env in calibration]
    replaced: dict[str, Node] = {}
    for node, done in zip(nodes, last_reads(nodes), strict=True):
        if node.name in chains:
            chain = chains.pop(node.name)
            replaced |= {conv.name: conv for conv in _equalized(chain, _peaks(chain, envs))}
        if not chains:
            break  # no later chain needs maps
        for env in envs:
            env[node.name] = replaced.get(node.name, node)(env)
            for name in done:
                del env[name]
    return [replaced.get(node.name, node) for node in nodes]


def _chains(nodes: Sequence[Node], outputs: Collection[str]) -> dict[str, list[Conv]]:
    """By the first one's name, convolutions in a row, each rectified and read by the next one only."""
    readers = Counter([*(name for node in nodes for name in inputs_of(node)), *outputs])
    chains: dict[str, list[Conv]] = {}  # by the last one's name
    for node in nodes:
        if isinstance(node, Conv):
            before = chains.get(node.x)
            linked = before is not None and before[-1].activation != "none" and readers[node.x] == 1
            linked = linked and _reads_all(node, len(chains[node.x][-1].weight))
            chains[node.name] = [*chains.pop(node.x), node] if linked else [node]
    return {chain[0].name: chain for chain in chains.values() if len(chain) > 1}


def _peaks(chain: Sequence[Conv], envs: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """For each map inside the chain, the largest value of each channel (C,), float64, over all batches."""
    batches = [[y.amax((0, 2, 3)).double() for _, y in stepwise(chain, env)][:-1] for env in envs]
    return [torch.stack(peaks).amax(0) for peaks in zip(*batches, strict=True)]


def _equalized(chain: Sequence[Conv], peaks: Sequence[Tensor]) -> list[Conv]:
    """The chain after passes over its pairs until nothing changes."""
    convs = [replace(conv, weight=conv.weight.double(), bias=conv.bias.double()) for conv in chain]
    total = [torch.ones_like(peak) for peak in peaks]
    for _ in range(PASSES):
        change = 0.0
        for i, peak in enumerate(peaks):
            factor = factors(convs[i], convs[i + 1], peak, total[i])
            total[i] = total[i] * factor
            convs[i : i + 2] = _rescaled(convs[i], convs[i + 1], factor)
            change = max(change, float(factor.log().abs().max()))
        if change < CONVERGED:
            break
    return [replace(conv, weight=conv.weight.float(), bias=conv.bias.float()) for conv in convs]


def factors(first: Conv, second: Conv, peak: Tensor, before: Tensor) -> Tensor:
    """The divisors of the channels between two convolutions, (C,).

    `peak` is each channel's largest value before any rescaling, `before` its divisor so far.
    """
    rows = first.weight.abs().amax((1, 2, 3))
    columns = _by_input(second, len(peak)).abs().amax((1, 2, 3))
    alive = (rows > 0) & (columns > 0)
    wanted = torch.sqrt((rows / rows.max()) / (columns / columns.max()))
    # Against the map as it was: lowering the largest channel must not tie down the others in the next pass.
    lowest = (HEADROOM * peak / peak.max()).clamp(max=1.0) / before
    wanted = torch.maximum(wanted, lowest)
    free = alive & (peak > 0) & (peak < (CLIP if first.activation == "relu6" else math.inf))
    return torch.where(free, wanted, torch.ones_like(wanted))


def _is_depthwise(second: Conv, channels: int) -> bool:
    return second.weight.shape[1] == 1 and channels == second.weight.shape[0]


def _reads_all(second: Conv, channels: int) -> bool:
    """Whether it is depthwise or not grouped at all."""
    return second.weight.shape[1] == channels or _is_depthwise(second, channels)


def _by_input(second: Conv, channels: int) -> Tensor:
    """The weight with its input channels first, where a depthwise one's already are."""
    return second.weight if _is_depthwise(second, channels) else second.weight.transpose(0, 1)


def _rescaled(first: Conv, second: Conv, factor: Tensor) -> tuple[Conv, Conv]:
    by_row = factor[:, None, None, None]
    weight = second.weight * (by_row if _is_depthwise(second, len(factor)) else factor[None, :, None, None])
    return replace(first, weight=first.weight / by_row, bias=first.bias / factor), replace(second, weight=weight)
