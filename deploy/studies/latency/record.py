"""A board's latencies of a whole space in one small file, to try methods on without the board.

Every isolated block, and full networks in three roles: `held-out` ones that nothing may be fitted to, `pool` ones that
may be measured, and `front` ones, which may be too: the Pareto front by the table of isolated blocks. Parquet, one row
each.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact
from deploy.formats.files import write_atomically
from deploy.latency.agreement import MeasuredNetwork
from deploy.latency.board_source import compiled_once
from deploy.latency.table import halves, summaries
from deploy.pipeline.agree import sampled_architectures
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress, measured
from hil.measurement import Measurement
from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.search.front import exact_front
from nas.search.reduction import counted
from nas.settings import build
from nas.space import Architecture, SearchSpace
from nas.table import Table

FORMAT = "hilnas-record/1"
Role = Literal["block", "held-out", "pool", "front"]
ROLES: tuple[Role, ...] = ("block", "held-out", "pool", "front")


@dataclass(frozen=True)
class Row:
    """A measured subnet or architecture.

    Attributes:
        name: its text form.
        role: what it may be used for.
        median_us: its latency.
        low_us: lower end of the median's 95 % interval.
        high_us: upper end.
        first_half_us: median of the first half of the rounds.
        second_half_us: median of the other half.
        n: samples.
        board_s: board time of the measurement.
        nsr: sum over its blocks.
        size_bits: sum over its blocks.
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

    @property
    def estimate(self) -> Estimate:
        """The latency, microseconds."""
        return Estimate(self.median_us, None, self.low_us, self.high_us, self.n, "replayed")

    @property
    def network(self) -> MeasuredNetwork:
        halves_us = (self.first_half_us, self.second_half_us)
        return MeasuredNetwork(Architecture.parse(self.name), float("nan"), self.median_us, halves_us)


@dataclass(frozen=True)
class Recorded:
    """The latencies of one space on one board.

    Attributes:
        rows: all that was measured.
        space: whole, so that the file needs no other.
        size: of the network's input, (H, W).
        scheme: of the quantization, as in a table's key.
        conditions: of the measuring, as they were recorded.
    """

    rows: tuple[Row, ...]
    space: SearchSpace
    size: tuple[int, int]
    scheme: str
    conditions: Mapping[str, Any]

    def rows_of(self, *roles: Role) -> list[Row]:
        return [row for row in self.rows if row.role in roles]

    def save(self, path: Path) -> None:
        import pandas as pd

        frame = pd.DataFrame([asdict(row) for row in self.rows])
        space = json.loads(json.dumps(asdict(self.space)))
        header = {"space": space, "size": self.size, "scheme": self.scheme, "conditions": dict(self.conditions)}
        frame.attrs["hilnas"] = {"format": FORMAT, **header}
        content = io.BytesIO()
        frame.to_parquet(content, engine="pyarrow", index=False, compression="zstd")
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """`TableError` if it is missing, damaged or no record."""
        import pandas as pd
        import pyarrow as pa

        try:
            frame = pd.read_parquet(path, engine="pyarrow")
            header = dict(frame.attrs["hilnas"])
            rows = tuple(Row(**row) for row in frame.to_dict("records"))
            space = build(SearchSpace, header["space"], "space")
            record = cls(rows, space, tuple(header["size"]), header["scheme"], header["conditions"])
            found = header["format"]
        except FileNotFoundError:
            raise TableError(f"{path}: no such file; give one that `hilnas lut latency record` made") from None
        except (OSError, pa.ArrowException, ConfigError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            message = f"{path}: not a record of this kit ({reason}); give one that `hilnas lut latency record` made"
            raise TableError(message) from None
        if found != FORMAT or any(row.role not in ROLES for row in rows):
            raise TableError(f"{path}: format {found}, this version reads {FORMAT}; record it again")
        return record


@dataclass(frozen=True)
class Counts:
    """Numbers of full networks besides the held-out ones, which are those of the run's agreement.

    Attributes:
        pool: uniform over the space; fewer where it has no more.
        front: on the Pareto front.
    """

    pool: int = 30
    front: int = 10


def chosen(context: Context, counts: Counts) -> dict[Architecture, Role]:
    """The full networks and their roles: the same ones for the same seed and tables."""
    rng = random.Random(f"{context.experiment.seed}/record")
    models: dict[Architecture, Role] = dict.fromkeys(sampled_architectures(context), "held-out")
    most = counted(context.space).architectures_with_bits
    wanted = min(len(models) + counts.pool, most)
    while len(models) < wanted:
        models.setdefault(context.space.sample(rng), "pool")
    if counts.front:
        tables = [Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "latency")]
        front = exact_front(context.space, tables).architectures
        for i in range(counts.front):
            models.setdefault(front[i * (len(front) - 1) // max(1, counts.front - 1)], "front")
    return models


def record(context: Context, counts: Counts, out: Path) -> Iterator[Progress]:
    """Measure more full networks of a run after its stage `agree`, and write all that was measured into one file."""
    roles = chosen(context, counts)
    compiled: dict[str, Artifact] = {}
    for number, (architecture, role) in enumerate(roles.items()):
        sample = Artifact.at(context.path / "models", f"sample{number:03d}")
        compiled[str(architecture)] = sample if role == "held-out" else compiled_once(context, architecture)
        yield Progress("record", number + 1, len(roles), f"compiled {architecture}")
    jobs = [replace(made.job(), name=name) for name, made in compiled.items()]
    agreeing, profiling = context.experiment.agreement.measuring, context.experiment.profile
    networks = yield from measure_with_progress(context, jobs, protocol(agreeing), "record")
    subnets = [subtrees.artifact(context.path / "subnets", s).job() for s in context.space.all_subnets()]
    blocks = list(measured(context, subnets, protocol(profiling)))
    nsr, size = (Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "size"))
    of_blocks = {str(s): (nsr[s], size[s]) for s in context.space.all_subnets()}
    of_networks = {str(a): (nsr.total(a), size.total(a)) for a in roles}
    rows = [
        *_rows(blocks, dict.fromkeys(of_blocks, "block"), of_blocks),
        *_rows(networks, {str(a): role for a, role in roles.items()}, of_networks),
    ]
    experiment = context.experiment
    scheme = f"{experiment.quantization.granularity} int8"
    recorded = Recorded(tuple(rows), context.space, experiment.data.size, scheme, networks[0].conditions.to_json())
    recorded.save(out)
    yield Progress("record", len(rows), len(rows), f"{out}: {len(rows)} latencies")


def _rows(
    measurements: Sequence[Measurement], roles: dict[str, Role], sums: dict[str, tuple[float, float]]
) -> Iterator[Row]:
    medians, split = summaries(measurements), halves(measurements)
    took: dict[str, float] = {}
    for m in measurements:
        took[m.model] = took.get(m.model, 0.0) + m.board_us / 1e6
    for name, role in roles.items():
        s = medians[name]
        first, second = split[name]
        yield Row(name, role, s.median_us, *s.ci95_us, first, second, s.n, took[name], *sums[name])
