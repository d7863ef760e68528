"""`hilnas profile --memory` and `--layers`: passes of their own, printed and not stored."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table as RichTable

from deploy.cli import shown as console
from hil.boards.config import BoardConfig, open_board
from hil.job import Job, MeasureProtocol
from hil.passes import Layers, Memory, layers_of, memory_of
from hil.session import open_session


def run(jobs: Sequence[Job], settings: MeasureProtocol, config: BoardConfig, *, layers: bool, as_json: bool) -> int:
    """Raises ModelError, BoardError, UsageError."""
    with open_board(config) as board, open_session(board) as session:
        if layers:
            found: list[Layers] = [layers_of(session, job, settings) for job in jobs]
            _print_json(found) if as_json else _show_layers(found)
        else:
            sizes: list[Memory] = [memory_of(session, job, settings) for job in jobs]
            _print_json(sizes) if as_json else _show_memory(sizes)
        if not as_json:
            console.say(f"on {session.conditions.board}, {session.conditions.runtime}")
    return 0


def _print_json(found: Sequence[Memory] | Sequence[Layers]) -> None:
    print(json.dumps([one.to_json() for one in found], indent=1))


def _show_memory(found: Sequence[Memory]) -> None:
    shown = RichTable()
    for column in ("model", "peak MB", "before it MB", "loaded MB", "NPU pool MB"):
        shown.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for one in found:
        sizes = (one.peak_bytes, one.before_bytes, one.loaded_bytes, one.cma_bytes)
        shown.add_row(one.model, *("-" if size is None else f"{size / 1e6:.1f}" for size in sizes))
    console.out.print(shown)


def _show_layers(found: Sequence[Layers]) -> None:
    for one in found:
        if not one.layers:
            console.say(f"{one.model}: nothing on this board told times a layer; --json shows what it printed")
            continue
        shown = RichTable()
        for column in ("layer", "us", "%", "what"):
            shown.add_column(column, justify="right" if column in ("us", "%") else "left", overflow="fold")
        total_us = sum(layer.time_us for layer in one.layers)
        for layer in one.layers:
            share = 100 * layer.time_us / total_us if total_us else 0.0
            shown.add_row(layer.name, f"{layer.time_us:.0f}", f"{share:.1f}", layer.kind)
        console.out.print(shown)
        cut = "" if one.complete else "; the log was too long: layers in its middle are missing"
        console.say(f"{one.model}: {len(one.layers)} layers, {total_us:.0f} us, slower than when nobody watches{cut}")
