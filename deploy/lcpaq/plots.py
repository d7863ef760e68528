"""LCPAQ's three figures from its records: sensitivity by layer, bits by layer, the frontier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.figures import Axis, Bars, Line, Mark, Plot, Points, Shape
from deploy.formats.plots.pages import page, wide
from deploy.formats.plots.svg import write_svg
from deploy.lcpaq.records import RefineRecord, SensitivityRecord, SolveRecord

TITLES = ("sensitivity by layer", "weight bits by layer", "scored policies")
ZERO = 1 / 3  # of the least perturbation above 0: where a logarithmic axis shows none at all
WIDTH = 720.0  # pixels
SHAPES: tuple[Shape, ...] = ("dot", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Drawn:
    """What is drawn.

    Attributes:
        layers: in the network's order.
        perturbation: by bit width, a value per layer.
        bits: a bit width per layer.
        scored: (size in kB, score, origin), the selected one first; empty before refinement.
        metric: of the scores, in `unit`.
    """

    layers: tuple[str, ...]
    perturbation: Mapping[int, tuple[float, ...]]
    bits: tuple[int, ...]
    scored: tuple[tuple[float, float, str], ...]
    metric: str
    unit: str = "%"


def drawn(sensitivity: SensitivityRecord, solved: SolveRecord, refined: RefineRecord | None) -> Drawn:
    """Of the records of the steps."""
    table = sensitivity.layers
    widths = sorted({width for row in table.values() for width in row})
    ordered = sorted(refined.scored, key=lambda s: s.policy != refined.best) if refined else ()
    return Drawn(
        tuple(name.partition(";")[0] for name in table),  # converters join the names of all that they fused
        {width: tuple(row[width] for row in table.values()) for width in widths},
        tuple(solved.bits[name] for name in table),
        tuple((s.costs["size_bits"] / 8000, s.score, s.origin) for s in ordered),
        *((refined.metric, refined.unit) if refined else ("score",)),
    )


def plots(d: Drawn) -> tuple[Plot, ...]:
    """The three plots; a bit width has one colour in all of them. Without scored policies: the first two."""
    layers, places = Axis("layer", names=d.layers), tuple(map(float, range(len(d.layers))))
    curves: list[Mark] = []
    floor = ZERO * min((v for values in d.perturbation.values() for v in values if v > 0), default=1.0)
    for width, values in d.perturbation.items():
        tips = tuple(f"{name} at {width} bits: {v:.3g}" for name, v in zip(d.layers, values, strict=True))
        shown = tuple(max(v, floor) for v in values)
        curves.append(Line(places, shown, f"{width} bits", f"{width} bits"))
        curves.append(Points(places, shown, f"{width} bits", tips=tips, size=2.5))
    bars = Bars(
        tuple(map(float, d.bits)),
        tuple(f"{width} bits" for width in d.bits),
        tuple(f"{name}: {width} bits" for name, width in zip(d.layers, d.bits, strict=True)),
    )
    sensitivity = Plot(TITLES[0], layers, Axis("perturbation", log=True), tuple(curves))
    bits = Plot(TITLES[1], layers, Axis("weight bits", zero=True), (bars,), height=140)
    if not d.scored:
        return sensitivity, bits
    score = Axis(f"{d.metric}, {d.unit}")
    return sensitivity, bits, Plot(TITLES[2], Axis("weights, kB"), score, tuple(_policies(d)))


def _policies(d: Drawn) -> Iterator[Points]:
    for i, origin in enumerate(dict.fromkeys(o for _, _, o in d.scored)):
        of = [(size, score) for size, score, o in d.scored if o == origin]
        tips = tuple(f"{origin}: {size:.1f} kB, {d.metric} {score:.2f} {d.unit}" for size, score in of)
        yield Points(
            tuple(size for size, _ in of),
            tuple(score for _, score in of),
            "models",
            origin,
            tips,
            shape=SHAPES[i % len(SHAPES)],
        )
    size, score, _ = d.scored[0]
    yield Points((size,), (score,), "selected", "selected", shape="ring", size=8)


def write_page(path: Path, d: Drawn) -> None:
    """One self-contained page."""
    drawn_plots = "".join(wide(plot, WIDTH) for plot in plots(d))
    write_atomically(path, page("hilnas: LCPAQ", f"<h1>LCPAQ: bits per layer</h1>{drawn_plots}"))


def write_image(path: Path, d: Drawn) -> None:
    """The same as a file, .svg."""
    write_svg(path, plots(d), width=WIDTH)
