"""Each model drawn block by block, beside the teacher: kernel, expansion and bits of every layer, and what blocks cost.

A layer is a box: as wide as its expansion, as high as its kernel, in the colour of its bits. Beneath a block stand its
shares of what all blocks take: latency, size and NSR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from deploy.formats.plots.colours import fill, stroke
from deploy.report.material import Material, architecture_of, space_of
from nas.space import SearchSpace, Subnet
from nas.table import subnet_size_bits

LAYER_GAP, BLOCK_GAP, LEFT = 3, 24, 120
PER_KERNEL, PER_EXPANSION = 6, 5  # pixels
TALLEST = 7 * PER_KERNEL
BAR, BAR_WIDTH = 5, 90  # of a share: height, and width where the block takes all
ROW = TALLEST + 70
QUANTITIES = {"latency": "models", "size": "learning rate", "nsr": "offender"}
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
        layers = sum(PER_EXPANSION * expansion for _, expansion in self.layers) + LAYER_GAP * (len(self.layers) - 1)
        return max(layers, BAR_WIDTH + 16)


def architectures(material: Material) -> str:
    """An <svg> with a row for each model, and what it shows in words."""
    space = space_of(material)
    rows = [(name, list(blocks)) for name, blocks in _rows(material, space)]
    if not rows:
        return ""
    count = max(len(blocks) for _, blocks in rows)
    widths = [max((row[i].width for _, row in rows if i < len(row)), default=0.0) for i in range(count)]
    starts = [LEFT + sum(widths[:i]) + BLOCK_GAP * i for i in range(count)]
    total = LEFT + sum(widths) + BLOCK_GAP * count
    parts = []
    for row, (name, blocks) in enumerate(rows):
        top = row * ROW + 6
        parts.append(f"<text x='8' y='{top + TALLEST - 8}' font-weight='600' {fill('ink')}>{escape(name)}</text>")
        for block, x in zip(blocks, starts, strict=False):
            parts += _block(block, x, top, name)
    body = f"<g font-family='system-ui, sans-serif' font-size='12'>{''.join(parts)}</g>"
    box = f"viewBox='0 0 {total:.0f} {len(rows) * ROW}' style='--width: {total:.0f}px'"
    described = "Architectures, block by block: a box per layer, shares of latency, size and NSR beneath each block"
    return f"<svg class='plot' {box} role='img' aria-label='{described}'>{body}</svg>"


def _rows(material: Material, space: SearchSpace | None) -> Iterator[tuple[str, Iterator[DrawnBlock]]]:
    if space is not None:
        layers = [tuple((c.kernel, c.expansion) for c in block) for block in space.teacher_layers]
        yield "teacher", (DrawnBlock(i, found, 8, {}) for i, found in enumerate(layers, start=1))
    for model in material.summary.models:
        architecture = architecture_of(model)
        if architecture is not None:
            yield model.name, _blocks(material, architecture.subnets, space)


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


def _block(block: DrawnBlock, left: float, top: float, model: str) -> Iterator[str]:
    x, bottom = left, top + TALLEST
    for place, (kernel, expansion) in enumerate(block.layers, start=1):
        width, height = PER_EXPANSION * expansion, PER_KERNEL * kernel
        tip = f"{model}, block {block.number}, layer {place}: kernel {kernel}, expansion {expansion}, {block.bits} bits"
        yield (
            f"<rect x='{x:.1f}' y='{bottom - height:.1f}' width='{width}' height='{height}' rx='2' "
            f"{fill(f'{block.bits} bits')}><title>{escape(tip)}</title></rect>"
        )
        x += width + LAYER_GAP
    yield (
        f"<line x1='{left:.1f}' y1='{bottom + 3:.1f}' x2='{left + block.width:.1f}' y2='{bottom + 3:.1f}' "
        f"stroke-width='1' {stroke('grid')}/>"
    )
    y = bottom + 10.0
    for name, colour in QUANTITIES.items():
        if name not in block.shares:
            continue
        share = block.shares[name]
        tip = f"{model}, block {block.number}: {share:.1%} of the blocks' {name}"
        yield (
            f"<rect x='{left:.1f}' y='{y:.1f}' width='{max(share * BAR_WIDTH, 1):.1f}' height='{BAR}' "
            f"{fill(colour)}><title>{escape(tip)}</title></rect>"
        )
        y += BAR + 3
    yield f"<text x='{left:.1f}' y='{y + 11:.1f}' font-size='11' {fill('muted')}>block {block.number}</text>"


def legend() -> str:
    """What the boxes and bars mean."""
    return (
        "A layer's box is as wide as its expansion and as high as its kernel; its colour says its bits. The bars are a "
        "block's share of the blocks' latency, size and NSR, from the top; the teacher's blocks are in no table."
    )
