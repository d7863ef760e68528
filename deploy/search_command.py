"""`hilnas search` with a question: the k best within budgets, the whole front, a proof; over a run's tables or any.

Over a run a model is whole: what lies around the blocks (stem, head, the correction's constant) counts, and a share is
of the run's INT8 teacher. Tables alone know the blocks only.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy import console
from deploy.config import file_digest
from deploy.latency.table import CPU_OPERATORS
from deploy.run import read_json, write_atomically
from hil.errors import CheckFailed, UsageError
from nas.search.budgets import Amount, limits_within
from nas.search.candidates import candidates, within_count
from nas.search.front import front
from nas.search.k_best import k_best
from nas.search.prove import prove
from nas.space import SearchSpace, Subnet
from nas.table import Table, size_table

QUANTITIES = ("nsr", "size", "latency")
UNIT = {"size": "bits", "latency": "us"}


@dataclass(frozen=True, eq=False)
class Material:
    """What is searched; `around` and `teacher` are in the tables' units, and empty for tables alone."""

    space: SearchSpace
    tables: Mapping[str, Table]
    folder: Path
    around: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)

    def whole(self, quantity: str, value: float) -> float:
        """A sum over blocks with what lies around them."""
        return value + self.around.get(quantity, 0.0)


def asks(arguments: argparse.Namespace) -> bool:
    """Whether more was asked than the stage's own answer."""
    names = ("size_budget", "latency_budget", "prove", "tables", "space", "objectives", "front", "no_cpu_fallback")
    return any(getattr(arguments, name) for name in names) or arguments.k is not None


def material_of_tables(folder: Path, space_file: Path | None) -> Material:
    """The tables of a folder: nsr.parquet, and if they are there size.parquet and latency(-corrected).parquet."""
    if space_file is None:
        raise UsageError("--tables says not of which space they are: give --space FILE.toml")
    space = SearchSpace.load(space_file)
    paths = {name: folder / f"{name}.parquet" for name in ("nsr", "size", "latency-corrected", "latency")}
    there = [name for name, path in paths.items() if path.exists()]
    if "nsr" not in there:
        raise UsageError(f"{paths['nsr']}: no such table; give --tables a folder with nsr.parquet")
    tables = {"size": size_table(space)}
    for name in reversed(there):  # the corrected latency last, so that it is taken
        tables[name.partition("-")[0]] = Table.load(paths[name])
    return Material(space, tables, folder)


def material_of_run(folder: Path, space: SearchSpace) -> Material:
    """A searched run's tables, which must be those that its stages made."""
    stages = read_json(folder / "state.json", ("tables", "profile"))
    searched = read_json(folder / "search.json", ("teacher_size_bits", "around"))
    judged = read_json(folder / "agreement.json", ("teacher_us",))
    files = {"nsr": "nsr", "size": "size", "latency": "latency-corrected"}
    tables = {name: Table.load(folder / "tables" / f"{file}.parquet") for name, file in files.items()}
    checkpoint = file_digest(folder / "supernets.pt")
    tables["nsr"].check_origin({"key": stages["tables"]["key"], "checkpoint": checkpoint})
    tables["latency"].check_origin({"key": stages["profile"]["key"]})
    teacher = {"size": float(searched["teacher_size_bits"]), "latency": float(judged["teacher_us"])}
    around = {"size": float(searched["around"]["size_bits"]), "latency": float(searched["around"]["latency_us"])}
    return Material(space, tables, folder / "tables", around, teacher)


def run(arguments: argparse.Namespace, material: Material) -> int:
    """Answer; `CheckFailed` if a proof was asked for and does not hold."""
    k = 1 if arguments.k is None else arguments.k
    if k < 1:
        raise UsageError(f"--k {k}: ask for at least one")
    budgets = _budgets(arguments, material)
    allowed = _allowed(material) if arguments.no_cpu_fallback else None
    tables = [material.tables[name] for name in _objectives(arguments, material)]
    started = time.perf_counter()
    of = candidates(material.space, tables, allowed)
    whole = front(of)
    seconds = time.perf_counter() - started
    limits = limits_within(whole, budgets, material.around)
    found = [(str(r.architecture), r.costs) for r in k_best(of, limits, k)]
    record: dict[str, Any] = {
        "of": "whole models" if material.teacher else "the blocks alone",
        "space": material.space.name,
        "objectives": list(of.objectives),
        "architectures": of.count,
        "front": len(whole),
        "seconds": round(seconds, 4),
        "budgets": {_key(name): value for name, value in budgets.items()},
        "found": [_row(material, of.objectives, name, costs) for name, costs in found],
    }
    if arguments.prove:
        record["proof"] = asdict(prove(of, whole, random.Random(0), k))
    if arguments.front:
        rows = zip(map(str, whole.architectures), whole.costs.tolist(), strict=True)
        _write_csv(arguments.front, [_row(material, of.objectives, name, costs) for name, costs in rows])
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        console.searched(record)
    if arguments.prove and record["proof"]["difference"]:
        raise CheckFailed(f"the search is not brute force's: {record['proof']['difference']} differs; report this")
    return 0


def _objectives(arguments: argparse.Namespace, material: Material) -> list[str]:
    """Those asked for, the first to be minimised; all tables' by default."""
    there = [name for name in QUANTITIES if name in material.tables]
    names = arguments.objectives.split(",") if arguments.objectives else there
    for name in names:
        if name not in there:
            raise UsageError(f"--objectives: no table of '{name}' in {material.folder}; there are {', '.join(there)}")
    return list(names)


def _budgets(arguments: argparse.Namespace, material: Material) -> dict[str, float]:
    """The most that a model may cost, in the tables' units; whole ones over a run."""
    found = {}
    for name, text in (("size", arguments.size_budget), ("latency", arguments.latency_budget)):
        if text is not None:
            if name not in material.tables:
                raise UsageError(f"--{name}-budget: no table of the {name} in {material.folder}")
            found[name] = Amount.parse(text, name).of_teacher(material.teacher.get(name))
    return found


def _allowed(material: Material) -> Callable[[Subnet], bool]:
    path = material.folder / f"{CPU_OPERATORS}.parquet"
    if not path.exists():
        raise UsageError(
            f"--no-cpu-fallback: no {path}; profile on a board with a delegate, or what stays on the CPU is not known"
        )
    table = Table.load(path)
    table.check(material.space)
    return within_count(0.0, table)


def _key(quantity: str) -> str:
    return f"{quantity}_{UNIT[quantity]}" if quantity in UNIT else quantity


def _row(material: Material, objectives: Sequence[str], name: str, costs: Sequence[float]) -> dict[str, Any]:
    totals = zip(objectives, costs, strict=True)
    return {"subnet": name, **{_key(quantity): material.whole(quantity, value) for quantity, value in totals}}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
