"""Does a latency table still hold on a device that changed? A stratified sample of its files, measured again, says.

Compared are medians of the same files, then and now, as the board gave them. If they are alike the table belongs to the
new conditions too: its numbers stay, and its lineage says on what evidence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.compile import subtrees
from deploy.formats.files import read_json, write_json
from deploy.latency.agreement import tau_b
from deploy.latency.key import BELONGS, TableKey, changed, measured_under
from deploy.latency.table import summaries
from deploy.latency.versions import Lineage, save_version
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.records import ProfileRecord, Validation
from hil.errors import CheckFailed, UsageError
from hil.job import MeasureProtocol, tasks_of
from hil.measure import now
from hil.measurement import Conditions
from hil.stats import bootstrap_ci
from hil.store import Store
from nas.errors import TableError
from nas.space import Subnet
from nas.table import Table

RECORD = "validations.json"
LEAST_ENTRIES = 3  # below, ranks say nothing


@dataclass(frozen=True)
class Demand:
    """What a table must stand: how many entries are measured, how far their median may be off 1, the least tau-b."""

    entries: int = 30
    tolerance: float = 0.02
    tau: float = 0.95

    def __post_init__(self) -> None:
        if self.entries < LEAST_ENTRIES or not self.tolerance > 0 or not -1 <= self.tau <= 1:
            raise UsageError(
                f"--entries {self.entries} --tolerance {self.tolerance} --tau {self.tau}: give {LEAST_ENTRIES} entries "
                "or more, a share above 0, and a tau-b from -1 to 1"
            )


@dataclass(frozen=True)
class Verdict:
    """`ratio`: median over entries of new / old latency, with the bootstrap interval `ci95`; `tau_b` between them."""

    entries: int
    ratio: float
    ci95: tuple[float, float]
    tau_b: float
    holds: bool

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": list(self.ci95)}


def judge(old_us: NDArray[np.float64], new_us: NDArray[np.float64], demand: Demand, seed: int = 0) -> Verdict:
    """From medians (n,) of the same entries; `CheckFailed` where their ranks are undefined (all equal)."""
    ratios = new_us / old_us
    ratio, tau = float(np.median(ratios)), tau_b(old_us, new_us)
    interval = bootstrap_ci(lambda drawn: float(np.median(ratios[drawn])), len(ratios), seed=seed)
    return Verdict(len(ratios), ratio, interval, tau, abs(ratio - 1) <= demand.tolerance and tau >= demand.tau)


def stratified(latency_us: Mapping[Subnet, float], n: int, seed: int) -> list[Subnet]:
    """`n` of the subnets (or all): evenly over the blocks, and in each over the range of latencies; one for a seed."""
    rng = random.Random(f"{seed}/validate")
    of_block: dict[int, list[Subnet]] = {}
    for subnet in sorted(latency_us, key=lambda s: (latency_us[s], str(s))):
        of_block.setdefault(subnet.block, []).append(subnet)
    share = dict.fromkeys(sorted(of_block), 0)
    for _ in range(n):
        free = [block for block, taken in share.items() if taken < len(of_block[block])]
        if free:
            share[min(free, key=lambda block: share[block])] += 1
    drawn: list[Subnet] = []
    for block, count in share.items():
        bounds = np.linspace(0, len(of_block[block]), count + 1).astype(int)
        drawn += [of_block[block][rng.randrange(a, b)] for a, b in itertools.pairwise(bounds.tolist())]
    return drawn


def validate(context: Context, demand: Demand) -> Iterator[Progress]:
    """Measure a sample of the run's latency table again; the verdict is added to tables/validations.json.

    If it holds and the device is another than the table's, the table becomes a new version that belongs to it, and
    what was built on the old one is to be done again. Killed, it goes on from what the store holds.
    Raises `TableError`, `UsageError` where there is nothing to compare with, `ModelError` where a file fails now.
    """
    tables = context.path / "tables"
    table = Table.load(tables / "latency.parquet")
    key, parent = TableKey.of(table), Lineage.of(table).version
    _check_files_are_its_own(context, table, key)
    settings = protocol(context.experiment.profile)
    old_us = _measured_then(context, table, settings)
    subnets = stratified(old_us, demand.entries, context.experiment.seed)
    concluded = validations(tables)
    series = replace(settings, series=f"validate {parent} {len(concluded)}")  # the same after a kill, new after an end
    jobs = [subtrees.artifact(context.path / "subnets", subnet).job() for subnet in subnets]
    measurements = yield from measure_with_progress(context, jobs, series, "validate")
    medians, conditions = summaries(measurements), measurements[0].conditions
    pair = (np.array([old_us[s] for s in subnets]), np.array([medians[str(s)].median_us for s in subnets]))
    verdict = judge(*pair, demand, context.experiment.seed)
    if verdict.holds:
        _adopt(context, table, conditions, verdict)
    found = {
        **verdict.to_json(),
        "demand": asdict(demand),
        "parent": parent,
        "changed": changed(key.conditions, conditions),
        "conditions": conditions.to_json(),
        "when": now(),
    }
    write_json(tables / RECORD, {"validations": [*concluded, found]})


def validations(tables: Path) -> list[dict[str, Any]]:
    """The verdicts of a run's validations that ended, oldest first."""
    path = tables / RECORD
    return list(read_json(path, ("validations",))["validations"]) if path.exists() else []


def require_held(verdict: Mapping[str, Any]) -> None:
    """`CheckFailed` where a validation did not hold, with what to do."""
    if not verdict["holds"]:
        demand = verdict["demand"]
        raise CheckFailed(
            f"the latency table does not hold any more: {verdict['entries']} entries measured again have a median "
            f"ratio {verdict['ratio']:.3f} (allowed: 1 +- {demand['tolerance']:g}) and tau-b {verdict['tau_b']:.3f} "
            f"(at least {demand['tau']:g}): measure again: delete tables/latency.parquet, run `hilnas lut latency`"
        )


def _check_files_are_its_own(context: Context, table: Table, key: TableKey) -> None:
    """The subnets' files must be those that were measured; only the board may have another configuration now."""
    made = table.provenance.get("key")
    known = made == context.keys["profile"] or context.run.is_done("profile", str(made))
    if not known or not context.run.is_done("tables", context.keys["tables"]):
        raise UsageError(
            f"{context.path}: the latency table is of other subnets than the run's: run `hilnas lut latency`"
        )
    if key.form != "isolated":
        raise TableError(f"a table of {key.form} blocks cannot be validated, only one of isolated ones: profile again")


def _measured_then(context: Context, table: Table, settings: MeasureProtocol) -> dict[Subnet, float]:
    """Medians (us) of the table's files under the conditions of its measuring, of those that the store holds whole."""
    then = Conditions.from_json(dict(measured_under(table))).key()
    subnets = {str(subnet): subnet for subnet in table.entries}
    jobs = [subtrees.artifact(context.path / "subnets", subnet).job() for subnet in table.entries]
    tasks = list(tasks_of(jobs, context.board, then, settings, context.experiment.seed))
    with Store(context.path / "measurements.sqlite") as store:
        held = store.find(task.job_id for task in tasks)
    there = [replace(held[t.job_id], model=t.job.name) for t in tasks if t.job_id in held]
    medians = summaries([m for m in there if m.failure is None])
    if len(medians) < LEAST_ENTRIES:
        raise UsageError(
            f"{context.path / 'measurements.sqlite'}: holds {len(medians)} of the latency table's measurements, too "
            "few to compare with: measure again: delete tables/latency.parquet, run `hilnas lut latency`"
        )
    return {subnets[name]: summary.median_us for name, summary in medians.items()}


def _adopt(context: Context, table: Table, conditions: Conditions, verdict: Verdict) -> None:
    """The table is of the board as it is now; a kill in between leaves what the next validation completes."""
    key, parent = TableKey.of(table), Lineage.of(table).version
    new = replace(key, conditions_key=conditions.key(), conditions=conditions)
    evidence = {name: value for name, value in verdict.to_json().items() if name != "holds"}
    if new != key:
        context.run.reopen(_after_profile(context.keys))
        origin = {**table.provenance, BELONGS: new.to_json(), "key": context.keys["profile"]}
        save_version(
            replace(table, provenance=origin),
            context.path / "tables",
            "latency",
            "validated",
            [parent],
            evidence=evidence,
        )
    path = context.path / ProfileRecord.FILE
    replace(ProfileRecord.read(path), conditions=conditions, validated=Validation(**evidence)).write(path)
    identity = context.identities["profile"]
    with context.run.stage("profile", identity.key, version=identity.version, settings=identity.values):
        pass


def _after_profile(stages: Mapping[str, str]) -> Sequence[str]:
    names = list(stages)
    return names[names.index("profile") + 1 :]
