"""Does a shipped model keep its budget, by what was measured?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deploy.run.records import BudgetVerdict, MissedBudget
from deploy.run.settings.deployment import Budget
from hil.errors import CheckFailed
from nas.estimate import Estimate


def verdicts(budget: Budget, size_share: float, latency_share: Estimate) -> tuple[BudgetVerdict, ...]:
    """A verdict on each limit of a budget; the shares are the model's of the teacher's."""
    shares = {"latency": (budget.latency, latency_share), "size": (budget.size, Estimate.exact(size_share))}
    return tuple(
        BudgetVerdict(budget.name, "latency" if quantity == "latency" else "size", limit, share)
        for quantity, (limit, share) in shares.items()
        if limit is not None
    )


def check_missed(missed: Sequence[MissedBudget]) -> None:
    """`CheckFailed` with why some budgets have no model."""
    if missed:
        raise CheckFailed("; ".join(budget.reason for budget in missed))


def check_budgets(budgets: Iterable[BudgetVerdict]) -> None:
    """`CheckFailed`, naming each limit that is not kept."""
    broken = [verdict for verdict in budgets if not verdict.kept]
    if broken:
        named = "; ".join(f"'{v.name}': {v.quantity} {_measured(v)}, at most {v.limit:.1%} allowed" for v in broken)
        raise CheckFailed(f"budget not kept: {named}; search anew with a lower limit, or allow what was measured")


def verdict_text(verdict: BudgetVerdict) -> str:
    """The verdict in one line."""
    return f"budget {verdict.name}: {limit_text(verdict)}"


def limit_text(verdict: BudgetVerdict) -> str:
    """What the model is, what it may be, and whether that is kept."""
    kept = "kept" if verdict.kept else "NOT KEPT"
    doubt = "" if verdict.decided else " (the limit is within the interval)"
    return f"{verdict.quantity} {_measured(verdict)}, at most {verdict.limit:.1%}: {kept}{doubt}"


def _measured(verdict: BudgetVerdict) -> str:
    share = verdict.share
    interval = f" [{share.low:.1%}, {share.high:.1%}]" if share.source != "computed" else ""
    return f"{share.value:.1%}{interval} of the teacher's"
