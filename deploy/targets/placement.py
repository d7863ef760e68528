"""Where a target is expected to run each operator of a model, by the rules of a file.

Expected, not measured: a rule names its evidence, and a measurement on a board decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.formats.named_files import NamedFiles
from deploy.targets.inspected_operator import Operator
from deploy.targets.inspection import Inspection
from deploy.targets.rule import COSTS, Cost, Evidence, Place, Rule, check_words, matches
from hil.errors import UsageError
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.quant.tails import TailChoice
from nas.settings import STRICT, build, read_toml

TARGETS = NamedFiles("target", "targets", Path(__file__).parent / "rules")
UNKNOWN = "no rule knows it, so it is counted as CPU: measure it on the board, then add a rule"


@dataclass(frozen=True)
class Note:
    """What to know about a model of which an input or output has one of `dtypes`, and what it costs there."""

    __pydantic_config__ = STRICT

    dtypes: tuple[str, ...]
    text: str
    evidence: Evidence
    cost: Cost = "none"


@dataclass(frozen=True)
class Target:
    """A target's rules.

    Attributes:
        name: of its file, without .toml.
        fast_place: where operators should run.
        safe_resize_factors: those at which RESIZE_BILINEAR is right: the compiler makes every other factor of these
            (`nas.quant.safe_resize`). Empty: all factors are.
        schemes: quantization schemes that a search there is over beside the experiment's own, where the configuration
            names none (`Experiment.on`).
        arithmetic: the simulation that its outputs follow (`nas.quant.arithmetic`).
        tail: where full networks end in their files there, or "auto" (`nas.quant.tails`), likewise.
    """

    __pydantic_config__ = STRICT

    name: str
    description: str
    fast_place: Place
    rules: tuple[Rule, ...]
    safe_resize_factors: tuple[int, ...] = ()
    schemes: tuple[str, ...] = ()
    arithmetic: Arithmetic = LITERT
    tail: TailChoice | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where one operator goes.

    Attributes:
        rule: the one that decided, of which the rest follows; None where none matched.
        evidence: what the rule rests on; None without one.
        fast: on the target's fast place, known, and with a fast kernel.
        wrong: its outputs there are known to be wrong.
    """

    operator: Operator
    rule: Rule | None
    place: Place
    reason: str
    evidence: Evidence | None
    cost: Cost
    fast: bool
    wrong: bool

    @property
    def costly(self) -> bool:
        """It is on the fast place, and costs more than a layer there."""
        return self.fast and COSTS.index(self.cost) > COSTS.index("low")

    @property
    def error(self) -> bool:
        return self.wrong or self.place == "REFUSED"


@dataclass(frozen=True)
class Lint:
    """What a target does to a model.

    Attributes:
        off: the operators that are not `Placement.fast`, in order.
        costly: those that are, at a price (`Placement.costly`).
        errors: those that give wrong outputs, or cannot run.
        off_share: the share of the model's multiply-accumulates that `off` has; 0 for a model without any.
    """

    target: str
    fast_place: Place
    off: tuple[Placement, ...]
    costly: tuple[Placement, ...]
    errors: tuple[Placement, ...]
    macs: int
    off_macs: int
    off_share: float
    allowed_share: float
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.errors and self.off_share <= self.allowed_share

    def to_json(self) -> dict[str, Any]:
        found = {"off": self.off, "costly": self.costly, "errors": self.errors}
        record = {k: v for k, v in asdict(self).items() if k not in found}
        for name, placements in found.items():
            record[name] = [placement_record(p) for p in placements]
        return {**record, "holds": self.holds}


def placement_record(placement: Placement) -> dict[str, Any]:
    """One placement for a machine; the operator by its index, name and multiply-accumulates."""
    record = {k: v for k, v in asdict(placement).items() if k not in ("operator", "rule")}
    op = placement.operator
    return {"index": op.index, "name": op.custom or op.name, "macs": op.macs, **record}


def load_target(folder: Path | None, name: str) -> Target:
    """The rules of a target: `folder`/`name`.toml, or the user's, or those that ship (`TARGETS`).

    Raises UsageError for an unknown target, ConfigError naming the file and the key for a wrong rule.
    """
    path = TARGETS.find(name, first=folder)
    target = build(Target, {**read_toml(path), "name": path.stem}, str(path))
    for i, rule in enumerate(target.rules):
        check_words(f"{path}: 'rules.{i}'", rule)
    return target


def place(model: Inspection, target: Target) -> list[Placement]:
    """Where the target runs each operator: the first rule that matches decides."""
    placements = []
    for op in model.operators:
        rule = next((rule for rule in target.rules if matches(rule, op)), None)
        if rule is None:
            placements.append(Placement(op, None, "CPU", UNKNOWN, None, "low", False, False))
        else:
            fast = rule.place == target.fast_place and not rule.slow
            verdict = (rule.place, rule.reason, rule.evidence, rule.cost)
            placements.append(Placement(op, rule, *verdict, fast, rule.wrong))
    return placements


def notes_on(model: Inspection, target: Target) -> list[Note]:
    """What the target's file says of the model's inputs and outputs."""
    dtypes = {tensor.dtype for tensor in (*model.inputs, *model.outputs)}
    return [note for note in target.notes if dtypes & set(note.dtypes)]


def lint(model: Inspection, target: Target, allowed_share: float) -> Lint:
    """What leaves the fast place of the target, and what is wrong there."""
    if not 0 <= allowed_share <= 1:
        raise UsageError(f"--max-off-nn {allowed_share}: give a share within 0 and 1")
    placements = place(model, target)
    off = tuple(p for p in placements if not p.fast)
    off_macs = sum(p.operator.macs for p in off)
    notes = [f"{note.text} ({note.evidence})" for note in notes_on(model, target)]
    if model.subgraphs > 1:
        notes.append(f"only the first of {model.subgraphs} subgraphs is linted")
    return Lint(
        target.name,
        target.fast_place,
        off,
        tuple(p for p in placements if p.costly),
        tuple(p for p in placements if p.error),
        model.macs,
        off_macs,
        off_macs / model.macs if model.macs else 0.0,
        allowed_share,
        tuple(notes),
    )


def grouped(placements: Sequence[Placement]) -> list[list[Placement]]:
    """Placements of one (place, operator, reason): errors first, then by cost, then by multiply-accumulates."""
    groups: dict[tuple[str, str, str], list[Placement]] = {}
    for p in placements:
        groups.setdefault((p.place, p.operator.custom or p.operator.name, p.reason), []).append(p)

    def weight(group: Sequence[Placement]) -> tuple[bool, int, int]:
        return group[0].error, COSTS.index(group[0].cost), sum(p.operator.macs for p in group)

    return sorted(groups.values(), key=weight, reverse=True)
