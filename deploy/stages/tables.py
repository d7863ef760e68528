"""Stages that fill the tables: every subnet quantized, judged, compiled; then every file measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from deploy.compile import Artifact, model_metadata
from deploy.context import Context, protocol
from deploy.latency import latency_table, summaries
from deploy.run import Progress, write_atomically, write_json
from deploy.stages.judge import compile_teacher
from deploy.tflite.writer import write
from hil.measure import measure
from hil.measurement import Measurement
from nas.errors import ConfigError
from nas.nsr import BlockData, Judged, golden_input, walk
from nas.space import Subnet
from nas.table import Entry, Table, size_table
from nas.threads import one_thread


def artifact(context: Context, subnet: Subnet) -> Artifact:
    return Artifact.at(context.path / "subnets", str(subnet), shared_input=f"b{subnet.block}")


def populate(context: Context) -> Iterator[Progress]:
    """NSR and size of every subnet, and its .tflite, in one walk of each block's tree; tables/*.parquet."""
    folder, key, space = context.path / "subnets", context.keys["tables"], context.space
    scheme = context.experiment.quantization.scheme
    _start_afresh_unless(folder, key)
    journal = folder / "nsr.jsonl"
    values = _finished(journal)
    total = space.count()
    with torch.no_grad(), one_thread():
        calibration, evaluation = (context.teacher.boundaries(x) for x in (context.calibration, context.evaluation))
    with journal.open("a", encoding="utf8") as lines, one_thread():
        for supernet in context.supernets:
            i = supernet.block - 1
            data = BlockData(calibration[i], evaluation[i], evaluation[i + 1])
            write_atomically(folder / f"b{supernet.block}.input.bin", golden_input(data, scheme).tobytes())
            for bits in space.bits:
                for judged in walk(supernet, data, bits, scheme, values):
                    _compile(judged, artifact(context, judged.subnet), key)
                    values[judged.subnet] = judged.nsr
                    lines.write(json.dumps({"subnet": str(judged.subnet), "nsr": judged.nsr}) + "\n")
                    lines.flush()
                    yield Progress("tables", len(values), total, str(judged.subnet))
    tables = context.path / "tables"
    tables.mkdir(exist_ok=True)
    size_table(space).save(tables / "size.parquet")
    nsr = Table(
        "nsr",
        "ratio",
        {s: Entry.exact(values[s]) for s in space.all_subnets()},
        {"space": space.digest, "key": key, **asdict(scheme)},
    )
    nsr.check(space)
    nsr.save(tables / "nsr.parquet")


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


def _compile(judged: Judged, target: Artifact, key: str) -> None:
    metadata = model_metadata(judged.graph, str(judged.subnet), key)
    write_atomically(target.expected, judged.golden_output.tobytes(), durable=False)
    write_atomically(target.model, write(judged.graph, metadata), durable=False)


def profile(context: Context) -> Iterator[Progress]:
    """Every subnet's file on the board: parity with the integer simulation, then latency; tables/latency.parquet."""
    if context.target:
        compile_teacher(context)  # its errors are every whole model's, and nothing was pushed yet
    settings = protocol(context.experiment.profile)
    jobs = [artifact(context, subnet).job() for subnet in context.space.all_subnets()]
    measurements: list[Measurement] = []
    with context.session() as (session, store):
        for done in measure(session, jobs, settings, store, seed=context.experiment.seed, canary=context.canary):
            measurements.append(done)
            yield Progress("profile", len(measurements), len(jobs) * settings.rounds, done.model)
        conditions = session.conditions
    provenance = {
        "key": context.keys["profile"],
        "conditions": conditions.to_json(),
        "size": list(context.experiment.data.size),
    }
    table = latency_table(context.space, summaries(measurements), provenance)
    table.save(context.path / "tables" / "latency.parquet")
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
