"""Predicted against measured: one point a whole model, the worst offenders named, from agreement.json.

Plotly draws it into pages, matplotlib (the extra `plots`) into files for documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.formats.figures import ACCENT, INK, QUIET, image, styled
from deploy.formats.files import write_atomically

AXES = ("predicted: sum of block latencies + constant, ms", "measured, ms")


@dataclass(frozen=True)
class Points:
    """What is drawn, latencies in milliseconds; `worst` are places in the other tuples, the worst offender's first."""

    subnets: tuple[str, ...]
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    worst: tuple[int, ...]

    @property
    def ends_ms(self) -> tuple[float, float]:
        """Where the diagonal begins and ends."""
        both = self.predicted_ms + self.measured_ms
        return min(both), max(both)

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.subnets)) if i not in self.worst)

    def label(self, i: int) -> str:
        """How far a model is from what was predicted (over 0: slower), and its name."""
        return f"{100 * (1 - self.predicted_ms[i] / self.measured_ms[i]):+.1f} %  {self.subnets[i]}"


def points(judged: Mapping[str, Any]) -> Points:
    """The samples of agreement.json, also of one that an earlier version wrote."""
    samples, offset_us = judged["samples"], judged["agreement"]["offset_us"]
    place = {s["subnet"]: i for i, s in enumerate(samples)}
    return Points(
        tuple(s["subnet"] for s in samples),
        tuple(s.get("predicted_us", s["additive_us"] + offset_us) / 1000 for s in samples),
        tuple(s["measured_us"] / 1000 for s in samples),
        tuple(place[offender["subnet"]] for offender in judged.get("offenders", ()) if offender["subnet"] in place),
    )


def title(judged: Mapping[str, Any]) -> str:
    """tau-b with its interval and the noise ceiling."""
    a = judged["agreement"]
    return (
        f"tau-b {a['tau_b']:.3f} [{a['ci95'][0]:.3f}, {a['ci95'][1]:.3f}] over {a['n_models']} whole models, "
        f"noise ceiling {a['ceiling_tau_b']:.3f}"
    )


def scatter(judged: Mapping[str, Any]) -> Any:
    """The figure for pages; a model's name shows where the pointer is, the worst offenders' always."""
    import plotly.graph_objects as go

    p = points(judged)
    figure = go.Figure()
    figure.add_scatter(
        x=p.ends_ms, y=p.ends_ms, mode="lines", name="predicted = measured", line={"color": INK, "dash": "dot"}
    )
    figure.add_scatter(
        x=[p.predicted_ms[i] for i in p.others],
        y=[p.measured_ms[i] for i in p.others],
        mode="markers",
        name="models",
        marker={"size": 7, "color": QUIET},
        text=[p.subnets[i] for i in p.others],
    )
    for rank, i in enumerate(p.worst, start=1):
        figure.add_scatter(
            x=[p.predicted_ms[i]],
            y=[p.measured_ms[i]],
            mode="markers+text",
            name=f"{rank}  {p.label(i)}",
            text=[str(rank)],
            textposition="bottom right",
            hovertext=[p.subnets[i]],
            marker={"size": 8, "color": ACCENT},
        )
    beneath = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top", "font": {"size": 10}}
    return styled(figure, *AXES, title(judged)).update_layout(legend=beneath, height=600, title_font_size=13)


def write_page(path: Path, judged: Mapping[str, Any], mark: str = "") -> None:
    """One self-contained page; `mark` stands above latencies that no board measured (`deploy.ship.report.watermark`)."""
    figure = scatter(judged).update_layout(height=720)
    if mark:
        figure.add_annotation(text=mark, x=0, y=1.04, xref="paper", yref="paper", showarrow=False, font_color=ACCENT)
    write_atomically(path, figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}))


def write_image(path: Path, judged: Mapping[str, Any], mark: str = "") -> None:
    """The same figure as .png or .svg, by the name's end; the same bytes for the same record."""
    p = points(judged)
    with image(path, (7, 6)) as figure:
        axes = figure.add_subplot()
        axes.plot(p.ends_ms, p.ends_ms, ":", color=INK, linewidth=1, label="predicted = measured")
        others = [p.predicted_ms[i] for i in p.others], [p.measured_ms[i] for i in p.others]
        axes.plot(*others, "o", color=QUIET, markersize=4, label="models")
        for rank, i in enumerate(p.worst, start=1):
            at = p.predicted_ms[i], p.measured_ms[i]
            axes.plot(*at, "o", color=ACCENT, markersize=5, label=f"{rank}  {p.label(i)}")
            axes.annotate(str(rank), at, (4, -9), textcoords="offset points", color=ACCENT)
        axes.set_xlabel(AXES[0])
        axes.set_ylabel(AXES[1])
        axes.set_title("\n".join(filter(None, (title(judged), mark))), fontsize=9)
        figure.legend(frameon=False, loc="outside lower left", fontsize=5.5)
        axes.spines[["top", "right"]].set_visible(False)
