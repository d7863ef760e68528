"""Float operators that TFLite has not on integers, as several that it has: the same function, before calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from nas.quant.float_graph import Add, AveragePool, Clip, Const, Mul, Node, Pad, Sub
from nas.quant.names import unused
from nas.quant.shapes import Shape
from nas.quant.windows import UNPADDED


def expressed(nodes: Sequence[Node], shapes: Mapping[str, Shape]) -> list[Node]:
    """`nodes` that can be lowered, as far as there is a way; results keep their names. `shapes` has every tensor's."""
    taken = set(shapes)
    return [part for node in nodes for part in _parts(node, shapes, taken)]


def _parts(node: Node, shapes: Mapping[str, Shape], taken: set[str]) -> Iterator[Node]:
    if isinstance(node, Clip) and not node.low <= 0 <= node.high:
        yield from _clip(node, len(shapes[node.x]), taken)
    elif isinstance(node, AveragePool) and not has_kernel(node, shapes[node.x]):
        yield from _average_pool(node, shapes[node.x], taken)
    else:
        yield node


def has_kernel(node: AveragePool, shape: Shape) -> bool:
    """Whether its padding is none, or SAME: no other padding is left out of the mean."""
    same = replace(node.window, padding="same").pads((shape[0], shape[1]))
    return node.padding in ("same", UNPADDED, same)


def _clip(node: Clip, rank: int, taken: set[str]) -> Iterator[Node]:
    """Limits on one side of zero, which every range of integers holds: moved to it, and back."""
    end, shifted, clipped = (_name(f"{node.name}/{part}", taken) for part in ("end", "shifted", "clipped"))
    above = node.low > 0
    yield Const(end, torch.full([1] * (rank + 1), node.low if above else node.high))
    yield Sub(shifted, node.x, end) if above else Sub(shifted, end, node.x)
    yield Clip(clipped, shifted, 0.0, node.high - node.low)
    yield Add(node.name, clipped, end) if above else Sub(node.name, end, clipped)


def _average_pool(node: AveragePool, shape: Shape, taken: set[str]) -> Iterator[Node]:
    """Means in which the padding's zeros count, times what each window holds over what it should."""
    assert node.padding != "same"  # noqa: S101 (`has_kernel`)
    top, bottom, left, right = node.padding
    padded, counted, share = (_name(f"{node.name}/{part}", taken) for part in ("padded", "counted", "share"))
    yield Pad(padded, node.x, (top, bottom), (left, right))
    yield AveragePool(counted, padded, node.kernel, node.stride)
    ones = torch.ones(1, 1, shape[0], shape[1])
    held = replace(node, x="ones", padding=UNPADDED)({"ones": node.window.padded(ones)})
    yield Const(share, 1 / held)
    yield Mul(node.name, counted, share)


def _name(wanted: str, taken: set[str]) -> str:
    name = unused(wanted, taken)
    taken.add(name)
    return name
