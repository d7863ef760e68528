"""`hilnas results` and `hilnas quarantine`: what a store holds, as tables and files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from deploy.cli import shown as console
from deploy.formats.files import write_atomically
from hil.database import is_url
from hil.errors import UsageError
from hil.export import FORMATS, export
from hil.results import Result, Wanted, moment, results
from hil.stats import LatencySummary
from hil.store import Store

ALL = "all"


def open_store(where: str | Path) -> Store:
    """To write to: a path or a URL. A path's folder is made where there is none."""
    if not is_url(where):
        Path(where).parent.mkdir(parents=True, exist_ok=True)
    return Store(where)


def results_command(arguments: argparse.Namespace) -> int:
    """Query or export."""
    wanted = Wanted(
        model=arguments.model,
        board=arguments.board,
        status=arguments.status if arguments.action == "query" else None,
        since=moment(arguments.since) if arguments.since else None,
    )
    if arguments.action == "export" and arguments.format not in FORMATS:
        raise UsageError(f"--format {arguments.format}: no such format; there are {', '.join(FORMATS)}")
    with Store(arguments.store, create=False) as store:
        found = results(store.all(), wanted)
    if arguments.action == "export":
        write_atomically(arguments.out, export(found, arguments.format))
        measured = [result.latency.n for result in found if result.latency]
        failed = f"; {len(found) - len(measured)} that failed left out" if len(found) > len(measured) else ""
        console.say(f"{arguments.out}: {sum(measured)} samples of {len(measured)} models{failed}")
    elif arguments.json:
        print(json.dumps([result.to_json() for result in found], indent=1))
    else:
        _show(found)
    return 0


def quarantine_command(arguments: argparse.Namespace) -> int:
    """List or clear."""
    with Store(arguments.store, create=False) as store:
        if arguments.action == "clear":
            which = None if arguments.model == ALL else arguments.model
            cleared = store.clear(which)
            if which is not None and not cleared:
                raise UsageError(f"{which}: no such model in quarantine: see `hilnas quarantine list`")
            console.say(f"{cleared} cleared")
            return 0
        rows = [row for row in store.quarantines() if arguments.cleared or row.cleared_at is None]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    for row in rows:
        ended = f", cleared {row.cleared_at}" if row.cleared_at else ""
        model = f"{row.model_sha256[:12]} {row.model or '(never measured)'}, conditions {row.conditions_key}"
        console.say(f"{model}, since {row.since}{ended}: {row.reason}")
    if not rows:
        console.say("no model is in quarantine")
    return 0


def _show(found: Sequence[Result]) -> None:
    """A line a model and its conditions; below, what the failed ones failed of."""
    left = ("model", "board", "conditions", "flags")
    shown = Table()
    for column in (*left[:3], "median ms", "95 % interval", "p90 ms", "p95 ms", "MAD us", "n", "flags"):
        shown.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for result in found:
        rounds = len(result.measurements)
        flags = ", ".join(f"{flag} ({n} of {rounds} rounds)" for flag, n in result.flags.items())
        which = (result.model, result.conditions.board, result.conditions.key())
        shown.add_row(*(escape(text) for text in (*which, *_numbers(result.latency), flags)))
    console.out.print(shown)
    for result in found:
        if result.reason is not None:
            console.say(f"{result.model} failed on {result.conditions.board}: {result.reason}")


def _numbers(s: LatencySummary | None) -> tuple[str, ...]:
    if s is None:
        return ("failed", *[""] * 5)
    median, low, high, p90, p95 = (f"{us / 1000:.3f}" for us in (s.median_us, *s.ci95_us, s.p90_us, s.p95_us))
    return median, f"{low} - {high}", p90, p95, f"{s.mad_us:.1f}", str(s.n)
