"""What a target's rules say about a fact: whether its file costs more than the base does, and whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from deploy.characterize.facts import Fact, Probe
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspected_operator import Operator
from deploy.targets.inspection import Inspection, inspect_model
from deploy.targets.placement import Note, Placement, Target, notes_on, place
from deploy.targets.rule import COSTS, Rule


@dataclass(frozen=True)
class Claim:
    """Of a target about a fact.

    Attributes:
        source: the rule or note that it rests on; None: no rule knows the operator, and nothing is claimed.
        operator: the one in question.
        slower: whether the file costs more than the base for the same work; None: nothing is claimed.
        wrong: whether its outputs are wrong, or it does not run.
        work: the file's multiply-accumulates (without any: elements read) over the base's; 1 where it has fewer, as the
            inputs are the same and take their time.
    """

    source: Rule | Note | None
    operator: Operator
    slower: bool | None
    wrong: bool
    work: float


def content(probe: Probe) -> bytes:
    """The .tflite file."""
    return write(probe.graph, {"probe": probe.name}, probe.form)


def claim_of(target: Target, fact: Fact) -> Claim:
    probe = _placed(target, fact.probe)
    worst, wrong = probe.worst, any(p.error for p in probe.placements)
    if fact.base is None:
        return Claim(worst.rule, worst.operator, None, wrong, 1.0)
    base = _placed(target, fact.base)
    slower, work = _slower(probe, base), max(1.0, probe.work / base.work)
    by_note = slower and probe.dearest == base.dearest
    return Claim(probe.notes[0] if by_note else worst.rule, worst.operator, slower, wrong, work)


@dataclass(frozen=True)
class _Placed:
    """A file under a target's rules."""

    target: Target
    model: Inspection
    placements: Sequence[Placement]

    @property
    def notes(self) -> list[Note]:
        return [note for note in notes_on(self.model, self.target) if note.cost != "none"]

    @property
    def worst(self) -> Placement:
        """The last of the dearest operators."""
        return max(reversed(self.placements), key=_rank)

    @property
    def dearest(self) -> int:
        return _rank(self.worst)

    @property
    def kinds(self) -> set[str]:
        return {p.operator.name for p in self.placements if _rank(p)}

    @property
    def work(self) -> int:
        return self.model.macs or sum(_elements_read(p.operator) for p in self.placements)


def _placed(target: Target, probe: Probe) -> _Placed:
    model = inspect_model(parse(content(probe), probe.name))
    return _Placed(target, model, place(model, target))


def _rank(placement: Placement) -> int:
    """0 for what takes no layer; what leaves the fast place ranks before all that stays there."""
    cost = COSTS.index(placement.cost)
    return cost if placement.fast else cost + len(COSTS)


def _slower(probe: _Placed, base: _Placed) -> bool | None:
    if any(p.rule is None for p in (*probe.placements, *base.placements)):
        return None
    if (probe.dearest, len(probe.notes)) > (base.dearest, len(base.notes)):
        return True
    return False if probe.kinds == base.kinds else None  # how long other operators take is no rule's word


def _elements_read(op: Operator) -> int:
    return prod(op.output_shapes[0]) * prod(op.kernel or (1,))
