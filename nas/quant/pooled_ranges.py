"""Calibration by an observer that sees all batches at once, on a sample of every tensor's values.

`nas.quant.ranges.calibrate` has the union of every batch's range, in which the outliers of each remain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import gcd

import torch
from torch import Tensor

from nas.quant.float_graph import INPUT, Const, Node, stepwise
from nas.quant.ranges import (
    IMAGE_RANGE,
    Observer,
    Range,
    as_stored,
    at_width,
    observe,
    of_constant,
    tie,
    widest,
    widths_of,
)

SAMPLE = 100_000  # values of one tensor: 0.01 % of them are ten


@torch.no_grad()
def calibrate_pooled(
    nodes: Iterable[Node], batches: Sequence[Tensor], observer: Observer, outputs: Collection[str] = ()
) -> dict[str, Range]:
    """The range of every tensor of `nodes` over batches (N, C, H, W); `outputs` keep all of their values."""
    nodes = list(nodes)
    ends: dict[str, Range] = {INPUT: IMAGE_RANGE}
    samples: dict[str, list[Tensor]] = {}
    share = SAMPLE / sum(map(len, batches))
    for batch in batches:
        for node, y in stepwise(nodes, {INPUT: batch}):
            if isinstance(node, Const):
                ends[node.name] = of_constant(node)
                continue
            ends[node.name] = widest(ends.get(node.name), observe(y.float(), node.name))
            if node.name not in outputs:
                samples.setdefault(node.name, []).append(sample(y, round(share * len(batch))))
    widths = widths_of(nodes)
    found = {name: at_width(observer, widths[name])(torch.cat(parts)) for name, parts in samples.items()}
    return tie(nodes, ends | {name: (low, high) for name, (low, high) in found.items() if low < high})


def sample(y: Tensor, count: int) -> Tensor:
    """At least `count` elements of `y`, if it has as many, at even distances: from all channels, rows and columns."""
    flat = as_stored(y).flatten()
    step = max(1, len(flat) // max(1, count))
    while gcd(step, len(flat)) > 1:
        step -= 1
    return flat[::step].float().clone()
