"""A board's own target: the rules of another one, confirmed or corrected by what was measured on the board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deploy.characterize.facts import FACTORS
from deploy.characterize.measuring import Characterized
from deploy.characterize.outcomes import FactOutcome
from deploy.targets.inspected_operator import Operator
from deploy.targets.placement import Note, Target
from deploy.targets.rule import Cost, Rule, by

FAR_SLOWER = 3.0  # times as long for the same work: its multiply-accumulates count as off the fast place
HIGH = 10.0


def own_target(target: Target, found: Characterized, board: str) -> Target:
    """`target` with `board`'s evidence, named after it.

    A rule with which the board agrees has the board as its evidence. Where it disagrees, a rule of the operator that
    was measured stands before it.
    """
    outcomes = found.outcomes
    agree = [o.claim.source for o in outcomes if o.claim and o.verdict == "agrees"]
    corrections = [(o.claim.source, o) for o in outcomes if o.claim and o.verdict == "disagrees"]
    rules: list[Rule] = []
    for rule in target.rules:
        rules += [_corrected(rule, o, target, board) for source, o in corrections if source is rule]
        rules.append(replace(rule, evidence="board") if any(source is rule for source in agree) else rule)
    notes: list[Note] = []
    for note in target.notes:
        wrong = next((o for source, o in corrections if source is note), None)
        seen = wrong is not None or any(source is note for source in agree)
        notes.append(replace(note, evidence="board") if seen else note)
        if wrong is not None:
            notes[-1] = replace(notes[-1], cost="none", text=f"no cost was seen on {board}: {wrong.said}")
    return replace(
        target,
        name=board,
        description=f"{board}, measured; made from {target.name}",
        rules=tuple(rules),
        notes=tuple(notes),
        safe_resize_factors=_safe_factors(target, outcomes),
        arithmetic=found.arithmetic or target.arithmetic,
    )


def _corrected(rule: Rule, outcome: FactOutcome, target: Target, board: str) -> Rule:
    """The rule of the one operator that was measured."""
    assert outcome.claim is not None  # noqa: S101 (a correction has one)
    narrow = replace(_narrowed(rule, outcome.claim.operator), evidence="board", reason=f"{board}: {outcome.said}")
    if outcome.ratio is None:
        place = target.fast_place if rule.place == "REFUSED" else rule.place
        if outcome.mismatched is None:
            place = "REFUSED"
        return replace(narrow, wrong=not outcome.claim.wrong, place=place)
    if outcome.claim.slower:
        return replace(narrow, place=target.fast_place, cost="low", slow=False)
    cost: Cost = "high" if outcome.ratio >= HIGH else "medium"
    return replace(narrow, cost=cost, slow=rule.place == target.fast_place and outcome.ratio >= FAR_SLOWER)


def _narrowed(rule: Rule, op: Operator) -> Rule:
    """The conditions of the rule, and those by which the facts' operators differ."""
    active = op.activation != "NONE"
    return replace(
        rule,
        operators=(op.name,),
        input_dtypes=op.input_dtypes[:1],
        granularity=(op.granularity,) if op.granularity else None,
        kernel=_only(by(op.kernel)) if op.stride else rule.kernel,
        stride=_only(by(op.stride)),
        dilation=_only(by(op.dilation)),
        resize=_only(op.resize),
        activation=(op.activation,) if active else rule.activation,
        at_output=True if active else rule.at_output,
        scale_ratio_min=0.9 * op.scale_ratio if op.scale_ratio > 2 else rule.scale_ratio_min,
    )


def _only(word: str | None) -> tuple[str] | None:
    return None if word is None else (word,)


def _safe_factors(target: Target, outcomes: Sequence[FactOutcome]) -> tuple[int, ...]:
    """Those of the tried factors at which a resize is right; as before where none of them was compared."""
    compared = {f: o.right for f in FACTORS for o in outcomes if o.file == f"resize{f}" and o.right is not None}
    right = tuple(f for f, is_right in compared.items() if is_right)
    if len(right) == len(compared) and not target.safe_resize_factors:
        return ()  # all are
    untried = [f for f in target.safe_resize_factors if f not in compared]
    return tuple(sorted({*right, *untried}))
