"""Calibration: the range of every tensor over the calibration images.

Source: post-training quantization with min-max ranges (QA-BWNAS, section 3). Ranges of several
batches are merged by the widest.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from nas.errors import QuantizationError
from nas.quant.float_graph import INPUT, Concat, Node, Resize, inputs_of

Range = tuple[float, float]

IMAGE_RANGE: Range = (-1.0, 127 / 128)
"""The input's: int8 = uint8 - 128 with scale 1/128 and zero point 0."""


def observe(x: Tensor, name: str) -> Range:
    """The smallest and the largest value of `x`; `QuantizationError` naming the tensor if it is not finite."""
    low, high = (float(end) for end in x.aminmax())
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise QuantizationError(f"tensor '{name}' holds NaN or infinity: the network diverged; retrain it")
    return low, high


def widest(a: Range | None, b: Range) -> Range:
    return b if a is None else (min(a[0], b[0]), max(a[1], b[1]))


def calibrate(nodes: Iterable[Node], batches: Iterable[Tensor]) -> dict[str, Range]:
    """The range of every tensor of `nodes` over batches of images (N, 3, H, W)."""
    nodes = list(nodes)
    needed = {
        name: max(i for i, n in enumerate(nodes) if name in inputs_of(n))
        for name in {x for n in nodes for x in inputs_of(n)}
    }
    ranges: dict[str, Range] = {}
    for batch in batches:
        env = {INPUT: batch}
        for i, node in enumerate(nodes):
            y = node(env)
            ranges[node.name] = widest(ranges.get(node.name), observe(y.float(), node.name))
            env[node.name] = y
            for name in inputs_of(node):
                if needed[name] == i:
                    env.pop(name, None)  # keeps memory at the widest cut of the graph
    if not ranges:
        raise QuantizationError("no calibration images: ranges cannot be known; set quant.calibration_images")
    ranges[INPUT] = IMAGE_RANGE
    return tie(nodes, ranges)


def tie(nodes: Iterable[Node], ranges: dict[str, Range]) -> dict[str, Range]:
    """One range for tensors that must share scale and zero point: around CONCATENATION and RESIZE_BILINEAR."""
    groups: dict[str, set[str]] = {}
    for node in nodes:
        if isinstance(node, Concat | Resize):
            group = {node.name, *inputs_of(node)}
            group = group.union(*(groups.get(name, set()) for name in group))
            groups.update(dict.fromkeys(group, group))
    tied = dict(ranges)
    for name, group in groups.items():
        low, high = zip(*(ranges[member] for member in group), strict=True)
        tied[name] = (min(low), max(high))
    return tied
