"""What a latency table belongs to: a space, input size, scheme, form of blocks, device and driver. Another is refused.

Latencies do not travel: the ranking at one input size, with one driver or on one kernel set is not that on another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hil.errors import UsageError
from hil.measurement import NOT_COMPARED, Conditions
from nas.errors import TableError
from nas.table import Table

BELONGS = "belongs"
"""Where a table's provenance has its key."""

SETTINGS = frozenset({"board", "kind", "machine", "soc", "driver", "kernels", "threads", "governor"})
"""Conditions that are chosen; the others change under a board, and "became" something else."""

VALIDATE = (
    "`hilnas lut latency validate` (with the run's --config and --board) measures some entries again and says whether "
    "it still holds; or delete it and run `hilnas lut latency`, which measures all"
)


@dataclass(frozen=True)
class TableKey:
    """Two tables may be mixed only if their keys are equal.

    Attributes:
        space: the search space's digest.
        size: the network's input, (H, W).
        scheme: granularity of the weights' scales and type of the activations, as "channel int8": what decides the
            kernels. How ranges were found changes the numbers in a file, and not its operators.
        form: in which blocks were measured, a key of `deploy.compile.block_forms.FORMS`.
        conditions_key: `conditions.key()`; `conditions` themselves are for words, since part of them may differ.
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
        """What must match, as JSON."""
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
    """In words what differs, seen from `a`, which was there first; empty where `a == b`."""
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
    """In words what differs between two conditions that do not compare; empty where they do."""
    pairs = zip(asdict(before).items(), asdict(now).values(), strict=True)
    return [
        f"{name} {one}, not {other}" if name in SETTINGS else _became(name, one, other)
        for (name, one), other in pairs
        if one != other and name not in NOT_COMPARED
    ]


def _became(name: str, before: str, now: str) -> str:
    """Of a list (a delegate's file, options, environment) only what changed; of one file's builds the name once."""
    one, other = before.split(";"), now.split(";")
    gone = "; ".join(word for word in one if word not in other) or "without more"
    new = "; ".join(word for word in other if word not in one) or "without it"
    file, at, build = new.partition("@")
    short = at and gone.startswith(file + at) and ";" not in new
    return f"{name} {gone} became {at + build if short else new}"


def check_same(tables: Sequence[Table]) -> TableKey:
    """The one key of tables that are to be joined; `TableError` naming what differs between the first two unlike."""
    first, *others = (TableKey.of(table) for table in tables)
    for other in others:
        if first != other:
            raise TableError(
                f"latency tables of different things are not mixed ({'; '.join(difference(first, other))}): "
                "measure both alike"
            )
    return first


def check_device(table: Table, conditions: Conditions) -> None:
    """`TableError` naming what changed if these are not the conditions that the table belongs to."""
    if found := changed(TableKey.of(table).conditions, conditions):
        raise TableError(f"the latency table is of another device or setting: {'; '.join(found)}; {VALIDATE}")


def measured_under(table: Table) -> Mapping[str, Any]:
    """The record of the conditions under which the entries were measured; a validated table belongs to later ones."""
    record: Mapping[str, Any] = table.provenance.get("conditions") or TableKey.of(table).conditions.to_json()
    return record
