"""What budgets in text (`250kB`, `3.5ms`, `75%` of the teacher's, `npu=3.5ms`) mean over cost tables."""

from __future__ import annotations

from collections.abc import Sequence

from hil.errors import UsageError
from nas.search.budgets import Amount
from nas.search.union import CostTables


def budget(tables: CostTables, quantity: str, text: str) -> float:
    """A budget in the table's unit; `UsageError` without a table of the quantity, `ConfigError` for a wrong amount."""
    plain = quantity.partition("@")[0]
    if quantity not in tables.tables:
        raise UsageError(f"--{plain}-budget {text}: no table of the {quantity}; give --tables a folder that has one")
    return Amount.parse(text, plain).of_teacher(tables.teacher.get(quantity))


def budgets_of(tables: CostTables, size: str | None, latency: Sequence[str]) -> dict[str, float]:
    """The most that a full model may cost, by quantity, in the tables' units; over the blocks without a teacher."""
    if len(latency) > 1 or any("=" in text for text in latency):
        raise UsageError(f"--latency-budget {latency[-1]}: one for each device goes with --latency NAME=FILE, else one")
    texts = {"size": size, "latency": latency[0] if latency else None}
    return {quantity: budget(tables, quantity, text) for quantity, text in texts.items() if text is not None}


def budgets_of_devices(
    tables: CostTables, size: str | None, latency: Sequence[str], devices: Sequence[str]
) -> dict[str, float]:
    """As `budgets_of`, the latency on each of `devices`; `UsageError` for a budget that belongs to no device."""
    budgets = {} if size is None else {"size": budget(tables, "size", size)}
    for text in latency:
        name, named, amount = text.rpartition("=")
        if not named and len(devices) > 1:
            raise UsageError(f"--latency-budget {text}: on which? write NAME={text}; there are {', '.join(devices)}")
        name = name or devices[0]
        if name not in devices:
            raise UsageError(f"--latency-budget {text}: no table of '{name}'; add --latency {name}=FILE")
        if f"latency@{name}" in budgets:
            raise UsageError(f"--latency-budget {text}: '{name}' has one already; give one for each device")
        budgets[f"latency@{name}"] = budget(tables, f"latency@{name}", amount)
    return budgets
