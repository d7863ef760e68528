"""One search over the latency tables of several devices.

Each device's latency is an objective by itself, so the exact front holds the best model for all of them together and
the best for each alone, whatever the budgets; what is between the two is the price of sharing one model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.latency.key import TableKey
from deploy.latency.overhead import outside_blocks_us
from deploy.search.cost_tables import scheme_of
from deploy.search.query import DeviceRecord, Question, SearchAnswer, answer, key_of
from hil.errors import UsageError
from nas.errors import TableError
from nas.search.union import CostTables
from nas.space import SearchSpace
from nas.table import Table

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SAME = {"space": "search space", "size": "input size", "scheme": "scheme"}


@dataclass(frozen=True)
class Device:
    """A device's table, by the name that budgets call it."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> Device:
        """Of `npu=tables/latency.parquet`."""
        name, _, path = text.partition("=")
        if not NAME.fullmatch(name) or not path:
            raise UsageError(f"--latency {text}: write NAME=FILE.parquet, a name being letters, digits, '.', '-', '_'")
        return cls(name, Path(path))

    @property
    def quantity(self) -> str:
        return f"latency@{self.name}"


def devices_of(texts: Sequence[str]) -> list[Device]:
    """`UsageError` where two have one name."""
    devices = [Device.parse(text) for text in texts]
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--latency {name}=: given {names.count(name)} times; give each device another name")
    return devices


def joined(space: SearchSpace, main: CostTables, devices: Sequence[Device]) -> CostTables:
    """The main scheme's NSR and size with every device's latency.

    What lies outside the blocks is the constant in the device's table; the teacher's latency there is unknown.
    Raises `TableError` where tables are not of one space, input size and scheme.
    """
    loaded = {device: Table.load(device.path) for device in devices}
    check_alike(loaded, space, main.tables["nsr"])
    latencies = {device.quantity: replace(table, quantity=device.quantity) for device, table in loaded.items()}
    constants_us = {device.quantity: constant_us(table) for device, table in loaded.items()}
    return replace(
        main,
        tables={"nsr": main.tables["nsr"], "size": main.tables["size"], **latencies},
        outside={**_without_latency(main.outside), **constants_us},
        teacher=_without_latency(main.teacher),
    )


def _without_latency(costs: Mapping[str, float]) -> dict[str, float]:
    return {quantity: value for quantity, value in costs.items() if quantity != "latency"}


def answer_for_devices(
    question: Question, space: SearchSpace, joint: CostTables, devices: Sequence[Device]
) -> SearchAnswer:
    """The answer for all devices together, `joint` being their `joined` tables, with that for each alone."""
    if question.no_cpu_fallback:
        raise UsageError("--no-cpu-fallback knows one board; leave it out with --latency")
    if question.objectives[:1] not in ((), ("nsr",)):
        raise UsageError("--objectives: with --latency the NSR is minimised; name nsr first")
    together = answer(question, space, [joint])
    records = {device.name: _alone(together, joint, device, question) for device in devices}
    return replace(together, record=replace(together.record, devices=records))


def _alone(together: SearchAnswer, joint: CostTables, device: Device, question: Question) -> DeviceRecord:
    """The best for one device, and what the joint model loses against it."""
    budgets = {name: limit for name, limit in question.budgets.items() if name in ("size", device.quantity)}
    best = together.best(budgets)
    return DeviceRecord(
        table=str(device.path),
        outside_us=joint.outside[device.quantity],
        budgets={key_of(name): limit for name, limit in budgets.items()},
        alone=together.model(best),
        sharing_costs_nsr=together.selected[0].costs[0] - best.costs[0],
    )


def check_alike(loaded: Mapping[Device, Table], space: SearchSpace, nsr: Table) -> None:
    """Refuses what `deploy.latency.key.check_same` does, but for the device: that is what differs here."""
    first, *others = loaded
    keys = {device: _key(device, table) for device, table in loaded.items()}
    if keys[first].space != space.digest:
        raise TableError(f"{first.path}: belongs to another space ({keys[first].space}, not {space.digest})")
    for other in others:
        for what, words in SAME.items():
            pair = getattr(keys[first], what), getattr(keys[other], what)
            if pair[0] != pair[1]:
                raise TableError(
                    f"the tables of {first.name} and {other.name} are of different {words}s ({pair[0]} and {pair[1]}); "
                    "profile both alike"
                )
    scheme = scheme_of(nsr)
    if scheme not in (None, keys[first].scheme):
        raise TableError(
            f"{first.path}: its latencies are of '{keys[first].scheme}', the NSRs of '{scheme}'; give one scheme's"
        )


def _key(device: Device, table: Table) -> TableKey:
    try:
        return TableKey.of(table)
    except TableError as error:
        raise TableError(f"{device.path}: {error}") from None


def constant_us(table: Table) -> float:
    """What a full model takes beyond the table's sum, by full models or by its parts; 0 where neither is known."""
    correction = table.provenance.get("correction")
    return float(correction["constant_us"]) if correction else outside_blocks_us(table)
