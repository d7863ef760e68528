"""Calibration: the range of every tensor over the calibration images, by one of `OBSERVERS`.

Source: post-training quantization with min-max ranges (QA-BWNAS, section 3). The range over several batches is the
union of theirs, whatever the observer: outliers of a single batch stay in it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError, QuantizationError
from nas.quant.float_graph import INPUT, Const, Node, Rearranging, Weighted, inputs_of, stepwise

Range = tuple[float, float]
Observer = Callable[[Tensor], Range]
Parameters = tuple[float, int]  # scale and zero point

IMAGE_RANGE: Range = (-1.0, 127 / 128)
"""Of the input image: int8 = uint8 - 128 with scale 1/128 and zero point 0."""
COLUMN = 32  # elements that are reduced to one before the largest are looked for
NARROWEST = 1e-6  # a narrower range has a scale in which TFLite's kernels overflow (6 / scale leaves int32)


def activation_parameters(low: float, high: float, bits: int = 8) -> Parameters:
    """Scale (a float32 value) and int8 zero point for [low, high], widened to hold 0 exactly.

    At fewer than 8 bits the range spans the highest 2^bits integers, S = (high - low) / (2^bits - 1): values above
    `high` are clamped to 127, and values that a fused activation cuts off at 0, to the zero point. Other values below
    `low` take further integers, down to -128: no kernel clamps there.
    """
    if (low, high) == IMAGE_RANGE and bits == 8:
        return 1 / 128, 0
    low, high = min(low, 0.0), max(high, 0.0)
    lowest = lowest_level(bits)
    scale = float(np.float32(max((high - low) / (127 - lowest), 1e-9)))
    return scale, int(np.clip(round(lowest - low / scale), lowest, 127))


def lowest_level(bits: int) -> int:
    """The smallest of the 2^bits integers of a tensor of that many bits; the largest is 127."""
    return 128 - (1 << bits)


def minmax(x: Tensor) -> Range:
    """The smallest and the largest value."""
    low, high = (float(end) for end in as_stored(x).aminmax())
    return low, high


def as_stored(x: Tensor) -> Tensor:
    """`x` with its axes in the order of memory, in which a reduction needs no copy."""
    return x.movedim(1, -1) if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else x


@dataclass(frozen=True)
class Percentile:
    """Leaves out at most 100 - `percent` per cent of the values at each end; no interpolation.

    Min-max where no range would remain: a map that is zero nearly everywhere.
    """

    percent: float = 99.99

    def __call__(self, x: Tensor) -> Range:
        flat = as_stored(x).flatten()
        left_out = int(flat.numel() * (100 - self.percent) / 100 + 1e-6)  # 0.01 % of 10 000 is 1, not 0.99...
        low, high = (self.nth(flat, left_out + 1, largest=largest) for largest in (False, True))
        return (low, high) if low < high else minmax(x)

    @staticmethod
    def nth(flat: Tensor, n: int, *, largest: bool) -> float:
        """The n-th smallest or largest element.

        It lies in one of the `n` columns with the most extreme elements, or is one of these.
        """
        width = len(flat) // COLUMN
        if n > width // 4:
            return float(flat.topk(n, largest=largest).values[-1])
        columns, rest = flat[: COLUMN * width].view(COLUMN, width), flat[COLUMN * width :]
        ends = columns.amax(0) if largest else columns.amin(0)
        best = ends.topk(n, largest=largest).values
        if best[0] == best[-1] and not len(rest):
            return float(best[0])
        inside = ends >= best[-1] if largest else ends <= best[-1]
        return float(torch.cat([columns[:, inside].flatten(), rest]).topk(n, largest=largest).values[-1])


@dataclass(frozen=True)
class LeastSquares:
    """The range with the least squared error, of `candidates` from min-max down to `narrowest` of it at even distances.

    The error is that of clipping and rounding together (as in Nagel et al., arXiv 2106.08295, section 3.1), over a
    histogram: `bins` is so far above 256 that a bin's width does not matter. `bits` is the tensor's width. Every
    fourth candidate is tried, then those around the best of them: from far away, the error falls and rises but once.
    """

    STRIDE: ClassVar[int] = 4
    candidates: int = 81
    narrowest: float = 0.2
    bins: int = 8192
    bits: int = 8

    def factors(self) -> list[float]:
        return [float(factor) for factor in np.linspace(1.0, self.narrowest, self.candidates)]

    def __call__(self, x: Tensor) -> Range:
        low, high = minmax(x)
        if not low < high:
            return low, high
        counts = torch.histc(as_stored(x), self.bins, low, high).double()
        width = (high - low) / self.bins
        centres = low + width * (torch.arange(self.bins, dtype=torch.float64) + 0.5)
        taken = counts > 0
        centres, counts, factors = centres[taken], counts[taken], self.factors()

        def best(tried: Iterable[int]) -> int:
            """Of equal ones the widest."""
            return min(
                tried, key=lambda i: (self.error(centres, counts, (low * factors[i], high * factors[i]), self.bits), i)
            )

        near = best(range(0, len(factors), self.STRIDE))
        factor = factors[best(range(max(0, near - self.STRIDE), min(len(factors), near + self.STRIDE + 1)))]
        return low * factor, high * factor

    @staticmethod
    def error(values: Tensor, counts: Tensor, interval: Range, bits: int = 8) -> float:
        """The sum of squared errors of `values` on the 2^bits levels of `interval`, each counted `counts` times."""
        scale, zero_point = activation_parameters(*interval, bits)
        q = (torch.round(values / scale) + zero_point).clamp_(lowest_level(bits), 127)
        return float((((q - zero_point) * scale - values).square() * counts).sum())


OBSERVERS: Mapping[str, Observer] = {"minmax": minmax, "percentile": Percentile(), "mse": LeastSquares()}
"""From a feature map, of any shape, to the (low, high) that its integers will span."""


def observer_of(text: str) -> Observer:
    """A key of `OBSERVERS`, or `percentile 99.9` for another percentile; `ConfigError` for anything else."""
    name, _, percent = text.partition(" ")
    if name == "percentile" and percent:
        with suppress(ValueError):
            if 50 < float(percent) <= 100:
                return Percentile(float(percent))
        raise ConfigError(f"quantization.observer: '{text}': write a percentile above 50, up to 100: percentile 99.9")
    if text not in OBSERVERS:
        close = difflib.get_close_matches(text, OBSERVERS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(OBSERVERS)}"
        raise ConfigError(f"quantization.observer: unknown observer '{text}'; {hint}")
    return OBSERVERS[text]


def observe(x: Tensor, name: str, observer: Observer = minmax) -> Range:
    """The range of `x` by `observer`; `QuantizationError` naming the tensor if it is not finite."""
    low, high = minmax(x)
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise QuantizationError(f"tensor '{name}' holds NaN or infinity: the network diverged; retrain it")
    return (low, high) if observer is minmax else observer(x)


def at_width(observer: Observer, bits: int) -> Observer:
    """The observer for a tensor of that many bits."""
    return replace(observer, bits=bits) if isinstance(observer, LeastSquares) else observer


def widest(a: Range | None, b: Range) -> Range:
    return b if a is None else (min(a[0], b[0]), max(a[1], b[1]))


def calibrate(nodes: Iterable[Node], batches: Iterable[Tensor], observer: Observer = minmax) -> dict[str, Range]:
    """The range of every tensor of `nodes` over batches of images (N, 3, H, W)."""
    nodes = list(nodes)
    observers = {name: at_width(observer, bits) for name, bits in widths_of(nodes).items()}
    ranges: dict[str, Range] = {}
    for batch in batches:
        for node, y in stepwise(nodes, {INPUT: batch}):
            if isinstance(node, Const):
                found = of_constant(node)
            else:
                found = observe(y.float(), node.name, observers[node.name])
            ranges[node.name] = widest(ranges.get(node.name), found)
    if not ranges:
        raise QuantizationError("no calibration images: ranges cannot be known; set quant.calibration_images")
    ranges[INPUT] = IMAGE_RANGE
    return tie(nodes, ranges)


def of_constant(node: Const) -> Range:
    """All of its values, whatever the observer; wide enough for one that is zero."""
    low, high = observe(node.value.float(), node.name)
    return (low, high) if max(-low, high) >= NARROWEST else (low, 2 * NARROWEST)


def tie(nodes: Iterable[Node], ranges: dict[str, Range]) -> dict[str, Range]:
    """`ranges`, with one range for tensors that must share scale and zero point."""
    tied = dict(ranges)
    for group in shared(nodes):
        if len(group.tensors) > 1:
            low, high = zip(*(ranges[name] for name in group.tensors), strict=True)
            tied.update(dict.fromkeys(group.tensors, (min(low), max(high))))
    return tied


@dataclass(frozen=True)
class Shared:
    """Tensors that share scale and zero point because `Rearranging` operators connect them; most are alone.

    Attributes:
        tensors: in the order in which they are read or computed.
        sources: those of them that are not the result of a `Rearranging` operator.
        readers: the layers (with weights) that read one of them.
    """

    tensors: tuple[str, ...]
    sources: tuple[str, ...]
    readers: tuple[str, ...]


def shared(nodes: Iterable[Node]) -> tuple[Shared, ...]:
    """Every tensor of `nodes`, inputs included, in its group."""
    nodes = list(nodes)
    groups: dict[str, frozenset[str]] = {}
    for node in nodes:
        for name in (*inputs_of(node), node.name):
            groups.setdefault(name, frozenset([name]))
        if isinstance(node, Rearranging):
            group = groups[node.name].union(*(groups[name] for name in inputs_of(node)))
            groups.update(dict.fromkeys(group, group))
    rearranged = {node.name for node in nodes if isinstance(node, Rearranging)}
    layers = [node for node in nodes if isinstance(node, Weighted)]
    result = []
    for group in dict.fromkeys(groups.values()):
        tensors = tuple(name for name in groups if name in group)
        readers = tuple(layer.name for layer in layers if layer.x in group)
        result.append(Shared(tensors, tuple(name for name in tensors if name not in rearranged), readers))
    return tuple(result)


def widths_of(nodes: Iterable[Node]) -> dict[str, int]:
    """The bits of every tensor: those that its reading layers require (`input_bits`), 8 where none reads it.

    Raises `QuantizationError` naming two layers that require different ones.
    """
    nodes = list(nodes)
    layers = {node.name: node for node in nodes if isinstance(node, Weighted)}
    widths: dict[str, int] = {}
    for group in shared(nodes):
        asked = {layers[name].input_bits: name for name in reversed(group.readers)}
        if len(asked) > 1:
            (bits, name), (other_bits, other) = sorted(asked.items())[:2]
            raise QuantizationError(
                f"layers '{name}' and '{other}' read the same integers ('{layers[name].x}'), the one at {bits} bits, "
                f"the other at {other_bits}: give both the same activation bits"
            )
        widths.update(dict.fromkeys(group.tensors, next(iter(asked), 8)))
    return widths
