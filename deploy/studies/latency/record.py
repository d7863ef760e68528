"""A board's latencies of a whole space in one small file: what anybody needs to try methods on without the board.

Every block alone, and whole models in three roles: `held-out` ones that nothing may be fitted to, `pool` ones that may
be measured, and `front` ones that may be too: what the table of isolated blocks itself would find. Parquet, a row each.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.compile.artifact import Artifact
from deploy.formats.files import write_atomically
from deploy.latency.on_board import compiled_once
from deploy.latency.table import halves, summaries
from deploy.pipeline.agree import sampled_architectures
from deploy.pipeline.profiling import jobs as jobs_of
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress, measured
from hil.job import Job
from hil.measurement import Measurement
from nas.errors import TableError
from nas.search.front import exact_front
from nas.space import Architecture
from nas.table import Table

FORMAT = "hilnas-record/1"
Role = Literal["block", "held-out", "pool", "front"]
ROLES: tuple[Role, ...] = ("block", "held-out", "pool", "front")


@dataclass(frozen=True)
class Row:
    """A subnet or an architecture as it was measured.

    Attributes:
        low_us, high_us: 95 % interval of the median; halves: medians of two halves of the rounds.
        board_s: what measuring it took of the board.
        nsr, size_bits: sums over its blocks.
    """

    name: str
    role: Role
    median_us: float
    low_us: float
    high_us: float
    first_half_us: float
    second_half_us: float
    n: int
    board_s: float
    nsr: float
    size_bits: float


@dataclass(frozen=True)
class Recorded:
    """`space` as its file's text, so that the record stands alone; `conditions`: of the measuring."""

    rows: tuple[Row, ...]
    space: dict[str, Any]
    size: tuple[int, int]
    scheme: str
    conditions: dict[str, Any]

    def of(self, *roles: Role) -> list[Row]:
        return [row for row in self.rows if row.role in roles]

    def save(self, path: Path) -> None:
        """Write Parquet, atomically."""
        import pandas as pd

        frame = pd.DataFrame([asdict(row) for row in self.rows])
        header = {name: value for name, value in asdict(self).items() if name != "rows"}
        frame.attrs["hilnas"] = {"format": FORMAT, **header}
        content = io.BytesIO()
        frame.to_parquet(content, engine="pyarrow", index=False, compression="zstd")
        write_atomically(path, content.getbuffer())

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """`TableError` if it is missing, damaged or no record."""
        import pandas as pd
        import pyarrow as pa

        try:
            frame = pd.read_parquet(path, engine="pyarrow")
            header = dict(frame.attrs["hilnas"])
            found = header.pop("format")
            rows = tuple(Row(**row) for row in frame.to_dict("records"))
            record = cls(rows, header["space"], tuple(header["size"]), header["scheme"], header["conditions"])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            message = f"{path}: not a record of this kit ({reason}); give one that `hilnas lut latency record` made"
            raise TableError(message) from None
        if found != FORMAT or any(row.role not in ROLES for row in rows):
            raise TableError(f"{path}: format {found}, this version reads {FORMAT}; record it again")
        return record


@dataclass(frozen=True)
class Counts:
    """How many whole models beside the held-out ones, which are those of the run's agreement."""

    pool: int = 30
    front: int = 10


def chosen(context: Context, counts: Counts) -> dict[Architecture, Role]:
    """The whole models, the same ones for the same seed and tables; those of the pool are uniform over the space."""
    rng = random.Random(f"{context.experiment.seed}/record")
    models: dict[Architecture, Role] = dict.fromkeys(sampled_architectures(context), "held-out")
    held_out = len(models)
    while len(models) < held_out + counts.pool:
        models.setdefault(context.space.sample(rng), "pool")
    if counts.front:
        tables = [Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "latency")]
        front = exact_front(context.space, tables).architectures
        for i in range(counts.front):
            models.setdefault(front[i * (len(front) - 1) // max(1, counts.front - 1)], "front")
    return models


def record(context: Context, counts: Counts, out: Path) -> Iterator[Progress]:
    """Measure more whole models of a run that was judged, and write everything that was measured into one file."""
    roles = chosen(context, counts)
    compiled: dict[str, Artifact] = {}
    for number, (architecture, role) in enumerate(roles.items()):
        sample = Artifact.at(context.path / "models", f"sample{number:03d}")
        compiled[str(architecture)] = sample if role == "held-out" else compiled_once(context, architecture)
        yield Progress("record", number + 1, len(roles), f"compiled {architecture}")
    settings = protocol(context.experiment.agreement.measuring)
    jobs = [_named(made.job(), name) for name, made in compiled.items()]
    models = yield from measure_with_progress(context, jobs, settings, "record")
    blocks = list(
        measured(context, jobs_of(context, context.space.all_subnets()), protocol(context.experiment.profile))
    )
    nsr, size = (Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "size"))
    of_blocks = {str(s): (nsr[s], size[s]) for s in context.space.all_subnets()}
    of_models = {str(a): (nsr.total(a), size.total(a)) for a in roles}
    rows = [
        *_rows(blocks, dict.fromkeys(of_blocks, "block"), of_blocks),
        *_rows(models, {str(a): role for a, role in roles.items()}, of_models),
    ]
    recorded = Recorded(
        tuple(rows),
        json.loads(json.dumps(asdict(context.space))),
        context.experiment.data.size,
        f"{context.experiment.quantization.granularity} int8",
        models[0].conditions.to_json(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    recorded.save(out)
    yield Progress("record", len(rows), len(rows), f"{out}: {len(rows)} latencies")


def _named(job: Job, name: str) -> Job:
    return Job(job.model, name, job.input, job.expected)


def _rows(
    measurements: Sequence[Measurement], roles: dict[str, Role], sums: dict[str, tuple[float, float]]
) -> Iterator[Row]:
    medians, split = summaries(measurements), halves(measurements)
    took: dict[str, float] = {}
    for m in measurements:
        took[m.model] = took.get(m.model, 0.0) + m.own_us / 1e6
    for name, role in roles.items():
        s = medians[name]
        first, second = split[name]
        yield Row(name, role, s.median_us, *s.ci95_us, first, second, s.n, took[name], *sums[name])
