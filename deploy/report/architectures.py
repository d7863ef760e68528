"""Each model drawn block by block, beside the teacher: kernel, expansion and bits of every layer, and what blocks cost.

A layer is a box: as wide as its expansion, as high as its kernel, whose number it bears, in the colour of its bits.
Beneath a block stand its shares of what all blocks take: latency, size and NSR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from deploy.formats.plots.colours import fill, stroke
from deploy.report.material import Material, architecture_of, space_of
from nas.space import SearchSpace, Subnet
from nas.table import subnet_size_bits

LAYER_GAP, BLOCK_GAP, LEFT = 3, 18, 92
PER_KERNEL, PER_EXPANSION = 6, 5.5  # pixels
NARROWEST = 14  # box: its kernel's number fits
TALLEST = 7 * PER_KERNEL
BAR, BAR_STEP, BAR_WIDTH = 7, 11, 80  # of a share: height, from one to the next, width where the block takes all
HEAD = 44  # pixels above the first model
QUANTITIES = {"latency": "ink", "size": "muted", "nsr": "offender"}
"""What has a share, with its colour."""


@dataclass(frozen=True)
class DrawnBlock:
    """One block of a model.

    Attributes:
        layers: kernel and expansion of each.
        shares: by quantity, of the sum over the blocks, 0 to 1.
    """

    number: int
    layers: tuple[tuple[int, int], ...]
    bits: int
    shares: Mapping[str, float]

    @property
    def width(self) -> float:
        layers = sum(_box_width(expansion) for _, expansion in self.layers) + LAYER_GAP * (len(self.layers) - 1)
        return max(layers, BAR_WIDTH + 34)

    @property
    def tallest(self) -> float:
        return PER_KERNEL * max(kernel for kernel, _ in self.layers)


@dataclass(frozen=True)
class DrawnModel:
    """A row of the picture."""

    name: str
    blocks: tuple[DrawnBlock, ...]

    @property
    def tallest(self) -> float:
        return max(block.tallest for block in self.blocks)

    @property
    def height(self) -> float:
        return self.tallest + BAR_STEP * max(len(block.shares) for block in self.blocks) + 34


def architectures(material: Material) -> str:
    """An <svg> with a row for each model, and what it shows in words."""
    models = [model for model in _models(material, space_of(material)) if model.blocks]
    if not models:
        return ""
    count = max(len(model.blocks) for model in models)
    widths = [max((m.blocks[i].width for m in models if i < len(m.blocks)), default=0.0) for i in range(count)]
    starts = [LEFT + sum(widths[:i]) + BLOCK_GAP * i for i in range(count)]
    total = LEFT + sum(widths) + BLOCK_GAP * count
    parts, top = [*_legend(models), *_numbers(starts)], float(HEAD)
    for model in models:
        bottom = top + model.tallest
        parts.append(f"<text x='8' y='{bottom - 4:.1f}' font-weight='600' {fill('ink')}>{escape(model.name)}</text>")
        for block, x in zip(model.blocks, starts, strict=False):
            parts += _block(block, x, bottom, model.name)
        top += model.height
    body = f"<g font-family='system-ui, sans-serif' font-size='12'>{''.join(parts)}</g>"
    box = f"viewBox='0 0 {total:.0f} {top:.0f}' style='--width: {total:.0f}px'"
    described = "Architectures, block by block: a box per layer, shares of latency, size and NSR beneath each block"
    return f"<svg class='plot' {box} role='img' aria-label='{described}'>{body}</svg>"


def _models(material: Material, space: SearchSpace | None) -> Iterator[DrawnModel]:
    if space is not None:
        layers = [tuple((c.kernel, c.expansion) for c in block) for block in space.teacher_layers]
        yield DrawnModel("teacher", tuple(DrawnBlock(i, found, 8, {}) for i, found in enumerate(layers, start=1)))
    for model in material.summary.models:
        architecture = architecture_of(model)
        if architecture is not None:
            yield DrawnModel(model.name, tuple(_blocks(material, architecture.subnets, space)))


def _blocks(material: Material, subnets: Sequence[Subnet], space: SearchSpace | None) -> Iterator[DrawnBlock]:
    costs = {
        name: [table.entries[subnet].value for subnet in subnets]
        for name, table in material.tables.items()
        if all(subnet in table.entries for subnet in subnets)
    }
    if space is not None and all(subnet.block <= len(space.blocks) for subnet in subnets):
        costs["size"] = [float(subnet_size_bits(space, subnet)) for subnet in subnets]
    for i, subnet in enumerate(subnets):
        shares = {name: max(values[i], 0.0) / total for name, values in costs.items() if (total := sum(values)) > 0}
        layers = tuple((choice.kernel, choice.expansion) for choice in subnet.choices)
        yield DrawnBlock(subnet.block, layers, subnet.bits, shares)


def _box_width(expansion: int) -> float:
    return max(PER_EXPANSION * expansion, NARROWEST)


def _block(block: DrawnBlock, left: float, bottom: float, model: str) -> Iterator[str]:
    x = left
    for place, (kernel, expansion) in enumerate(block.layers, start=1):
        width, height = _box_width(expansion), PER_KERNEL * kernel
        tip = f"{model}, block {block.number}, layer {place}: kernel {kernel}, expansion {expansion}, {block.bits} bits"
        yield (
            f"<rect x='{x:.1f}' y='{bottom - height:.1f}' width='{width:.1f}' height='{height}' rx='2' "
            f"{fill(f'{block.bits} bits')}><title>{escape(tip)}</title></rect>"
            f"<text x='{x + width / 2:.1f}' y='{bottom - 5:.1f}' font-size='11' text-anchor='middle' "
            f"pointer-events='none' {fill('paper')}>{kernel}</text>"
        )
        x += width + LAYER_GAP
    yield (
        f"<line x1='{left:.1f}' y1='{bottom + 3:.1f}' x2='{left + block.width:.1f}' y2='{bottom + 3:.1f}' "
        f"stroke-width='1' {stroke('grid')}/>"
    )
    y = bottom + 8.0
    for name, colour in QUANTITIES.items():
        if name not in block.shares:
            continue
        share = block.shares[name]
        width = max(share * BAR_WIDTH, 1)
        tip = f"{model}, block {block.number}: {share:.1%} of the blocks' {name}"
        yield (
            f"<rect x='{left:.1f}' y='{y:.1f}' width='{width:.1f}' height='{BAR}' {fill(colour)}>"
            f"<title>{escape(tip)}</title></rect>"
            f"<text x='{left + width + 4:.1f}' y='{y + BAR:.1f}' font-size='10' {fill('muted')}>{share:.0%}</text>"
        )
        y += BAR_STEP


def _numbers(starts: Sequence[float]) -> Iterator[str]:
    for number, x in enumerate(starts, start=1):
        yield f"<text x='{x:.1f}' y='{HEAD - 10}' font-size='11' {fill('muted')}>block {number}</text>"


def _legend(models: Sequence[DrawnModel]) -> Iterator[str]:
    """The colours of bits that there are, and of shares."""
    bits = sorted({block.bits for model in models for block in model.blocks})
    shares = {name: "NSR" if name == "nsr" else name for name in QUANTITIES}
    entries = [(f"{width} bits", f"{width} bits") for width in bits]
    entries += [(f"share of {shown}", QUANTITIES[name]) for name, shown in shares.items()]
    x = 8
    for text, colour in entries:
        yield f"<rect x='{x}' y='4' width='10' height='10' rx='2' {fill(colour)}/>"
        yield f"<text x='{x + 16}' y='13' font-size='11' {fill('ink')}>{text}</text>"
        x += 32 + 7 * len(text)


def legend_text() -> str:
    """What the boxes and bars mean."""
    return (
        "A layer's box is as wide as its expansion, as high as its kernel, which is written in it; its colour says its "
        "bits. The bars are a block's share of the blocks' latency, size and NSR; the teacher's blocks are in no table."
    )
