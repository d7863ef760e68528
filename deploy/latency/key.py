"""What a latency table belongs to: a space, input size, scheme, form of blocks, device and driver. Another is refused.

A latency holds for its conditions only: the ranking at one input size, with one driver or one kernel set is not that
of another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hil.errors import UsageError
from hil.measurement import NOT_COMPARED, Conditions
from nas.errors import TableError
from nas.table import Table

BELONGS = "belongs"
"""Where a table's provenance has its `TableKey`."""

SETTINGS = frozenset({"board", "kind", "machine", "soc", "driver", "kernels", "threads", "governor"})
"""Conditions that are chosen; the others are properties of the board, which "became" something else."""

VALIDATE = (
    "`hilnas lut latency validate` (with the run's --config and --board) measures some entries again and says whether "
    "it still holds; or delete it and run `hilnas lut latency`, which measures all"
)


@dataclass(frozen=True)
class TableKey:
    """What a latency table belongs to; entries of two tables compare only if their keys are equal.

    Attributes:
        space: the search space's digest.
        size: the network's input, (H, W).
        scheme: granularity of the weights' scales and type of the activations, as "channel int8": what decides the
            kernels. How ranges were chosen changes the numbers in a file, and not its operators.
        form: of the measured blocks, a key of `deploy.compile.block_forms.FORMS`.
        conditions_key: `conditions.key()`.
        conditions: for messages; not compared, since some of them may differ.
    """

    space: str
    size: tuple[int, int]
    scheme: str
    form: str
    conditions_key: str
    conditions: Conditions = field(compare=False)

    def __post_init__(self) -> None:
        if self.conditions_key != self.conditions.key():
            raise TableError(
                f"a latency table's key {self.conditions_key} is not that of its conditions: profile again"
            )

    @classmethod
    def under(cls, conditions: Conditions, space: str, size: tuple[int, int], scheme: str, form: str) -> TableKey:
        return cls(space, size, scheme, form, conditions.key(), conditions)

    @classmethod
    def of(cls, table: Table) -> TableKey:
        """A table's key; `TableError` if it is no latency table, or does not say strictly what it belongs to."""
        if table.quantity != "latency":
            raise TableError(
                f"not a latency table but one of {table.quantity}: give one that `hilnas lut latency` made"
            )
        if BELONGS not in table.provenance:
            raise TableError(
                "the latency table does not say what it belongs to (an earlier hilnas made it): profile again: delete "
                "tables/latency.parquet and run `hilnas lut latency`; what the store holds is not measured again"
            )
        return cls.from_json(table.provenance[BELONGS])

    def compared(self) -> dict[str, Any]:
        """What must be equal, as JSON."""
        return {
            "space": self.space,
            "size": list(self.size),
            "scheme": self.scheme,
            "form": self.form,
            "conditions_key": self.conditions_key,
        }

    def to_json(self) -> dict[str, Any]:
        return {**self.compared(), "conditions": self.conditions.to_json()}

    @classmethod
    def from_json(cls, raw: Any) -> TableKey:
        """Raises `TableError` where a field is missing, unknown or of another kind."""
        try:
            height, width = raw["size"]
            conditions = Conditions.from_json(raw["conditions"])
            key = cls(raw["space"], (height, width), raw["scheme"], raw["form"], raw["conditions_key"], conditions)
            whole = key.to_json() == raw
        except (KeyError, TypeError, ValueError, UsageError):
            whole = False
        if not whole:
            raise TableError("what the latency table belongs to is not readable by this version: profile again")
        return key

    def __str__(self) -> str:
        c = self.conditions
        height, width = self.size
        return (
            f"{c.board} ({c.soc or c.machine}), {c.runtime}, delegate {c.delegate}, kernels {c.kernels}, threads "
            f"{c.threads}; input {height}x{width}, {self.scheme}, {self.form} blocks"
        )


def difference(a: TableKey, b: TableKey) -> list[str]:
    """In words what differs, from `a` to `b`; empty where `a == b`."""
    size_a, size_b = (f"{key.size[0]}x{key.size[1]}" for key in (a, b))
    asked = (
        ("space", a.space, b.space),
        ("input", size_a, size_b),
        ("scheme", a.scheme, b.scheme),
        ("form", a.form, b.form),
    )
    found = [f"{word} {one}, not {other}" for word, one, other in asked if one != other]
    return found + changed(a.conditions, b.conditions)


def changed(before: Conditions, now: Conditions) -> list[str]:
    """In words what differs between two conditions; empty where latencies under them may be compared."""
    pairs = zip(asdict(before).items(), asdict(now).values(), strict=True)
    return [
        f"{name} {one}, not {other}" if name in SETTINGS else _became(name, one, other)
        for (name, one), other in pairs
        if one != other and name not in NOT_COMPARED
    ]


def _became(name: str, before: str, now: str) -> str:
    """Of a list (a delegate's file, options, environment) only what changed; a file's name once for two builds."""
    one, other = before.split(";"), now.split(";")
    gone = "; ".join(word for word in one if word not in other) or "without more"
    new = "; ".join(word for word in other if word not in one) or "without it"
    file, at, build = new.partition("@")
    short = at and gone.startswith(file + at) and ";" not in new
    return f"{name} {gone} became {at + build if short else new}"


def check_device(table: Table, conditions: Conditions) -> None:
    """`TableError` naming what changed if these are not the conditions that the table belongs to."""
    if found := changed(TableKey.of(table).conditions, conditions):
        raise TableError(f"the latency table is of another device or setting: {'; '.join(found)}; {VALIDATE}")


def measured_under(table: Table) -> Conditions:
    """The conditions under which the entries were measured; a validated table belongs to later ones."""
    belongs = TableKey.of(table)
    measured = table.provenance.get("conditions")
    return belongs.conditions if measured is None else Conditions.from_json(measured)
