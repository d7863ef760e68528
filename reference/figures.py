"""The README's figure, from the record that its table is from: `python -m reference.figures` draws it anew."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.plots.svg import write_svg
from deploy.report.figures import models_plot
from deploy.run.records import Summary

DOCS = Path(__file__).parents[1] / "docs"
FIGURE = DOCS / "images" / "demo.svg"


def draw(path: Path) -> None:
    """The demo's models on the board: score against latency."""
    write_svg(path, [models_plot(Summary.read(DOCS / "results" / "demo.json"))])


if __name__ == "__main__":
    draw(FIGURE)
