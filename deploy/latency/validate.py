"""Does a latency table still hold on a device that changed? A stratified sample of its files is measured again.

Medians of the same files are compared, then and now, as the board gave them. If they are alike the table belongs to the
new conditions too: its numbers stay, and its lineage has the evidence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.compile import subtrees
from deploy.latency.agreement import tau_b
from deploy.latency.key import BELONGS, TableKey, changed, measured_under
from deploy.latency.table import summaries
from deploy.latency.validations import LEAST_ENTRIES, Demand, TableValidation, ValidationsRecord
from deploy.latency.versions import Lineage, save_version
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.records import ProfileRecord, Validation
from hil.errors import UsageError
from hil.job import MeasureProtocol, tasks_of
from hil.measure import now
from hil.measurement import Conditions
from hil.stats import bootstrap_ci
from hil.store import Store
from nas.errors import TableError
from nas.space import Subnet
from nas.table import Table


@dataclass(frozen=True)
class Verdict:
    """Whether a table holds, and on what evidence."""

    evidence: Validation
    holds: bool


def evaluate(old_us: NDArray[np.float64], new_us: NDArray[np.float64], demand: Demand, seed: int = 0) -> Verdict:
    """From medians (n,) of the same entries; `CheckFailed` where their ranks are undefined (all equal)."""
    ratios = new_us / old_us
    ratio, tau = float(np.median(ratios)), tau_b(old_us, new_us)
    interval = bootstrap_ci(lambda drawn: float(np.median(ratios[drawn])), len(ratios), seed=seed)
    holds = abs(ratio - 1) <= demand.tolerance and tau >= demand.tau
    return Verdict(Validation(len(ratios), ratio, interval, tau), holds)


def stratified(latency_us: Mapping[Subnet, float], n: int, seed: int) -> list[Subnet]:
    """`n` of the subnets (or all): evenly over the blocks, and in each over the range of latencies; one for a seed."""
    rng = random.Random(f"{seed}/validate")
    by_block: dict[int, list[Subnet]] = {}
    for subnet in sorted(latency_us, key=lambda s: (latency_us[s], str(s))):
        by_block.setdefault(subnet.block, []).append(subnet)
    share = dict.fromkeys(sorted(by_block), 0)
    for _ in range(n):
        free = [block for block, taken in share.items() if taken < len(by_block[block])]
        if free:
            share[min(free, key=lambda block: share[block])] += 1
    drawn: list[Subnet] = []
    for block, count in share.items():
        bounds = np.linspace(0, len(by_block[block]), count + 1).astype(int)
        drawn += [by_block[block][rng.randrange(a, b)] for a, b in itertools.pairwise(bounds.tolist())]
    return drawn


def validate(context: Context, demand: Demand) -> Iterator[Progress]:
    """Measure a sample of the run's latency table again; the verdict is added to tables/validations.json.

    If it holds and the device is another than the table's, the table becomes a new version that belongs to it, and
    what was built on the old one is to be done again. Killed, it goes on from what the store holds.
    Raises `TableError`, `UsageError` where there is nothing to compare with, `ModelError` where a file fails now.
    """
    tables, seed = context.path / "tables", context.experiment.seed
    table = Table.load(tables / "latency.parquet")
    key, parent = TableKey.of(table), Lineage.of(table).version
    _check_files(context, table, key)
    settings = protocol(context.experiment.profile)
    old_us = _measured_then(context, table, settings)
    subnets = stratified(old_us, demand.entries, seed)
    concluded = validations(tables)
    series = replace(settings, series=f"validate {parent} {len(concluded)}")  # the same after a kill, new after an end
    jobs = [subtrees.artifact(context.path / "subnets", subnet).job() for subnet in subnets]
    measurements = yield from measure_with_progress(context, jobs, series, "validate")
    medians, conditions = summaries(measurements), measurements[0].conditions
    pair = (np.array([old_us[s] for s in subnets]), np.array([medians[str(s)].median_us for s in subnets]))
    verdict = evaluate(*pair, demand, seed)
    if verdict.holds:
        _adopt(context, table, conditions, verdict.evidence)
    found = TableValidation(
        **asdict(verdict.evidence),
        holds=verdict.holds,
        demand=demand,
        parent=parent,
        changed=tuple(changed(key.conditions, conditions)),
        conditions=conditions,
        when=now(),
    )
    ValidationsRecord((*concluded, found)).write(tables / ValidationsRecord.FILE)


def validations(tables: Path) -> tuple[TableValidation, ...]:
    """The concluded validations of a run's table, oldest first."""
    path = tables / ValidationsRecord.FILE
    return ValidationsRecord.read(path).validations if path.exists() else ()


def _check_files(context: Context, table: Table, key: TableKey) -> None:
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
    subnets = {str(subnet): subnet for subnet in table.entries}
    jobs = [subtrees.artifact(context.path / "subnets", subnet).job() for subnet in table.entries]
    then = measured_under(table).key()
    tasks = list(tasks_of(jobs, context.board, then, settings, context.experiment.seed))
    with Store(context.path / "measurements.sqlite") as store:
        held = store.find(task.job_id for task in tasks)
    stored = [replace(held[t.job_id], model=t.job.name) for t in tasks if t.job_id in held]
    medians = summaries([m for m in stored if m.failure is None])
    if len(medians) < LEAST_ENTRIES:
        raise UsageError(
            f"{context.path / 'measurements.sqlite'}: holds {len(medians)} of the latency table's measurements, too "
            "few to compare with: measure again: delete tables/latency.parquet, run `hilnas lut latency`"
        )
    return {subnets[name]: summary.median_us for name, summary in medians.items()}


def _adopt(context: Context, table: Table, conditions: Conditions, evidence: Validation) -> None:
    """The table is of the board as it is now; a kill in between leaves what the next validation completes."""
    key, parent = TableKey.of(table), Lineage.of(table).version
    new = replace(key, conditions_key=conditions.key(), conditions=conditions)
    if new != key:
        context.reopen_after("profile")
        origin = {**table.provenance, BELONGS: new.to_json(), "key": context.keys["profile"]}
        adopted, tables = replace(table, provenance=origin), context.path / "tables"
        save_version(adopted, tables, "latency", "validated", [parent], evidence=evidence)
    path = context.path / ProfileRecord.FILE
    replace(ProfileRecord.read(path), conditions=conditions, validated=evidence).write(path)
    identity = context.identities["profile"]
    with context.run.stage("profile", identity.key, version=identity.version, settings=identity.values):
        pass
