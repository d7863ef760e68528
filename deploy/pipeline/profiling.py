"""The stage that measures blocks: every file on the board, or what counts within a budget; the latency table."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from deploy.compile import subtrees
from deploy.latency.active import Plan
from deploy.latency.board_source import BoardSource, spend
from deploy.latency.estimates import of_summary
from deploy.latency.features import BlockFeatures, block_features
from deploy.latency.in_context import measure_in_context, overhead_files
from deploy.latency.key import BELONGS, TableKey, check_device
from deploy.latency.overhead import PROVENANCE, OverheadRecord, solved
from deploy.latency.predictor import BlockModel, fit, predict
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table, latency_table, measured_as, summaries
from deploy.latency.versions import Lineage, save_version
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.models import compile_teacher, quantized_teacher
from deploy.run.records import ProfileRecord
from deploy.run.schemes import SchemeRun, main_scheme_run
from hil.boards.kinds import open_board
from hil.job import Job, MeasureProtocol
from hil.measurement import Measurement
from hil.reservation import seconds_of
from hil.sessions import open_session
from hil.stats import LatencySummary
from nas.errors import TableError
from nas.estimate import Estimate
from nas.space import SearchSpace, Subnet
from nas.table import Table
from nas.training.threads import one_thread

PARITY = MeasureProtocol(warmup_runs=0, warmup_runs_most=0, runs=1, rounds=1)  # for its output: its time is not used


@dataclass(frozen=True, eq=False)
class Profiled:
    """What the board measured: entries, every block's posterior, all measurements behind them.

    `overhead`: what was taken out of the entries; None: nothing was.
    """

    entries: Mapping[Subnet, Estimate]
    model: BlockModel
    overhead: OverheadRecord | None
    measurements: list[Measurement]


def profile(context: Context) -> Iterator[Progress]:
    """Blocks on the board: parity with the integer simulation, then latency; tables/latency.parquet.

    The table holds every block's posterior (`deploy.latency.predictor`); what was measured is its parent version.
    """
    _refuse_another_device(context)
    if context.target:
        compile_teacher(context)  # its errors are every full model's, and nothing was pushed yet
    record = yield from profile_scheme(context, main_scheme_run(context))
    record.write(context.path / ProfileRecord.FILE)


def profile_scheme(context: Context, of: SchemeRun) -> Generator[Progress, None, ProfileRecord]:
    """A scheme's latency table. The budget is the main scheme's: of the others everything is measured.

    The main scheme's entries are less what a graph pays besides its block (`deploy.latency.overhead`). The others' are
    as measured, with graph inputs and outputs, which the constant of the full models takes out again.
    """
    if of.main and context.experiment.profile.budget:
        profiled = yield from _within_budget(context, of)
    else:
        profiled = yield from _everything(context, of)
    return _save(context, of, profiled)


def _everything(context: Context, of: SchemeRun) -> Generator[Progress, None, Profiled]:
    """Every file. A width that runs as a wider one is run once, for its output, and has that one's latency.

    In context an entry never had what a graph pays besides its block.
    """
    space, settings = context.space, context.experiment.profile
    subnets = list(space.all_subnets())
    timed = [s for s in subnets if settings.form == "isolated" and measured_as(space, s) == s]
    untimed = of.artifacts(sorted(set(subnets) - set(timed)))
    checked = yield from of.measure(context, untimed, PARITY, "profile", "parity:")
    summaries(checked)  # a wrong output is an error at any width
    teacher = quantized_teacher(context) if of.main else None
    wanted = [*of.artifacts(timed), *(overhead_files(context, teacher) if teacher else ())]
    isolated = yield from of.measure(context, wanted, protocol(settings), "profile", "latency:")
    times = summaries(isolated)
    overhead = solved(times, teacher) if teacher else None
    if settings.form == "isolated":
        entries = {s: _entry(times[str(s)], s, overhead) for s in timed}
    else:
        entries = yield from measure_in_context(context, cells(space), settings.form)
    model = posterior(space, context.experiment.data.size, entries)
    return Profiled(entries, model, overhead, [*isolated, *checked])


def _entry(times: LatencySummary, subnet: Subnet, overhead: OverheadRecord | None) -> Estimate:
    return overhead.work(times, subnet.block) if overhead else of_summary(times)


def _within_budget(context: Context, of: SchemeRun) -> Generator[Progress, None, Profiled]:
    """What counts, until the front is stable or the budget is spent; yields how much is known after each batch."""
    settings = context.experiment.profile
    assert settings.budget is not None  # noqa: S101 (for the type checker)
    teacher = quantized_teacher(context)
    files = overhead_files(context, teacher)
    outside = yield from of.measure(context, files, protocol(settings), "profile", "overhead:")
    source = BoardSource(context, solved(summaries(outside), teacher))
    budget_s = seconds_of(settings.budget)
    plan = Plan(budget_s=budget_s, seed=context.experiment.seed)
    shown = 0
    with one_thread():  # the last bits of sums, and so what is asked next, depend on the number of threads
        for step in spend(source, _features(context.space, context.experiment.data.size), plan):
            words = f"{len(step.observed.blocks)} blocks, {len(step.observed.networks)} models; {step}"
            new, shown = tuple(source.measurements[shown:]), len(source.measurements)
            yield Progress("profile", min(int(step.observed.seconds), budget_s), budget_s, words, new, "s")
    return Profiled(source.entries, step.model, source.overhead, [*outside, *source.measurements])


def cells(space: SearchSpace) -> list[Subnet]:
    """One subnet for all widths that execute alike."""
    return sorted({measured_as(space, subnet) for subnet in space.all_subnets()})


def _features(space: SearchSpace, size: tuple[int, int]) -> BlockFeatures:
    return block_features(space, size).select(cells(space))


def posterior(space: SearchSpace, size: tuple[int, int], entries: Mapping[Subnet, Estimate]) -> BlockModel:
    """What measured entries say of all blocks at input `size` (H, W)."""
    with one_thread():
        return fit(_features(space, size), entries)


def _save(context: Context, of: SchemeRun, profiled: Profiled) -> ProfileRecord:
    space, conditions = context.space, profiled.measurements[0].conditions
    provenance = _provenance(context, of, profiled)
    predicted = latency_table(space, predict(profiled.model, profiled.entries), provenance)
    whole = not (of.main and context.experiment.profile.budget)  # of what was not run nothing is known
    if of.main:
        _save_versions(context, profiled, provenance, predicted)
    else:
        predicted.save(of.tables / "latency.parquet")
    left = of.tables / f"{CPU_OPERATORS}.parquet"
    left.unlink(missing_ok=True)
    if conditions.delegate != "none" and whole:
        cpu_operators_table(space, profiled.measurements, provenance).save(left)
    names = set(map(str, space.all_subnets()))
    exact = {m.model for m in profiled.measurements if m.parity is not None and m.parity.mismatched == 0}
    return ProfileRecord(len(names), len(profiled.entries), len(exact & names), conditions)


def _provenance(context: Context, of: SchemeRun, profiled: Profiled) -> dict[str, object]:
    form, size = context.experiment.profile.form, context.experiment.data.size
    conditions = profiled.measurements[0].conditions
    provenance: dict[str, object] = {
        "key": of.keys["profile"],
        BELONGS: TableKey.under(conditions, context.space.digest, size, str(of.scheme), form).to_json(),
        "conditions": conditions.to_json(),
        "size": list(size),
        **of.provenance,
    }
    if profiled.overhead:
        provenance |= {"form": form, PROVENANCE: profiled.overhead.to_json()}
    return provenance


def _save_versions(context: Context, profiled: Profiled, provenance: Mapping[str, object], predicted: Table) -> None:
    """The table with its parent version, in which no block is predicted; without one where not all was measured."""
    tables = context.path / "tables"
    if profiled.overhead:
        profiled.overhead.write(tables / OverheadRecord.FILE)
    parents = []
    if context.experiment.profile.budget is None:
        measured = latency_table(context.space, profiled.entries, provenance)
        parents = [Lineage.of(save_version(measured, tables, "latency", "measured")).version]
    save_version(predicted, tables, "latency", "predicted", parents)


def _refuse_another_device(context: Context) -> None:
    """`TableError` if the run has a table of these very files and settings, and its device is not what it was."""
    try:
        table = Table.load(context.path / "tables" / "latency.parquet")
        TableKey.of(table)
    except TableError:  # none, a damaged or an old one: it is made anew
        return
    if table.provenance.get("key") == context.keys["profile"]:
        with open_board(context.board) as board, open_session(board) as session:
            check_device(table, session.conditions)


def jobs(context: Context, subnets: Iterable[Subnet]) -> list[Job]:
    """The files of the run's subnets, each with its golden pair."""
    return [subtrees.artifact(context.path / "subnets", subnet).job() for subnet in subnets]
