"""Stages that fill the tables: every subnet quantized, judged, compiled; then every file measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

from deploy import population
from deploy.compile import Artifact
from deploy.context import Context, protocol
from deploy.latency.active import Plan
from deploy.latency.constants import solved
from deploy.latency.in_context import constant_files, measure_in_context, measured
from deploy.latency.key import BELONGS, TableKey, check_device
from deploy.latency.on_board import OnBoard, completed, said, spend
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table, latency_table, measured_as, summaries
from deploy.latency.versions import How, save_version
from deploy.population import IMAGES, Population, SubTree, sub_trees
from deploy.run import Progress, write_atomically, write_json
from deploy.whole_models import compile_teacher, quantized_teacher
from hil.boards.inventory import open_board
from hil.job import Job, MeasureProtocol
from hil.reservation import seconds_of
from hil.session import open_session
from nas.data.batches import images_of
from nas.errors import ConfigError, EngineError, TableError
from nas.space import Subnet
from nas.table import Entry, Table, size_table
from nas.threads import one_thread

NOTHING: Mapping[str, object] = {}
PARITY = MeasureProtocol(warmup_runs=0, warmup_runs_most=0, runs=1, rounds=1)  # for an answer: its time is not used


def artifact(context: Context, subnet: Subnet) -> Artifact:
    return population.artifact(context.path / "subnets", subnet)


def populate(context: Context) -> Iterator[Progress]:
    """NSR and size of every subnet, and its .tflite; tables/*.parquet."""
    scheme, folder = context.experiment.quantization.scheme, (context.path / "subnets").resolve()
    task = Population(context.space, scheme, folder, context.keys["tables"])
    yield from fill(context, task, context.path / "tables", "tables")


def fill(
    context: Context, task: Population, tables: Path, stage: str, said: Mapping[str, object] = NOTHING
) -> Iterator[Progress]:
    """The NSR and the size table, and every subnet's files, sub-tree by sub-tree on the run's engine.

    A sub-tree that ended is in nsr.jsonl and not walked again, however this is stopped. `said`: more of the NSRs'
    provenance.
    """
    space, key, quantization = context.space, task.key, context.experiment.quantization
    _start_afresh_unless(task.folder, key)
    journal = task.folder / "nsr.jsonl"
    values = _finished(journal)
    total = space.count()
    task.prepare(
        context.teacher,
        context.supernets,
        images_of(context.train_data, quantization.calibration_images, batch_size=IMAGES),
        images_of(context.train_data, quantization.evaluation_images, shift=0.5, batch_size=IMAGES),
    )
    ended = context.engine.each(task, sub_trees(space, values))
    with journal.open("a", encoding="utf8") as lines, closing(ended):
        for sub_tree, found in ended:
            _check_files(task.folder, sub_tree)
            lines.writelines(json.dumps({"subnet": str(s), "nsr": nsr}) + "\n" for s, nsr in found.items())
            lines.flush()
            values |= found
            yield Progress(stage, len(values), total, str(sub_tree))
    shutil.rmtree(task.inputs)
    tables.mkdir(parents=True, exist_ok=True)
    size_table(space).save(tables / "size.parquet")
    nsr = Table(
        "nsr",
        "ratio",
        {s: Entry.exact(values[s]) for s in space.all_subnets()},
        {"space": space.digest, "key": key, "checkpoint": context.supernets_digest, **asdict(task.scheme), **said},
    )
    nsr.check(space)
    nsr.save(tables / "nsr.parquet")


def _check_files(folder: Path, sub_tree: SubTree) -> None:
    """`EngineError` where a worker wrote a sub-tree's files, but not here."""
    for subnet in sub_tree.subnets:
        if not population.artifact(folder, subnet).exists:
            raise EngineError(f"{folder}: a worker's {subnet}.tflite is not here: put --runs-dir on storage they share")


def _start_afresh_unless(folder: Path, key: str) -> None:
    marker = folder / "KEY"
    if not marker.exists() or marker.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomically(marker, key)


def _finished(journal: Path) -> dict[Subnet, float]:
    """What an interrupted walk had finished; a line that was cut short or damaged does not count."""
    values = {}
    content = journal.read_bytes() if journal.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.splitlines():
        with suppress(ValueError, KeyError, TypeError, ConfigError):
            entry = json.loads(line)
            values[Subnet.parse(entry["subnet"])] = float(entry["nsr"])
    if whole != content:
        write_atomically(journal, whole)
    return values


def profile(context: Context) -> Iterator[Progress]:
    """Every subnet's file on the board: parity with the integer simulation, then latency; tables/latency.parquet.

    A width that runs as a wider one is run once, for its answer, and has that one's latency. What a graph pays besides
    its block is taken out (`deploy.latency.constants`); in context, it never was in (`deploy.latency.in_context`).
    """
    _refuse_another_device(context)
    if context.target:
        compile_teacher(context)  # its errors are every whole model's, and nothing was pushed yet
    space, settings = context.space, context.experiment.profile
    subnets = list(space.all_subnets())
    every = settings.form == "isolated" and settings.budget is None
    timed = [s for s in subnets if every and measured_as(space, s) == s]
    rest = [] if settings.budget else sorted(set(subnets) - set(timed))
    teacher = quantized_teacher(context)
    checked = yield from measured(context, _jobs(context, rest), PARITY, "parity")
    summaries(checked)  # a wrong answer is an error at any width
    jobs = [*_jobs(context, timed), *(artifact.job() for artifact in constant_files(context, teacher))]
    alone = yield from measured(context, jobs, protocol(settings), "latency")
    times = summaries(alone)
    constants = solved(times, teacher)
    write_json(context.path / "tables" / "constants.json", constants.record())
    how: How = "measured"
    if every:
        entries = {s: constants.work(times[str(s)], s.block) for s in timed}
    elif settings.form != "isolated":
        entries = yield from measure_in_context(context, subnets, settings.form)
    else:
        bench = OnBoard(context, constants)
        entries, how = (yield from _actively(bench)), "regressed"
        alone = [*alone, *bench.answers]
    measurements, conditions = [*checked, *alone], alone[0].conditions
    scheme, size = str(context.experiment.quantization.own), context.experiment.data.size
    provenance = {
        "key": context.keys["profile"],
        BELONGS: TableKey.under(conditions, space.digest, size, scheme, settings.form).to_json(),
        "conditions": conditions.to_json(),
        "size": list(size),
        "form": settings.form,
        "constants": constants.record(),
    }
    table = latency_table(space, entries, provenance)
    save_version(table, context.path / "tables", "latency", how)
    left = context.path / "tables" / f"{CPU_OPERATORS}.parquet"
    left.unlink(missing_ok=True)
    if conditions.delegate != "none" and not settings.budget:  # what was not run may stay on the CPU
        cpu_operators_table(space, measurements, provenance).save(left)
    exact = {m.model for m in measurements if m.parity is not None and m.parity.mismatched == 0}
    write_json(
        context.path / "profile.json",
        {
            "compiled": len(subnets),
            "measured": sum(entry.n > 0 for entry in entries.values()),
            "exact_parity": len(exact & set(map(str, subnets))),
            "conditions": conditions.to_json(),
        },
    )


def _actively(bench: OnBoard) -> Generator[Progress, None, dict[Subnet, Entry]]:
    """Entries for everything, from measuring what counts; yields how much is known after each batch."""
    settings = bench.context.experiment.profile
    assert settings.budget is not None  # noqa: S101 (for the type checker)
    budget_s = seconds_of(settings.budget)
    plan = Plan(budget_s=budget_s, seed=bench.context.experiment.seed)
    with one_thread():  # the last bits of sums, and so what is asked next, depend on the number of threads
        for step in spend(bench, plan):
            told = f"{len(step.known.blocks)} blocks, {len(step.known.models)} models; {said(step)}"
            yield Progress("profile", min(int(step.known.seconds), budget_s), budget_s, told)
    return completed(bench, step)


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


def _jobs(context: Context, subnets: Iterable[Subnet]) -> list[Job]:
    return [artifact(context, subnet).job() for subnet in subnets]
