"""A budget is kept unless the measured interval lies above its limit; sizes are exact."""

from __future__ import annotations

import pytest

from deploy.run.settings.deployment import Budget
from deploy.ship.budgets import check_budgets, verdict_text, verdicts
from deploy.ship.differences import difference_text
from hil.errors import CheckFailed
from nas.estimate import Estimate


def latency(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, None, low, high, 4, "measured")


@pytest.mark.parametrize(
    ("share", "kept", "decided", "words"),
    [
        (latency(0.88, 0.87, 0.90), True, True, "latency 88.0% [87.0%, 90.0%] of the teacher's, at most 90.0%: kept"),
        (latency(0.906, 0.899, 0.91), True, False, ": kept (the limit is within the interval)"),
        (latency(0.90, 0.90, 0.91), True, False, ": kept (the limit is within the interval)"),
        (latency(0.95, 0.901, 0.99), False, True, "at most 90.0%: NOT KEPT"),
    ],
)
def test_a_latency_is_kept_by_its_interval(share: Estimate, kept: bool, decided: bool, words: str) -> None:
    (verdict,) = verdicts(Budget("fast", latency=0.9), 5.0, share)
    assert (verdict.kept, verdict.decided) == (kept, decided)
    assert verdict_text(verdict).startswith("budget fast: ") and verdict_text(verdict).endswith(words)


def test_each_limit_of_a_budget_has_its_verdict() -> None:
    found = verdicts(Budget("both", latency=0.9, size=0.5), 0.5001, latency(0.8, 0.7, 0.85))
    assert [(v.quantity, v.limit, v.kept, v.decided) for v in found] == [
        ("latency", 0.9, True, True),
        ("size", 0.5, False, True),
    ]
    assert verdict_text(found[1]) == "budget both: size 50.0% of the teacher's, at most 50.0%: NOT KEPT"
    assert verdicts(Budget("small", size=0.5), 0.5, latency(2.0, 1.9, 2.1))[0].kept


def test_what_is_not_kept_is_one_line() -> None:
    kept = verdicts(Budget("kept", size=0.5), 0.5, latency(1, 1, 1))
    check_budgets(kept)
    broken = verdicts(Budget("fast", latency=0.9, size=0.5), 0.6, latency(0.95, 0.94, 0.96))
    with pytest.raises(CheckFailed) as caught:
        check_budgets([*kept, *broken])
    said = str(caught.value)
    assert said.startswith("budget not kept: 'fast': latency 95.0% [94.0%, 96.0%]") and "\n" not in said
    assert "'fast': size 60.0% of the teacher's, at most 50.0%" in said and "'kept'" not in said
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 1.0, "better"), (-1.0, -0.1, "worse"), (-1.0, 1.0, "no difference shown")]
)
def test_a_difference_in_words(low: float, high: float, verdict: str) -> None:
    said = difference_text(Estimate((low + high) / 2, 0.1, low, high, 64, "resampled"))
    assert said.endswith(f"over 64 images: {verdict}") and "against the teacher trained on" in said
