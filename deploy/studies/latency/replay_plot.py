"""What a share of the blocks is worth: active measuring and random choice after each batch, over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.formats.figures import ACCENT, INK, QUIET, image

COLOURS = {"active": ACCENT, "random": QUIET}
PANELS = (
    ("tau_b_corrected", "tau-b of held-out models, with feedback"),
    ("hypervolume", "hypervolume of the front, share of all"),
)


def write_image(path: Path, found: Mapping[str, Any]) -> None:
    """From `deploy.studies.latency.replay_record.ReplayRecord`: a line a seed, and what measuring everything gives."""
    everything = found["methods"]["everything"]
    with image(path, (13, 4)) as figure:
        scatter, *curves = figure.subplots(1, 3)
        _agreement(scatter, found["agreement"]["predicted"])
        for axes, (field, label) in zip(curves, PANELS, strict=True):
            for method, colour in COLOURS.items():
                for number, line in enumerate(_lines(found["outcomes"], method, field)):
                    axes.plot(*line, color=colour, linewidth=0.8, alpha=0.7, label=None if number else method)
            axes.axhline(everything[field]["mean"], color=INK, linestyle=":", linewidth=1, label="everything measured")
            axes.set_xlabel(f"blocks measured, of {found['blocks']}")
            axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")


def _agreement(axes: Any, judged: Mapping[str, Any]) -> None:
    points = [(s["predicted_us"] / 1000, s["measured_us"] / 1000) for s in judged["samples"]]
    ends = [min(map(min, points)), max(map(max, points))]
    axes.plot(ends, ends, ":", color=INK, linewidth=1)
    axes.plot(*zip(*points, strict=True), "o", color=QUIET, markersize=3)
    axes.set_xlabel("sum of all blocks' posteriors + constant, ms")
    axes.set_ylabel("measured, ms")
    axes.set_title(f"tau-b {judged['agreement']['tau_b']:.3f} over {len(points)} whole models", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(outcomes: Sequence[Mapping[str, Any]], method: str, field: str) -> list[tuple[list[int], list[float]]]:
    of = [o for o in outcomes if o["method"] == method]
    seeds = sorted({o["seed"] for o in of})
    return [([o["blocks"] for o in of if o["seed"] == s], [o[field] for o in of if o["seed"] == s]) for s in seeds]
