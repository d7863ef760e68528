"""The stage that measures blocks: every file on the board, or what counts within a budget; the latency table."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from deploy.compile import subtrees
from deploy.latency.active import Plan
from deploy.latency.board_source import BoardSource, spend
from deploy.latency.features import BlockFeatures, block_features
from deploy.latency.in_context import measure_in_context, overhead_files
from deploy.latency.key import BELONGS, TableKey, check_device
from deploy.latency.overhead import PROVENANCE, OverheadRecord, solved
from deploy.latency.predictor import BlockModel, fit, predict
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table, latency_table, measured_as, summaries
from deploy.latency.versions import Lineage, save_version
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.models import compile_teacher, quantized_teacher
from deploy.run.records import ProfileRecord
from hil.boards.config import open_board
from hil.job import Job, MeasureProtocol
from hil.measurement import Measurement
from hil.reservation import seconds_of
from hil.session import open_session
from nas.errors import TableError
from nas.estimate import Estimate
from nas.space import SearchSpace, Subnet
from nas.table import Table
from nas.training.threads import one_thread

PARITY = MeasureProtocol(warmup_runs=0, warmup_runs_most=0, runs=1, rounds=1)  # for an answer: its time is not used


@dataclass(frozen=True, eq=False)
class Found:
    """What the board said: entries of what was measured, everything's posterior, all measurements behind them."""

    entries: Mapping[Subnet, Estimate]
    model: BlockModel
    overhead: OverheadRecord
    measurements: list[Measurement]


def profile(context: Context) -> Iterator[Progress]:
    """Blocks on the board: parity with the integer simulation, then latency; tables/latency.parquet.

    The table holds every block's posterior (`deploy.latency.predictor`); what was measured is its parent version.
    """
    _refuse_another_device(context)
    if context.target:
        compile_teacher(context)  # its errors are every whole model's, and nothing was pushed yet
    found = yield from (_within_budget if context.experiment.profile.budget else _everything)(context)
    _save(context, found)


def _everything(context: Context) -> Generator[Progress, None, Found]:
    """Every file. A width that runs as a wider one is run once, for its answer, and has that one's latency.

    What a graph pays besides its block is taken out (`deploy.latency.overhead`); in context, it never was in.
    """
    space, settings = context.space, context.experiment.profile
    subnets = list(space.all_subnets())
    timed = [s for s in subnets if settings.form == "isolated" and measured_as(space, s) == s]
    untimed = jobs(context, sorted(set(subnets) - set(timed)))
    checked = yield from measure_with_progress(context, untimed, PARITY, "profile", "parity:")
    summaries(checked)  # a wrong answer is an error at any width
    teacher = quantized_teacher(context)
    wanted = [*jobs(context, timed), *(artifact.job() for artifact in overhead_files(context, teacher))]
    alone = yield from measure_with_progress(context, wanted, protocol(settings), "profile", "latency:")
    times = summaries(alone)
    overhead = solved(times, teacher)
    if settings.form == "isolated":
        entries = {s: overhead.work(times[str(s)], s.block) for s in timed}
    else:
        entries = yield from measure_in_context(context, cells(space), settings.form)
    model = posterior(space, context.experiment.data.size, entries)
    return Found(entries, model, overhead, [*alone, *checked])


def _within_budget(context: Context) -> Generator[Progress, None, Found]:
    """What counts, until the front is stable or the budget is spent; yields how much is known after each batch."""
    settings = context.experiment.profile
    assert settings.budget is not None  # noqa: S101 (for the type checker)
    teacher = quantized_teacher(context)
    files = [artifact.job() for artifact in overhead_files(context, teacher)]
    first = yield from measure_with_progress(context, files, protocol(settings), "profile", "overhead:")
    source = BoardSource(context, solved(summaries(first), teacher))
    budget_s = seconds_of(settings.budget)
    plan = Plan(budget_s=budget_s, seed=context.experiment.seed)
    with one_thread():  # the last bits of sums, and so what is asked next, depend on the number of threads
        for step in spend(source, _features(context.space, context.experiment.data.size), plan):
            words = f"{len(step.observed.blocks)} blocks, {len(step.observed.networks)} models; {step}"
            yield Progress("profile", min(int(step.observed.seconds), budget_s), budget_s, words)
    return Found(source.entries, step.model, source.overhead, [*first, *source.measurements])


def cells(space: SearchSpace) -> list[Subnet]:
    """One subnet for all widths that execute alike."""
    return sorted({measured_as(space, subnet) for subnet in space.all_subnets()})


def _features(space: SearchSpace, size: tuple[int, int]) -> BlockFeatures:
    return block_features(space, size).select(cells(space))


def posterior(space: SearchSpace, size: tuple[int, int], entries: Mapping[Subnet, Estimate]) -> BlockModel:
    """What measured entries tell of all blocks at input `size` (H, W)."""
    with one_thread():
        return fit(_features(space, size), entries)


def _save(context: Context, found: Found) -> None:
    space, settings, tables = context.space, context.experiment.profile, context.path / "tables"
    conditions = found.measurements[0].conditions
    scheme, size = str(context.experiment.quantization.own), context.experiment.data.size
    provenance = {
        "key": context.keys["profile"],
        BELONGS: TableKey.under(conditions, space.digest, size, scheme, settings.form).to_json(),
        "conditions": conditions.to_json(),
        "size": list(size),
        "form": settings.form,
        PROVENANCE: found.overhead.to_json(),
    }
    found.overhead.write(tables / OverheadRecord.FILE)
    parents = []
    if settings.budget is None:
        whole = save_version(latency_table(space, found.entries, provenance), tables, "latency", "measured")
        parents = [Lineage.of(whole).version]
    table = latency_table(space, predict(found.model, found.entries), provenance)
    save_version(table, tables, "latency", "predicted", parents)
    left = tables / f"{CPU_OPERATORS}.parquet"
    left.unlink(missing_ok=True)
    if conditions.delegate != "none" and settings.budget is None:  # what was not run may stay on the CPU
        cpu_operators_table(space, found.measurements, provenance).save(left)
    names = set(map(str, space.all_subnets()))
    exact = {m.model for m in found.measurements if m.parity is not None and m.parity.mismatched == 0}
    made = ProfileRecord(len(names), len(found.entries), len(exact & names), conditions)
    made.write(context.path / ProfileRecord.FILE)


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
