"""LCPAQ's three figures from its records: sensitivity by layer, bits by layer, the frontier.

Plotly draws them into a page, matplotlib (the extra `plots`) into a file for documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.formats.figures import ACCENT, INK, QUIET, image, styled
from deploy.formats.files import write_atomically

TITLES = ("sensitivity by layer", "weight bits by layer", "scored policies")
LEAST = 1e-12  # a logarithmic axis has no zero


@dataclass(frozen=True)
class Drawn:
    """What is drawn.

    Attributes:
        layers: in the network's order.
        perturbation: by width, a value a layer.
        bits: a width a layer.
        scored: (size in kB, score in percent, origin), the chosen one first; empty before refinement.
    """

    layers: tuple[str, ...]
    perturbation: Mapping[int, tuple[float, ...]]
    bits: tuple[int, ...]
    scored: tuple[tuple[float, float, str], ...]
    metric: str


def drawn(sensitivity: Mapping[str, Any], solved: Mapping[str, Any], refined: Mapping[str, Any] | None) -> Drawn:
    """Of the records of the steps."""
    table: Mapping[str, Mapping[str, float]] = sensitivity["layers"]
    widths = sorted({int(width) for row in table.values() for width in row})
    scored: Sequence[Mapping[str, Any]] = refined["scored"] if refined else ()
    chosen = refined["best"] if refined else None
    ordered = sorted(scored, key=lambda s: s["policy"] != chosen)
    return Drawn(
        tuple(table),
        {width: tuple(max(row[str(width)], LEAST) for row in table.values()) for width in widths},
        tuple(int(solved["bits"][name]) for name in table),
        tuple((s["costs"]["size_bits"] / 8000, s["score"], s["origin"]) for s in ordered),
        refined["metric"] if refined else "score",
    )


def write_page(path: Path, d: Drawn) -> None:
    """One self-contained page."""
    import plotly.graph_objects as go

    sensitivity, bits = go.Figure(), go.Figure()
    for width, values in d.perturbation.items():
        sensitivity.add_scatter(x=d.layers, y=values, mode="lines+markers", name=f"{width} bits")
    bits.add_bar(x=d.layers, y=d.bits, marker_color=QUIET)
    figures = [
        styled(sensitivity, "layer", "perturbation", TITLES[0]).update_yaxes(type="log"),
        styled(bits, "layer", "weight bits", TITLES[1]),
    ]
    if d.scored:
        frontier = go.Figure()
        for origin in dict.fromkeys(s[2] for s in d.scored):
            of = [s for s in d.scored if s[2] == origin]
            frontier.add_scatter(x=[s[0] for s in of], y=[s[1] for s in of], mode="markers", name=origin)
        first = d.scored[0]
        frontier.add_scatter(
            x=[first[0]],
            y=[first[1]],
            mode="markers",
            name="kept",
            marker={"size": 14, "color": ACCENT, "symbol": "circle-open"},
        )
        figures.append(styled(frontier, "weights, kB", f"{d.metric}, %", TITLES[2]))
    first_one, *others = figures
    parts = [first_one.to_html(include_plotlyjs=True, full_html=False)]
    parts += [figure.to_html(include_plotlyjs=False, full_html=False) for figure in others]
    write_atomically(path, f"<!doctype html><meta charset=utf8><title>LCPAQ</title>{''.join(parts)}")


def write_image(path: Path, d: Drawn) -> None:
    """The same as .png or .svg, by the name's end; the same bytes for the same records."""
    count = 3 if d.scored else 2
    with image(path, (7, 3 * count)) as figure:
        sensitivity, bits, *rest = figure.subplots(count, 1)
        for width, values in d.perturbation.items():
            sensitivity.semilogy(d.layers, values, marker=".", linewidth=1, label=f"{width} bits")
        sensitivity.legend(frameon=False, fontsize=7)
        bits.bar(d.layers, d.bits, color=QUIET)
        for axes, title, label in ((sensitivity, TITLES[0], "perturbation"), (bits, TITLES[1], "weight bits")):
            axes.set_title(title, fontsize=9)
            axes.set_ylabel(label)
            axes.tick_params(axis="x", labelrotation=90, labelsize=5)
        for axes in rest:
            for origin, mark in zip(dict.fromkeys(s[2] for s in d.scored), "os^v", strict=False):
                of = [s for s in d.scored if s[2] == origin]
                axes.plot([s[0] for s in of], [s[1] for s in of], mark, color=INK, markersize=4, label=origin)
            axes.plot(d.scored[0][0], d.scored[0][1], "o", color=ACCENT, markersize=10, fillstyle="none", label="kept")
            axes.set_title(TITLES[2], fontsize=9)
            axes.set_xlabel("weights, kB")
            axes.set_ylabel(f"{d.metric}, %")
            axes.legend(frameon=False, fontsize=7)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
