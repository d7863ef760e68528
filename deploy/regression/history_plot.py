"""Histories as figures: one per model and board, changes of conditions marked, slower occasions in their own colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from deploy.formats.plots.figures import Axis, Events, Line, Mark, Plot, Points, Shape
from deploy.regression.history import History, Occasion
from hil.stats import milliseconds

KINDS: Sequence[tuple[str, Shape, str, Callable[[Occasion], bool]]] = (
    ("models", "dot", "occasion", lambda s: not s.slower and not s.new_file),
    ("models", "diamond", "occasion of another file", lambda s: not s.slower and s.new_file),
    ("offender", "dot", "slower", lambda s: s.slower and not s.new_file),
    ("offender", "diamond", "slower, another file", lambda s: s.slower and s.new_file),
)


def history_plot(history: History, threshold: float) -> Plot:
    """Levels of the occasions, bars from the fastest to the slowest round."""
    well = [s for s in history.occasions if not s.failure]
    changed = [s for s in history.occasions if s.changed]
    failed = [s for s in history.occasions if s.failure]
    numbers = [f"{i}{', fails' if s.failure else ''}" for i, s in enumerate(changed, start=1)]
    fails = tuple("" if s.changed else "fails" for s in failed)
    changes = tuple("\n".join(s.changed) for s in changed)
    events = (
        Events(_times(changed), tuple(numbers), "muted", "other conditions", changes),
        Events(_times(failed), fails, "offender", "failed", tuple(s.failure for s in failed)),
    )
    return Plot(
        f"{history.model} on {history.board}",
        Axis("occasion, UTC", time=True),
        Axis("latency, ms"),
        (*(e for e in events if e.x), *_stretches(well, threshold), *_occasions(well)),
        notes=tuple(f"{i}  {s.at:%Y-%m-%d}: {', '.join(s.changed)}" for i, s in zip(numbers, changed, strict=True)),
    )


def _times(occasions: Sequence[Occasion]) -> tuple[float, ...]:
    return tuple(s.at.timestamp() for s in occasions)


def _stretches(well: Sequence[Occasion], threshold: float) -> Iterator[Mark]:
    """Under the same conditions, one after another: a line through the occasions, and what is allowed."""
    first: dict[str, float] = {}
    name = f"{100 * threshold:g} % above the first occasion"
    for key, group in groupby(well, key=lambda s: s.conditions.key()):
        occasions = list(group)
        allowed = (1 + threshold) * first.setdefault(key, occasions[0].level_us) / 1000
        times = _times(occasions)
        yield Line(times, tuple(s.level_us / 1000 for s in occasions), faint=True)
        if len(occasions) > 1:
            yield Line((times[0], times[-1]), (allowed, allowed), "muted", name, dotted=True)
            name = ""  # once in the legend


def _occasions(well: Sequence[Occasion]) -> Iterator[Points]:
    for colour, shape, name, is_of in KINDS:
        kept = [s for s in well if is_of(s)]
        if kept:
            yield Points(
                _times(kept),
                tuple(s.level_us / 1000 for s in kept),
                colour,
                name,
                tips=tuple(map(_tip, kept)),
                labels=tuple(slower_text(s) for s in kept),
                shape=shape,
                y_intervals=tuple((min(s.levels_us) / 1000, max(s.levels_us) / 1000) for s in kept),
            )


def slower_text(s: Occasion) -> str:
    """+20.3 %, of an occasion that is slower than the first one; otherwise ""."""
    return f"{100 * (s.comparison.ratio - 1):+.1f} %" if s.comparison and s.slower else ""


def _tip(s: Occasion) -> str:
    lines = [
        f"{s.at:%Y-%m-%d %H:%M} on {s.conditions.unit}, {len(s.rounds)} rounds",
        f"{milliseconds(s.level_us)} ms, file {s.sha256[:8]}",
    ]
    if c := s.comparison:
        lines.append(f"{c.ratio:.3f} [{c.ci95[0]:.3f}, {c.ci95[1]:.3f}] of the first occasion under these conditions")
    return "\n".join(lines)
