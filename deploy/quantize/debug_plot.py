"""Noise along a network, and where a board differs, drawn."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.plots.figures import Axis, Bars, Line, Mark, Plot
from deploy.formats.plots.svg import write_svg
from deploy.quantize.debug import DebugRecord

WIDTH = 960.0  # pixels


def plots(record: DebugRecord) -> list[Plot]:
    """The noise of every tensor, and what each operator adds; with a board what of each it computes otherwise."""
    known = [one for one in record.operators if one.noise_db is not None and one.added_db is not None]
    places = tuple(map(float, range(len(known))))
    axis = Axis("operator", names=tuple(one.name for one in known))
    lines: tuple[Mark, ...] = (
        Line(places, tuple(one.noise_db or 0.0 for one in known), name="of the tensor"),
        Line(places, tuple(one.added_db or 0.0 for one in known), "selected", "its operator alone", dotted=True),
    )
    found = [Plot(f"{record.model}, {record.scheme}: noise", axis, Axis("noise, dB"), lines)]
    if record.board is not None:
        shares = [(one.name, 100 * one.board_alone.share if one.board_alone else 0.0) for one in record.operators]
        tips = tuple(f"{name}: {share:.3g} %" for name, share in shares)
        bars = Bars(tuple(share for _, share in shares), ("offender",) * len(shares), tips)
        names = Axis("operator", names=tuple(name for name, _ in shares))
        title = f"elements that {record.board} computes otherwise, each operator alone"
        found.append(Plot(title, names, Axis("share, %", zero=True), (bars,)))
    return found


def write_image(path: Path, record: DebugRecord) -> None:
    write_svg(path, plots(record), width=WIDTH)
