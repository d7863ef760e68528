"""`hilnas search` with a question: the k best within budgets, the whole front, a proof; over a run's tables or any.

Over a run a model is whole: what lies around the blocks (stem, head, the correction's constant) counts, and a share is
of the run's INT8 teacher. Tables alone know the blocks only. A run with alternatives is asked for all of its schemes,
and the models that LCPAQ refined stand beside them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.cli import console
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.files import write_atomically
from deploy.latency.table import CPU_OPERATORS
from deploy.run.records import AgreementRecord, RunState, SearchRecord
from deploy.run.schemes import tables_folder
from deploy.search.cost_tables import main_side, other_side, refined_sides
from hil.errors import CheckFailed, UsageError
from nas.search.budgets import Amount
from nas.search.candidates import Candidates, Limits, within_count
from nas.search.front import Front, front
from nas.search.prove import Proof, prove
from nas.search.union import Point, Side, k_best_of_sides, limits_of_sides, union_front
from deploy.run.shipped import load_space
from nas.space import SearchSpace
from nas.table import Table, size_table

QUANTITIES = ("nsr", "size", "latency")
UNIT = {"size": "bits", "latency": "us"}


@dataclass(frozen=True, eq=False)
class Material:
    """What is searched; `around` and `teacher` are in the tables' units, and empty for tables alone.

    `name` is the scheme of `tables`, and `others` are the other schemes' sides; there is neither where there is one.
    `refined` are found models at LCPAQ's bits, of the scheme of `tables`; `stale` names those with an old record.
    """

    space: SearchSpace
    tables: Mapping[str, Table]
    folder: Path
    around: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)
    name: str = ""
    others: tuple[Side, ...] = ()
    refined: tuple[Side, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Side, ...]:
        return (Side(self.name, self.tables, self.around), *self.others, *self.refined)

    def whole(self, quantity: str, value: float) -> float:
        """A sum over blocks with what lies around them."""
        return value + self.around.get(quantity, 0.0)


def asks(arguments: argparse.Namespace) -> bool:
    """Whether more was asked than the stage's own answer."""
    names = ("size_budget", "latency_budget", "prove", "tables", "space", "objectives", "front", "no_cpu_fallback")
    return any(getattr(arguments, name) for name in (*names, "latency")) or arguments.k is not None


def material_of_tables(folder: Path, space_file: Path | None) -> Material:
    """The tables of a folder: nsr.parquet, and if they are there size.parquet and latency(-corrected).parquet."""
    if space_file is None:
        raise UsageError("--tables says not of which space they are: give --space FILE.toml")
    space = load_space(space_file)
    paths = {name: folder / f"{name}.parquet" for name in ("nsr", "size", "latency-corrected", "latency")}
    there = [name for name, path in paths.items() if path.exists()]
    if "nsr" not in there:
        raise UsageError(f"{paths['nsr']}: no such table; give --tables a folder with nsr.parquet")
    tables = {"size": size_table(space)}
    for name in reversed(there):  # the corrected latency last, so that it is taken
        tables[name.partition("-")[0]] = Table.load(paths[name])
    return Material(space, tables, folder)


def material_of_run(folder: Path, space: SearchSpace) -> Material:
    """A searched run's tables, of all its schemes, which must be those that its stages made."""
    stages = RunState.read(folder / RunState.FILE).stages
    searched = SearchRecord.read(folder / SearchRecord.FILE)
    judged = AgreementRecord.read(folder / AgreementRecord.FILE)
    keys = {stage: stages[stage].key for stage in ("tables", "profile")}
    teacher = {"size": float(searched.teacher_size_bits), "latency": judged.teacher_us}
    outside = searched.outside_blocks
    around = {"size": float(outside.size_bits), "latency": outside.latency_us}
    main, *others = searched.schemes or ("",)
    side = main_side(folder, main, keys, around)
    sides = tuple(other_side(folder, QuantizationScheme.parse(name), keys, around["size"]) for name in others)
    return Material(space, side.tables, folder / "tables", around, teacher, main, sides)


def with_refined(material: Material) -> Material:
    """A run's material with the models that LCPAQ refined."""
    run = material.folder.parent
    keys = {name: state.key for name, state in RunState.read(run / RunState.FILE).stages.items()}
    main, *_ = material.sides
    refined, stale = refined_sides(run, main, keys)
    name = material.name or (f"{main.tables['nsr'].provenance['granularity']} int8" if refined else "")
    return replace(material, name=name, refined=tuple(refined), stale=tuple(stale))


@dataclass(frozen=True, eq=False)
class Answer:
    """What was searched, and the record of what was found for `hilnas search --json`; `found` as points."""

    material: Material
    sides: Sequence[Side]
    of: Sequence[Candidates]
    fronts: Sequence[Front]
    found: Sequence[Point]
    record: dict[str, Any]

    def best(self, budgets: Limits) -> Point:
        """The best within other budgets."""
        return k_best_of_sides(self.sides, self.of, limits_of_sides(self.sides, self.fronts, budgets), 1)[0]

    def row(self, point: Point) -> dict[str, Any]:
        names = map(key_of, self.of[0].objectives)
        scheme = {"scheme": point.side} if len(self.sides) > 1 else {}
        return {"subnet": str(point.architecture), **dict(zip(names, point.costs, strict=True)), **scheme}


def run(arguments: argparse.Namespace, material: Material) -> int:
    """Answer; `CheckFailed` if a proof was asked for and does not hold."""
    if material.teacher:
        material = with_refined(material)
    return tell(arguments, ask(arguments, material, _budgets(arguments, material)), console.searched)


def ask(arguments: argparse.Namespace, material: Material, budgets: Limits) -> Answer:
    """The front, and the `--k` best within budgets of whole models, in the tables' units."""
    k = 1 if arguments.k is None else arguments.k
    if k < 1:
        raise UsageError(f"--k {k}: ask for at least one")
    sides = _delegated(material) if arguments.no_cpu_fallback else material.sides
    names = _objectives(arguments, material)
    started = time.perf_counter()
    of = [side.candidates(material.space, names) for side in sides]
    fronts = [front(candidates) for candidates in of]
    seconds = time.perf_counter() - started
    found = k_best_of_sides(sides, of, limits_of_sides(sides, fronts, budgets), k)
    record: dict[str, Any] = {
        "of": "whole models" if material.teacher else "the blocks alone",
        "space": material.space.name,
        "objectives": list(names),
        "architectures": sum(candidates.count for candidates in of),
        "front": len(fronts[0]) if len(sides) == 1 else len(union_front(sides, fronts)),
        "seconds": round(seconds, 4),
        "budgets": {key_of(name): value for name, value in budgets.items()},
        **({"stale": list(material.stale)} if material.stale else {}),
    }
    answer = Answer(material, sides, of, fronts, found, record)
    record["found"] = [answer.row(point) for point in found]
    if arguments.prove:
        record["proof"] = asdict(_proof(answer, k))
    return answer


def tell(arguments: argparse.Namespace, answer: Answer, say: Callable[[Mapping[str, Any]], None]) -> int:
    """Print the record, or `say` it, and write the front; `CheckFailed` if a proof does not hold."""
    record = answer.record
    if arguments.front:
        _write_csv(arguments.front, [answer.row(point) for point in union_front(answer.sides, answer.fronts)])
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        say(record)
    if arguments.prove and record["proof"]["difference"]:
        raise CheckFailed(f"the search is not brute force's: {record['proof']['difference']} differs; report this")
    return 0


def _proof(answer: Answer, k: int) -> Proof:
    """Of every scheme, added up; their union is a sort."""
    proofs = [prove(of, whole, random.Random(0), k) for of, whole in zip(answer.of, answer.fronts, strict=True)]
    return Proof(
        sum(proof.sub_spaces for proof in proofs),
        sum(proof.architectures for proof in proofs),
        sum(proof.queries for proof in proofs),
        sum(proof.sampled for proof in proofs),
        next((proof.difference for proof in proofs if proof.difference), None),
    )


def _objectives(arguments: argparse.Namespace, material: Material) -> list[str]:
    """Those asked for, the first to be minimised; all tables' by default."""
    there = sorted(material.tables, key=lambda name: QUANTITIES.index(name.partition("@")[0]))
    names = arguments.objectives.split(",") if arguments.objectives else there
    for name in names:
        if name not in there:
            raise UsageError(f"--objectives: no table of '{name}' in {material.folder}; there are {', '.join(there)}")
    return list(names)


def _budgets(arguments: argparse.Namespace, material: Material) -> dict[str, float]:
    """The most that a model may cost, in the tables' units; whole ones over a run."""
    latency = arguments.latency_budget or []
    if len(latency) > 1 or any("=" in text for text in latency):
        raise UsageError(f"--latency-budget {latency[-1]}: one for each device goes with --latency NAME=FILE, else one")
    found = {}
    for name, text in (("size", arguments.size_budget), ("latency", latency[0] if latency else None)):
        if text is not None:
            found[name] = budget(material, name, text)
    return found


def budget(material: Material, quantity: str, text: str) -> float:
    """A budget in the table's unit, as it is written; `UsageError` or `ConfigError` where it cannot be one."""
    plain = quantity.partition("@")[0]
    if quantity not in material.tables:
        raise UsageError(f"--{plain}-budget: no table of the {quantity} in {material.folder}")
    return Amount.parse(text, plain).of_teacher(material.teacher.get(quantity))


def _delegated(material: Material) -> list[Side]:
    """Only subnets that the delegate took whole; a refined model that has another is none."""
    plain = [_with_allowed(side, material) for side in (material.sides[0], *material.others)]
    whole = plain[0].allowed or (lambda _: True)
    own = [[s for s in material.space.all_subnets() if side.allowed and side.allowed(s)] for side in material.refined]
    return plain + [side for side, subnets in zip(material.refined, own, strict=True) if all(map(whole, subnets))]


def _with_allowed(side: Side, material: Material) -> Side:
    folder = material.folder
    if side.name != material.name:
        folder = tables_folder(folder.parent, QuantizationScheme.parse(side.name))
    path = folder / f"{CPU_OPERATORS}.parquet"
    if not path.exists():
        raise UsageError(
            f"--no-cpu-fallback: no {path}; profile on a board with a delegate, or what stays on the CPU is not known"
        )
    table = Table.load(path)
    table.check(material.space)
    return replace(side, allowed=within_count(0.0, table))


def key_of(quantity: str) -> str:
    """A quantity's name in records, with its unit: latency_us, of one of several devices latency_us@DEVICE."""
    plain, at, device = quantity.partition("@")
    return f"{plain}_{UNIT[plain]}{at}{device}" if plain in UNIT else quantity


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
