"""`hilnas search --latency NAME=FILE ...`: one search over the latency tables of several devices.

Each device's latency is an objective of its own, so the exact front holds the best model for all of them together and
the best for each alone, whatever the budgets; what is between the two is the price of sharing one model.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.cli import search as shown
from deploy.latency.key import TableKey
from deploy.latency.overhead import outside_blocks_us
from deploy.search.query import Answer, Material, ask, budget, key_of, tell
from hil.errors import UsageError
from nas.errors import TableError
from nas.search.candidates import Limits
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
            raise UsageError(f"--latency {name}=: given {names.count(name)} times; give each device a name of its own")
    return devices


def run(arguments: argparse.Namespace, material: Material) -> int:
    """Answer for all devices together and for each alone; exits as `deploy.search.query.run`."""
    if arguments.no_cpu_fallback:
        raise UsageError("--no-cpu-fallback knows one board; leave it out with --latency")
    devices = devices_of(arguments.latency)
    joint = joined(material, devices)
    budgets = budgets_of(arguments, joint, devices)
    answer = ask(arguments, joint, budgets)
    if answer.of[0].objectives[0] != "nsr":
        raise UsageError("--objectives: with --latency the NSR is minimised; name nsr first")
    answer.record["devices"] = {device.name: _alone(answer, device, budgets) for device in devices}
    return tell(arguments, answer, shown.show_answer_for_devices)


def joined(material: Material, devices: Sequence[Device]) -> Material:
    """The main scheme's NSR and size with every device's latency.

    What lies around the blocks is the constant that a device's own table tells; the teacher's latency there is unknown.
    Raises `TableError` where tables are not of one space, input size and scheme.
    """
    loaded = {device: Table.load(device.path) for device in devices}
    check_alike(loaded, material)
    kept = {name: table for name, table in material.tables.items() if name != "latency"}
    tables = {device.quantity: replace(table, quantity=device.quantity) for device, table in loaded.items()}
    around = {name: value for name, value in material.around.items() if name != "latency"}
    around |= {device.quantity: constant_us(table) for device, table in loaded.items()}
    teacher = {name: value for name, value in material.teacher.items() if name != "latency"}
    return replace(material, tables={**kept, **tables}, around=around, teacher=teacher, name="", others=())


def check_alike(loaded: Mapping[Device, Table], material: Material) -> None:
    """Refuses tables of another space, input size or scheme; the device is what differs here."""
    first, *others = loaded
    keys = {device: _key(device, table) for device, table in loaded.items()}
    if keys[first].space != material.space.digest:
        raise TableError(f"{first.path}: belongs to another space ({keys[first].space}, not {material.space.digest})")
    for other in others:
        for what, words in SAME.items():
            pair = getattr(keys[first], what), getattr(keys[other], what)
            if pair[0] != pair[1]:
                raise TableError(
                    f"the tables of {first.name} and {other.name} are of different {words}s ({pair[0]} and {pair[1]}); "
                    "profile both alike"
                )
    scheme = scheme_of(material.tables["nsr"])
    if scheme not in (None, keys[first].scheme):
        told = keys[first].scheme
        raise TableError(f"{first.path}: its latencies are of '{told}', the NSRs of '{scheme}'; give one scheme's")


def scheme_of(nsr: Table) -> str | None:
    """The scheme that an NSR table was made with; None if it does not say."""
    said = nsr.provenance
    return said.get("scheme") or (f"{said['granularity']} int8" if "granularity" in said else None)


def _key(device: Device, table: Table) -> TableKey:
    try:
        return TableKey.of(table)
    except TableError as error:
        raise TableError(f"{device.path}: {error}") from None


def constant_us(table: Table) -> float:
    """What a whole model takes beyond the table's sum, by whole models or by its parts; 0 where neither is told."""
    correction = table.provenance.get("correction")
    return float(correction["constant_us"]) if correction else outside_blocks_us(table)


def budgets_of(arguments: argparse.Namespace, joint: Material, devices: Sequence[Device]) -> dict[str, float]:
    """The most that a model may cost, on each device; `UsageError` where a budget belongs to no device."""
    found = {} if arguments.size_budget is None else {"size": budget(joint, "size", arguments.size_budget)}
    names = [device.name for device in devices]
    for text in arguments.latency_budget or ():
        name, named, amount = text.rpartition("=")
        if not named and len(names) > 1:
            raise UsageError(f"--latency-budget {text}: on which? write NAME={text}; there are {', '.join(names)}")
        name = name or names[0]
        if name not in names:
            raise UsageError(f"--latency-budget {text}: no table of '{name}'; add --latency {name}=FILE")
        if f"latency@{name}" in found:
            raise UsageError(f"--latency-budget {text}: '{name}' has one already; give one for each device")
        found[f"latency@{name}"] = budget(joint, f"latency@{name}", amount)
    return found


def _alone(answer: Answer, device: Device, budgets: Limits) -> dict[str, object]:
    """The best for one device, and what the joint model loses against it."""
    own = {name: limit for name, limit in budgets.items() if name in ("size", device.quantity)}
    best = answer.best(own)
    return {
        "table": str(device.path),
        "around_us": answer.material.around[device.quantity],
        "budgets": {key_of(name): limit for name, limit in own.items()},
        "alone": answer.row(best),
        "sharing_costs_nsr": answer.found[0].costs[0] - best.costs[0],
    }
