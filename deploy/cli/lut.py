"""`hilnas lut latency`: the table by source, its versions, what two differ in, does it hold on a changed device?"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.cli import console
from deploy.formats.figures import check_image
from deploy.latency.difference import TableDifference, compare
from deploy.latency.key import TableKey
from deploy.latency.validate import validate, validations
from deploy.latency.validations import Demand, TableValidation
from deploy.latency.versions import Lineage, Version, find_version, versions
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.records import plain
from hil.errors import UsageError
from nas.engine.local import open_engine
from nas.errors import TableError
from nas.estimate import Estimate
from nas.table import Table
from nas.training.threads import one_thread

Arguments = argparse.Namespace


@dataclass(frozen=True)
class OfSource:
    """The entries that are known in one way; widths are of the 95 % interval, in percent of the value."""

    source: str
    entries: int
    least_n: int
    most_n: int
    median_width_percent: float
    p95_width_percent: float


def by_source(table: Table) -> list[OfSource]:
    """How well the entries of each source are known, most entries first."""
    groups: dict[str, list[Estimate]] = {}
    for entry in table.entries.values():
        groups.setdefault(entry.source, []).append(entry)
    return sorted((_of_source(source, entries) for source, entries in groups.items()), key=lambda g: -g.entries)


def _of_source(source: str, entries: Sequence[Estimate]) -> OfSource:
    widths = [100 * (entry.high - entry.low) / max(entry.value, 1e-9) for entry in entries]
    median, p95 = (float(q) for q in np.quantile(widths, (0.5, 0.95)))
    runs = [int(entry.n) for entry in entries]
    return OfSource(source, len(entries), min(runs), max(runs), median, p95)


def show(path: Path, as_json: bool) -> None:
    """A latency table: what it belongs to, its version, its entries by source."""
    table = Table.load(path)
    key, lineage, groups = TableKey.of(table), Lineage.of(table), by_source(table)
    if as_json:
        record = {"table": str(path), "belongs": key.to_json(), "lineage": lineage.to_json()}
        _print({**record, "sources": [asdict(group) for group in groups]})
        return
    console.table(table, path)
    console.say(f"  version {lineage.version}, {lineage.how} {lineage.when[:19]}; {key}")
    for g in groups:
        runs = f"{g.least_n} to {g.most_n}" if g.least_n < g.most_n else f"{g.most_n}"
        console.say(
            f"  {g.source:>10} {g.entries} entries of {runs} runs; 95 % intervals {g.median_width_percent:.1f} % wide "
            f"(median), {g.p95_width_percent:.1f} % (95th percentile)"
        )


def run(arguments: Arguments, config: Path) -> int:
    """One of the actions; the exit code."""
    action, *words = arguments.action
    if arguments.table != "latency":
        raise UsageError(f"lut {arguments.table} {action}: only `lut latency` has actions; leave '{action}' out")
    if action not in ACTIONS:
        raise UsageError(f"lut latency {action}: no such action; there are {', '.join(ACTIONS)}")
    count, what = WORDS.get(action, (0, "nothing"))
    if len(words) != count:
        raise UsageError(f"lut latency {action}: takes {what}, not {' '.join(words) or 'nothing'}")
    return ACTIONS[action](arguments, config)


def _versions(arguments: Arguments, config: Path) -> int:
    folder = _tables(arguments, config)
    found = versions(folder)
    if not found:
        raise UsageError(f"{folder / 'versions'}: no versions yet; `hilnas lut latency` makes the first")
    if arguments.json:
        _print({"versions": [version.to_json() for version in found]})
        return 0
    for version in found:
        console.say(_line(version))
    return 0


def _line(v: Version) -> str:
    sources = ", ".join(f"{n} {source}" for source, n in v.sources.items())
    made = v.lineage
    said = [f"{made.version}  {made.when[:19]}  {made.how:9} {v.name}: {sources}"]
    said += [f"of {' and '.join(made.parents)}"] if made.parents else []
    said += [f"tau-b {v.tau_b:.3f}"] if v.tau_b is not None else []
    if made.evidence is not None:
        said.append(f"{made.evidence.entries} entries again, median ratio {made.evidence.ratio:.3f}")
    return "; ".join(said) + (" (current)" if v.current else "")


def _diff(arguments: Arguments, config: Path) -> int:
    a, b = (_table(word, arguments, config) for word in arguments.action[1:])
    found = compare(a, b)
    if arguments.json:
        _print(found.to_json())
    else:
        _say(found)
    return 0


def _table(word: str, arguments: Arguments, config: Path) -> Table:
    """A file, or a version of the run that the configuration names."""
    if not word.endswith(".parquet") and not Path(word).is_file():
        return find_version(_tables(arguments, config), word)
    table = Table.load(Path(word))
    try:
        TableKey.of(table)
    except TableError as error:
        raise TableError(f"{word}: {error}") from None
    return table


def _say(found: TableDifference) -> None:
    for words in found.keys:
        console.say(f"differs: {words}")
    if not found.keys:
        console.say("both belong to the same space, input, scheme, form, device and setting")
    console.say(f"{found.common} entries in both, {found.only_a} only in A, {found.only_b} only in B")
    for went, count in found.sources.items():
        console.say(f"{count} entries went {went}")
    console.say(
        f"B / A: median {found.ratio_median:.4f}, 5 % below {found.ratio_p5:.4f}, 5 % above {found.ratio_p95:.4f}; "
        f"{found.beyond} entries moved by more than their intervals allow"
    )
    blocks = ", ".join(f"block {n} {_tau(tau)}" for n, tau in found.tau_b_of_block.items())
    console.say(f"tau-b between them: {_tau(found.tau_b)}; {blocks}")
    for m in found.most:
        if m.ratio != 1:
            where = ", beyond the intervals" if m.beyond else ""
            console.say(f"  {m.ratio:8.4f}  {m.a_us:.6g} -> {m.b_us:.6g} us  {m.subnet}{where}")


def _tau(tau: float | None) -> str:
    return "undefined" if tau is None else f"{tau:.3f}"


def _validate(arguments: Arguments, config: Path) -> int:
    demand = Demand(arguments.entries, arguments.tolerance, arguments.least_tau)
    experiment, space = load_experiment(config, Overrides.of(arguments))
    folder = _tables(arguments, config)
    if not (folder / "latency.parquet").exists():
        raise UsageError(f"{folder / 'latency.parquet'}: no table to validate; `hilnas lut latency` makes it")
    with Run(folder.parent) as opened:
        context = Context(experiment, space, opened, arguments.boards)
        with console.progress() as progress:
            for done in validate(context, demand):
                progress(done)
        verdict = validations(folder)[-1]
    if arguments.json:
        _print(plain(verdict))
    else:
        _say_verdict(verdict, Lineage.of(Table.load(folder / "latency.parquet")))
    verdict.require_held()
    return 0


def _say_verdict(verdict: TableValidation, current: Lineage) -> None:
    for words in verdict.changed:
        console.say(f"changed: {words}")
    low, high = verdict.ci95
    console.say(
        f"{verdict.entries} entries measured again: median ratio new / old {verdict.ratio:.4f} "
        f"[{low:.4f}, {high:.4f}], tau-b {verdict.tau_b:.3f}"
    )
    if verdict.holds and current.version != verdict.parent:
        console.say(f"it holds: version {current.version} belongs to the board as it is now; `hilnas agree` is next")
    elif verdict.holds:
        console.say(f"it holds: version {current.version} stays, the board is as it was")


def _record(arguments: Arguments, config: Path) -> int:
    from deploy.pipeline.loop import loop
    from deploy.studies.latency.record import Counts, record

    out = Path(arguments.action[1])
    experiment, space = load_experiment(config, Overrides.of(arguments))
    with Run(Path(arguments.runs_dir) / experiment.name) as opened:
        context = Context(experiment, space, opened, arguments.boards, open_engine(arguments.engine, arguments.workers))
        with console.progress() as progress:
            for done in itertools.chain(loop(context, "agree"), record(context, Counts(), out)):
                progress(done)
    console.say(f"{out}: {out.stat().st_size / 1e3:.0f} kB; `hilnas lut latency compare {out}` needs no board")
    return 0


def _compete(arguments: Arguments, config: Path) -> int:  # noqa: ARG001 (a record stands alone)
    from deploy.latency.active import Plan
    from deploy.studies.latency.record import Recorded
    from deploy.studies.latency.replay import compete
    from deploy.studies.latency.replay_plot import write_image
    from deploy.studies.latency.replay_summary import agreement_text, summarized, table_of_methods

    if arguments.plot:
        check_image(arguments.plot)
    recorded = Recorded.load(Path(arguments.action[1]))
    most = arguments.most_blocks or len(recorded.rows_of("block")) // 20
    outcomes = []
    with console.progress() as progress, one_thread():
        for outcome in compete(recorded, arguments.seeds, Plan(most_blocks=most)):
            outcomes.append(outcome)
            done = sum(bool(o.ended) for o in outcomes)
            progress(Progress("compare", done, 1 + 2 * arguments.seeds, f"{outcome.method}: {outcome.blocks} blocks"))
    found = summarized(recorded, outcomes)
    if arguments.out:
        found.write(arguments.out)
    if arguments.plot:
        write_image(arguments.plot, found.to_json())
    if arguments.json:
        _print(found.to_json())
    else:
        console.out.print(table_of_methods(found))
        for way in ("as_measured", "predicted", "corrected"):
            console.say(f"{way}: {agreement_text(getattr(found.agreement, way))}")
    return 0


def _tables(arguments: Arguments, config: Path) -> Path:
    """The tables' folder of the run that the configuration and the options name."""
    experiment, _ = load_experiment(config, Overrides.of(arguments))
    return Path(arguments.runs_dir) / experiment.name / "tables"


def _print(record: Any) -> None:
    print(json.dumps(record, indent=1))


ACTIONS: Mapping[str, Callable[[Arguments, Path], int]] = {
    "diff": _diff,
    "versions": _versions,
    "validate": _validate,
    "record": _record,
    "compare": _compete,
}
WORDS = {"diff": (2, "two tables, A and B"), "record": (1, "the file to write"), "compare": (1, "a record's file")}
"""How many words follow an action, and which."""
