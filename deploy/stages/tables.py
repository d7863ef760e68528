"""Stages that fill the tables: every subnet quantized, judged, compiled; then every file measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

from deploy import population
from deploy.compile import Artifact
from deploy.context import Context, protocol
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table, latency_table, summaries
from deploy.population import IMAGES, Population, SubTree, sub_trees
from deploy.run import Progress, write_atomically, write_json
from deploy.stages.judge import compile_teacher
from hil.measurement import Measurement
from nas.data.batches import images_of
from nas.errors import ConfigError, EngineError
from nas.space import Subnet
from nas.table import Entry, Table, size_table


def artifact(context: Context, subnet: Subnet) -> Artifact:
    return population.artifact(context.path / "subnets", subnet)


def populate(context: Context) -> Iterator[Progress]:
    """NSR and size of every subnet, and its .tflite, sub-tree by sub-tree on the run's engine; tables/*.parquet.

    A sub-tree that ended is in nsr.jsonl and not walked again, however this is stopped.
    """
    space, key, quantization = context.space, context.keys["tables"], context.experiment.quantization
    task = Population(space, quantization.scheme, (context.path / "subnets").resolve(), key)
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
            yield Progress("tables", len(values), total, str(sub_tree))
    shutil.rmtree(task.inputs)
    tables = context.path / "tables"
    tables.mkdir(exist_ok=True)
    size_table(space).save(tables / "size.parquet")
    nsr = Table(
        "nsr",
        "ratio",
        {s: Entry.exact(values[s]) for s in space.all_subnets()},
        {"space": space.digest, "key": key, "checkpoint": context.supernets_digest, **asdict(quantization.scheme)},
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
    """Every subnet's file on the board: parity with the integer simulation, then latency; tables/latency.parquet."""
    if context.target:
        compile_teacher(context)  # its errors are every whole model's, and nothing was pushed yet
    settings = protocol(context.experiment.profile)
    jobs = [artifact(context, subnet).job() for subnet in context.space.all_subnets()]
    measurements: list[Measurement] = []
    for done in context.measured(jobs, settings):
        measurements.append(done)
        yield Progress("profile", len(measurements), len(jobs) * settings.rounds, done.model)
    conditions = measurements[0].conditions
    provenance = {
        "key": context.keys["profile"],
        "conditions": conditions.to_json(),
        "size": list(context.experiment.data.size),
    }
    table = latency_table(context.space, summaries(measurements), provenance)
    table.save(context.path / "tables" / "latency.parquet")
    left = context.path / "tables" / f"{CPU_OPERATORS}.parquet"
    left.unlink(missing_ok=True)
    if conditions.delegate != "none":
        cpu_operators_table(context.space, measurements, provenance).save(left)
    exact = {m.model for m in measurements if m.parity is not None and m.parity.mismatched == 0}
    write_json(
        context.path / "profile.json",
        {
            "compiled": len(jobs),
            "measured": len(table.entries),
            "exact_parity": len(exact),
            "conditions": conditions.to_json(),
        },
    )
