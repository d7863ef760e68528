"""How every figure of the kit looks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deploy.formats.files import write_atomically
from hil.errors import UsageError

FORMATS = (".png", ".svg")
INK, ACCENT, QUIET = "#1c2733", "#d1495b", "#7a9cc6"


def styled(figure: Any, x: str, y: str, title: str) -> Any:
    """A plotly figure with its axes named, in the kit's colours."""
    figure.update_layout(
        template="simple_white",
        title={"text": title, "font": {"size": 15}},
        height=420,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"x": 0.98, "xanchor": "right", "y": 0.98},
        font={"color": INK},
    )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def check_image(path: Path) -> None:
    """`UsageError` if such a file cannot be drawn: said before anything is measured."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--plot {path}: give a file that ends in {' or '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise UsageError(f"--plot {path}: matplotlib is not installed; get it with: pip install 'hilnas[plots]'")


@contextmanager
def image(path: Path, inches: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib figure to draw into, left as .png or .svg by the name's end; the same bytes for the same drawing."""
    check_image(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "hilnas", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        content, undated = io.BytesIO(), {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=undated)
    write_atomically(path, content.getvalue())
