"""What `hilnas profile` shows: a row per model, when it was measured, and what speaks against its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.cli import console

if TYPE_CHECKING:
    from hil.measurement import Measurement
    from hil.stats import LatencySummary

REPLAY = "replay"
AGAIN = "--no-skip-existing measures again"


@dataclass(frozen=True)
class ProfileRow:
    """One model's rounds, none of which failed.

    Attributes:
        name: the shortest path that tells it apart from the others.
        earlier: those of its rounds that were not measured now.
    """

    name: str
    rounds: Sequence[Measurement]
    earlier: Sequence[Measurement]
    latency: LatencySummary


def rows_of(measurements: Sequence[Measurement], begun: str) -> list[ProfileRow]:
    """Of the models that did not fail; `begun` is when the command began, so what is older comes from the store."""
    from deploy.latency.table import summaries

    failed = {m.model for m in measurements if m.failure is not None}
    well = [m for m in measurements if m.model not in failed]
    rounds: dict[str, list[Measurement]] = {}
    for m in well:
        rounds.setdefault(m.model, []).append(m)
    latencies = summaries(well)
    return [
        ProfileRow(name, of_model, [m for m in of_model if m.started_at < begun], latencies[name])
        for name, of_model in rounds.items()
    ]


def show(rows: Sequence[ProfileRow], store: str) -> None:
    """The table, its conditions, where samples come from, and what each flag means."""
    from deploy.latency.watermark import watermark
    from hil.database import shown
    from hil.stats import milliseconds

    if not rows:
        return
    c = rows[0].rounds[0].conditions
    if mark := watermark(c):
        console.say(mark)
    dated = any(row.earlier for row in rows)
    columns = ["model", "median ms", "95 % interval", "p90 ms", "runs", "first ms", "on the delegate"]
    columns += [*(["measured"] if dated else []), "flags"]
    console.table(columns, [_cells(row, dated) for row in rows], ("measured", "flags"))
    console.say(
        f"on {c.board} ({c.soc or c.machine}), {c.runtime}, kernels {c.kernels}, threads {c.threads}, "
        f"delegate {c.delegate}"
    )
    if any(m.calls > 1 for row in rows for m in row.rounds):
        console.say("runs NxC: each of N samples is the mean of C runs, since one alone is too short for the clock")
    if any(row.rounds[0].cache == "warm" for row in rows):
        console.say("first ms warm: the graph had been compiled before, by an earlier run under these conditions")
    for row in rows:
        if (after_us := row.rounds[0].class_map_us) is not None:
            console.say(f"{row.name} is timed to its class map, {milliseconds(after_us)} ms of it on the CPU")
    if all(m.cache == "unused" for row in rows for m in row.rounds):
        console.say(
            "no graph cache: one is configured, and the driver kept no graph in it, so that every process compiles anew"
        )
    if dated and c.kind != REPLAY:  # whose mark says it already
        many = sum(1 for row in rows if row.earlier)
        whose = "all models" if many == len(rows) else f"{many} of {len(rows)} models"
        console.say(f"{whose} with samples from {shown(store)}, not measured now; {AGAIN}")
    for line in notes(rows):
        console.say(line)


def _cells(row: ProfileRow, dated: bool) -> list[str]:
    from hil.stats import milliseconds

    s, first = row.latency, row.rounds[0]
    calls = sorted({m.calls for m in row.rounds})
    times = "" if calls == [1] else f"x{calls[0]}" if len(calls) == 1 else f"x{calls[0]}-{calls[-1]}"
    low, high = (milliseconds(us) for us in s.ci95_us)
    name = f"{row.name} {first.conditions.input_shapes}".strip()
    cells = [name, milliseconds(s.median_us), f"{low} - {high}", milliseconds(s.p90_us)]
    warm = " warm" if first.cache == "warm" else ""  # the NPU's graph was compiled before
    cells += [f"{s.n}{times}", f"{first.first_us / 1000:.2f}{warm}", _delegated(first)]
    return [*cells, *([_when(row)] if dated else []), flags_cell(flags_of(row.rounds), len(row.rounds))]


def _delegated(measurement: Measurement) -> str:
    """How much of a model the delegate took: "1 part" when all."""
    if measurement.conditions.delegate == "none":
        return "-"
    parts = f"{measurement.delegated_nodes} part{'s' if measurement.delegated_nodes != 1 else ''}"
    left = measurement.cpu_operators
    return f"{parts}; on the CPU: {', '.join(sorted(set(left)))} ({len(left)})" if left else parts


def _when(row: ProfileRow) -> str:
    """The time (UTC) of what came from the store, with how many of the rounds that is; "now" where nothing did."""
    if not row.earlier:
        return "now"
    from hil.results import minutes

    kind = "recorded" if row.rounds[0].conditions.kind == REPLAY else "stored"
    part = "" if len(row.earlier) == len(row.rounds) else f" ({len(row.earlier)} of {len(row.rounds)} rounds)"
    return f"{kind} {minutes(row.earlier)}{part}"


def flags_of(rounds: Sequence[Measurement]) -> dict[str, int]:
    """The number of rounds with each flag."""
    return dict(sorted(Counter(flag for m in rounds for flag in m.flags).items()))


def flags_cell(flags: Mapping[str, int], rounds: int) -> str:
    """Those that only some rounds have with their number: "neighbours 1/3, unchecked"."""
    return ", ".join(flag if count == rounds else f"{flag} {count}/{rounds}" for flag, count in flags.items())


def notes(rows: Sequence[ProfileRow]) -> Iterator[str]:
    """What each flag of the table means here, and what to do about it."""
    from hil.trust import FLAGS

    for flag in FLAGS:
        marked = [m for row in rows for m in row.rounds if flag in m.flags]
        if marked:
            yield f"{flag}: {_meaning(flag, marked)}"


def _meaning(flag: str, marked: Sequence[Measurement]) -> str:
    from hil.trust import ADVICE, FLAGS, Timer

    one = marked[0]
    match flag:
        case "oversubscribed":
            fewest = min(m.cores or 1 for m in marked)
            return f"{one.conditions.threads} threads on {fewest} cores: set `threads` of {one.conditions.board} to it"
        case "neighbours":
            most = max(m.others_busy for m in marked)
            return f"other processes had up to {most:.0%} of the cores: {ADVICE[flag]}"
        case "spread":
            most = max(m.parity.mismatched / m.parity.elements for m in marked if m.parity)
            return f"up to {most:.1%} of the elements: {FLAGS[flag]}: {ADVICE[flag]}"
        case "coarse":
            step_us = max(Timer(m.calls, m.clock_ns).resolution_us for m in marked)
            return f"timed in steps of {step_us:g} us, more than 1 % of the latency: {_finer(marked)}"
    return f"{FLAGS[flag]}{f': {ADVICE[flag]}' if flag in ADVICE else ''}"


def _finer(marked: Sequence[Measurement]) -> str:
    """How to time more finely what was timed too coarsely, by what timed it."""
    if any(m.conditions.driver == "benchmark_model" for m in marked):
        return 'driver = "python" times in nanoseconds'
    if any(m.cores is None for m in marked):  # an earlier version's record
        return f"an earlier version timed so; {AGAIN}"
    return "the kernel of the board has no fine timers (CONFIG_HIGH_RES_TIMERS)"
