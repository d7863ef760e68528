"""Bilinear resizes by factors that a target is known to compute correctly: a large one becomes several small ones.

An accelerator may accept a RESIZE_BILINEAR and compute it wrongly at some ratios. Two resizes by 4 are not quite one by
16, so the graph is rewritten before it is simulated and written: what is scored is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement, count
from math import prod

from nas.errors import QuantizationError
from nas.quant.integer_graph import IntegerGraph, Operator, QResize


def steps(factor: int, safe: Sequence[int]) -> tuple[int, ...] | None:
    """The fewest `safe` factors whose product is `factor`, ascending and as even as possible; None if there are none.

    Ascending, so that the larger maps come late: 32 is 4 and then 8.
    """
    usable = sorted(s for s in safe if s > 1 and factor % s == 0)
    for length in count(1):
        products = [c for c in combinations_with_replacement(usable, length) if prod(c) == factor]
        if products:
            return min(products, key=max)
        if not usable or usable[0] ** length > factor:
            return None
    raise AssertionError  # count() has no end


def safe_steps(
    name: str, before: tuple[int, int], after: tuple[int, int], safe: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """The (height, width) after each of the safe resizes from `before` to `after`; the last one is `after`.

    Equal sizes and a 1 x 1 map (a broadcast) are safe as they are. Raises `QuantizationError` naming the tensor and
    the ratio where the two axes' factors differ, are not integers, or are not products of safe ones.
    """
    if before in ((1, 1), after):
        return (after,)
    resize = f"'{name}' resizes {before[0]}x{before[1]} to {after[0]}x{after[1]}"
    allowed = ", ".join(map(str, safe))
    (height, over_height), (width, over_width) = (divmod(a, b) for a, b in zip(after, before, strict=True))
    if over_height or over_width or height != width:
        ratio = f"{after[0] / before[0]:.4g} times the height, {after[1] / before[1]:.4g} times the width"
        raise QuantizationError(
            f"{resize}, {ratio}: the target is correct only where both grow by the same integer factor (of {allowed}); "
            "make the input's height and width multiples of the network's output stride"
        )
    parts = steps(height, safe)
    if parts is None:
        raise QuantizationError(
            f"{resize}, {height} times: not a product of factors that the target computes correctly ({allowed}); "
            "change the network's output stride"
        )
    factors = (prod(parts[: i + 1]) for i in range(len(parts)))
    return tuple((before[0] * f, before[1] * f) for f in factors)


def split_resizes(graph: IntegerGraph, factors: Sequence[int]) -> IntegerGraph:
    """`graph` with every resize made of safe `factors`; unchanged if there are none.

    A split resize's last part keeps its name, the others append their size. Raises as `safe_steps` does.
    """
    if not factors:
        return graph
    tensors, operators = dict(graph.tensors), list[Operator]()
    for op in graph.operators:
        if not isinstance(op, QResize) or op != QResize(op.name, op.x):  # half pixels, bilinear
            operators.append(op)
            continue
        x, y = graph.tensors[op.x], graph.tensors[op.name]
        *between, _ = safe_steps(op.name, (x.shape[0], x.shape[1]), (y.shape[0], y.shape[1]), factors)
        source = op.x
        for height, width in between:
            name = f"{op.name}/{height}x{width}"
            tensors[name] = replace(y, name=name, shape=(height, width, y.shape[2]))
            operators.append(QResize(name, source))
            source = name
        operators.append(QResize(op.name, source))
    return replace(graph, tensors=tensors, operators=tuple(operators))
