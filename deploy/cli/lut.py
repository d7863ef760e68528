"""`hilnas lut`: a look-up table by source, its versions, how two differ, does it hold on a changed board?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, add_time_budget, load, open_run
from deploy.cli.table_views import show_difference, show_latency, show_table, show_versions
from hil.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from deploy.latency.validations import TableValidation
    from deploy.latency.versions import Lineage


@dataclass(frozen=True, kw_only=True)
class LutOptions(RunOptions):
    """See the help of each option; `words`: an action and what follows it."""

    table: str
    words: tuple[str, ...]
    seeds: int
    most_blocks: int | None
    out: Path | None
    plot: Path | None
    entries: int
    tolerance: float
    least_tau: float
    repair: str | None

    @property
    def tables(self) -> Path:
        """The tables' folder of the run that the options name."""
        experiment, _ = load(self)
        return self.runs_dir / experiment.name / "tables"


def add(commands: Commands) -> None:
    lut = add_run(
        commands.add_parser(
            "lut",
            help="the look-up tables: NSR, size, latency; their versions",
            description="Runs the loop up to a look-up table and shows it. `lut latency versions` lists the versions "
            "that were current; `lut latency diff A B` shows what changed between two of them (digits of a version, or "
            "files); `lut latency validate` measures some entries again on a board that changed, and shows whether the "
            "table still holds. `lut latency --repair` measures blocks with their neighbours where the errors of the "
            "agreement point, and agrees again. `lut latency record FILE` measures more full models and writes all "
            "into one small file; `lut latency compare FILE` compares active measuring, random choice and measuring "
            "everything on it, without a board.",
        )
    )
    lut.add_argument("table", choices=("nsr", "size", "latency"), help="NSR, size in bits, or latency in us")
    actions = ", ".join(" ".join((name, *action.words)) for name, action in ACTIONS.items())
    lut.add_argument("words", nargs="*", metavar="ACTION", help=f"of latency: {actions}")
    lut.add_argument(
        "--repair",
        nargs="?",
        const="",
        metavar="TIME",
        help="of latency, where full models disagree with it: measure blocks with their neighbours within so much "
        "board time, as 2min (default: a tenth of the table's), and agree again",
    )
    add_time_budget(lut)
    _add_compare(lut)
    validate = lut.add_argument_group("validate")
    validate.add_argument(
        "--entries", type=int, default=30, metavar="N", help="how many are measured again (default %(default)s)"
    )
    validate.add_argument(
        "--tolerance",
        type=float,
        default=0.02,
        metavar="X",
        help="how far from 1 the median ratio new / old may be (default %(default)s)",
    )
    validate.add_argument(
        "--tau",
        dest="least_tau",
        type=float,
        default=0.95,
        metavar="X",
        help="least tau-b between old and new latencies (default %(default)s)",
    )
    bind(lut, LutOptions, run)


def _add_compare(lut: argparse.ArgumentParser) -> None:
    compare = lut.add_argument_group("compare")
    compare.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="of active and of random choice (default %(default)s)"
    )
    compare.add_argument("--most-blocks", type=int, metavar="N", help="that active may measure (default: 5 %% of all)")
    compare.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there too")
    compare.add_argument("--plot", type=Path, metavar="FILE", help="draw them after each batch (.svg)")


def run(options: LutOptions) -> int:
    """Make a table and show it, or one of the actions."""
    if options.words:
        return _action(options)
    if options.repair is not None:
        return _repair(options)
    from deploy.pipeline.loop import loop
    from nas.table import Table

    with open_run(options) as context:
        console.follow(loop(context, "profile" if options.table == "latency" else "tables"))
        path = context.path / "tables" / f"{options.table}.parquet"
    if options.table == "latency":
        show_latency(path, options.json)
    else:
        show_table(Table.load(path), path)
    return 0


def _action(options: LutOptions) -> int:
    name, *words = options.words
    if options.repair is not None:
        raise UsageError(f"lut latency {name} --repair: one of both; leave one out")
    if options.table != "latency":
        raise UsageError(f"lut {options.table} {name}: only `lut latency` has actions; leave '{name}' out")
    if name not in ACTIONS:
        raise UsageError(f"lut latency {name}: no such action; there are {', '.join(ACTIONS)}")
    action = ACTIONS[name]
    if len(words) != len(action.words):
        raise UsageError(f"lut latency {name}: takes {action.takes}, not {' '.join(words) or 'nothing'}")
    return action.work(options)


def _repair(options: LutOptions) -> int:
    """`CheckFailed` if the table is still below the gate."""
    from deploy.cli.loop import show_agreement
    from deploy.latency.gate import check_gate
    from deploy.pipeline.repair import repair
    from deploy.run.records import AgreementRecord
    from hil.reservation import seconds_of

    if options.table != "latency":
        raise UsageError(f"lut {options.table} --repair: only a latency table is repaired; leave it out")
    with open_run(options) as context:
        console.follow(repair(context, seconds_of(options.repair) if options.repair else None))
        record = AgreementRecord.read(context.path / AgreementRecord.FILE)
    if options.json:
        console.say_json(record.to_json())
    else:
        show_agreement(record)
    check_gate(record.gate)
    return 0


def _versions(options: LutOptions) -> int:
    show_versions(options.tables, options.json)
    return 0


def _diff(options: LutOptions) -> int:
    show_difference(options.words[1:], options.tables, options.json)
    return 0


def _validate(options: LutOptions) -> int:
    """`CheckFailed` if the table does not hold."""
    from deploy.latency.validate import validate, validations
    from deploy.latency.validations import Demand
    from deploy.latency.versions import Lineage
    from deploy.run.records import plain
    from nas.table import Table

    demand = Demand(options.entries, options.tolerance, options.least_tau)
    path = options.tables / "latency.parquet"
    if not path.exists():
        raise UsageError(f"{path}: no table to validate; `hilnas lut latency` makes it")
    with open_run(options) as context:
        console.follow(validate(context, demand))
        verdict = validations(path.parent)[-1]
    if options.json:
        console.say_json(plain(verdict))
    else:
        _show_verdict(verdict, Lineage.of(Table.load(path)))
    verdict.require_held()
    return 0


def _show_verdict(verdict: TableValidation, current: Lineage) -> None:
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


def _record(options: LutOptions) -> int:
    from deploy.pipeline.loop import loop
    from deploy.studies.latency.record import Counts, record

    out = Path(options.words[1])
    with open_run(options) as context:
        console.follow(loop(context, "agree"))
        console.follow(record(context, Counts(), out))
    console.say(f"{out}: {out.stat().st_size / 1e3:.0f} kB; `hilnas lut latency compare {out}` needs no board")
    return 0


def _compare(options: LutOptions) -> int:
    from deploy.formats.plots.figures import check_image
    from deploy.latency.active import Plan
    from deploy.run.folder import Progress
    from deploy.studies.latency.record import Recorded
    from deploy.studies.latency.replay import compete
    from deploy.studies.latency.replay_plot import write_image
    from deploy.studies.latency.replay_summary import agreement_text, summarized, table_of_methods
    from nas.training.threads import one_thread

    if options.plot:
        check_image(options.plot)
    for name, count in (("--seeds", options.seeds), ("--most-blocks", options.most_blocks)):
        if count is not None and count < 1:
            raise UsageError(f"{name} {count}: give at least 1")
    recorded = Recorded.load(Path(options.words[1]))
    most = options.most_blocks or len(recorded.rows_of("block")) // 20
    outcomes = []
    with console.progress() as progress, one_thread():
        for outcome in compete(recorded, options.seeds, Plan(most_blocks=most)):
            outcomes.append(outcome)
            done = sum(bool(o.ended) for o in outcomes)
            progress(Progress("compare", done, 1 + 2 * options.seeds, f"{outcome.method}: {outcome.blocks} blocks"))
    found = summarized(recorded, outcomes)
    if options.out:
        found.write(options.out)
    if options.plot:
        write_image(options.plot, found)
    if options.json:
        console.say_json(found.to_json())
    else:
        console.show(table_of_methods(found))
        for way in ("as_measured", "predicted", "corrected"):
            console.say(f"{way}: {agreement_text(getattr(found.agreement, way))}")
    return 0


@dataclass(frozen=True)
class Action:
    """`words` follow the action's name; `takes`: the same as a sentence."""

    words: tuple[str, ...]
    takes: str
    work: Callable[[LutOptions], int]


ACTIONS: Mapping[str, Action] = {
    "versions": Action((), "nothing", _versions),
    "diff": Action(("A", "B"), "two tables, A and B", _diff),
    "validate": Action((), "nothing", _validate),
    "record": Action(("FILE",), "the file to write", _record),
    "compare": Action(("FILE",), "a record's file", _compare),
}
"""Of `lut latency`."""
