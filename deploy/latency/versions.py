"""A table's versions: each one that became current in a run is kept, under a name that its content gives, with lineage.

tables/latency.parquet                        the current one
tables/versions/latency-1a2b3c4d5e6f.parquet  the same bytes, and whatever was current before
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from deploy.formats.files import write_atomically
from deploy.latency.key import TableKey
from hil.measure import now
from hil.measurement import digest
from nas.errors import TableError
from nas.table import Table

How = Literal["measured", "corrected", "regressed", "validated"]
DIGITS = 12


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from.

    Attributes:
        version: first digits of a sha256 over entries, key, `how`, `parents` and `evidence`.
        parents: the versions that it was made of.
        when: ISO 8601, UTC; the only field that the version does not depend on.
        evidence: what speaks for it; of a validated one: entries, ratio, ci95, tau_b.
    """

    version: str
    how: How
    parents: tuple[str, ...]
    when: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table) -> Lineage:
        """Raises `TableError` where a table has none, or one that is not its own."""
        try:
            raw = table.provenance["lineage"]
            lineage = cls(**{**raw, "parents": tuple(raw["parents"])})
            if lineage.how not in get_args(How):
                raise ValueError(lineage.how)
        except (KeyError, TypeError, ValueError):
            raise TableError("the latency table has no lineage that this version reads: profile again") from None
        if lineage.version != version_of(table, lineage):
            raise TableError(f"the latency table says it is version {lineage.version} and was changed: profile again")
        return lineage


def version_of(table: Table, lineage: Lineage) -> str:
    """The version that a table with this lineage is: equal for equal content, however and whenever it was written."""
    key = TableKey.of(table)
    words = {"measured": "isolated" if key.form == "isolated" else "in_context", "predicted": "regressed"}
    entries = sorted(  # with the sources' words of table format 1, so that versions stay what they were
        [str(s), *map(float, (e.value, e.low, e.high)), int(e.n), words.get(e.source, e.source)]
        for s, e in table.entries.items()
    )
    made = [lineage.how, list(lineage.parents), dict(lineage.evidence)]
    return digest([entries, key.compared(), *made])[:DIGITS]


def save_version(
    table: Table,
    folder: Path,
    name: str,
    how: How,
    parents: Sequence[str] = (),
    *,
    evidence: Mapping[str, Any] | None = None,
) -> Table:
    """Make `table` the current `folder/name.parquet` and keep it in `folder/versions`; the table with its lineage.

    Both files are written aside and renamed, the version first. The same content again is the same version, with the
    time when it was first made. Raises `TableError` if the table does not say what it belongs to.
    """
    lineage = Lineage("", how, tuple(parents), now(), evidence or {})
    lineage = replace(lineage, version=version_of(table, lineage))
    kept = folder / "versions" / f"{name}-{lineage.version}.parquet"
    if kept.exists():  # its other provenance may have changed since: another key that came to the same entries
        lineage = replace(lineage, when=_read(kept)[1].when)
    saved = replace(table, provenance={**table.provenance, "lineage": {**asdict(lineage), "parents": list(parents)}})
    content = io.BytesIO()
    saved.to_frame().to_parquet(content, engine="pyarrow", index=False)
    for path in (kept, folder / f"{name}.parquet"):
        write_atomically(path, content.getvalue())
    return Table.load(kept)


@dataclass(frozen=True)
class Version:
    """A version that is kept, in a line: `sources` counts entries, `tau_b` is that on held-out whole models."""

    name: str
    version: str
    when: str
    how: How
    sources: Mapping[str, int]
    parents: tuple[str, ...]
    evidence: Mapping[str, Any]
    current: bool
    tau_b: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def versions(folder: Path) -> list[Version]:
    """Those in `folder/versions`, oldest first; `TableError` naming a file that is damaged."""
    found: list[Version] = []
    judged: dict[str, float] = {}  # of the tables that were corrected, before
    for path in _files(folder):
        table, lineage = _read(path)
        name = path.stem.removesuffix(f"-{lineage.version}")
        correction = table.provenance.get("correction", {}) if lineage.how == "corrected" else {}
        judged.update((p, correction["tau_b_before"]) for p in lineage.parents if "tau_b_before" in correction)
        sources = dict(Counter(str(entry.source) for entry in table.entries.values()))
        current = folder / f"{name}.parquet"
        is_current = current.exists() and current.read_bytes() == path.read_bytes()
        row = (name, lineage.version, lineage.when, lineage.how, sources, lineage.parents, lineage.evidence)
        found.append(Version(*row, is_current, correction.get("tau_b_held_out")))
    known = [v if v.tau_b is not None else replace(v, tau_b=judged.get(v.version)) for v in found]
    return sorted(known, key=lambda v: v.when)


def find_version(folder: Path, prefix: str) -> Table:
    """The kept version whose digits begin so; `TableError` where none or several do."""
    there = {path.stem.rpartition("-")[2]: path for path in _files(folder)}
    those = [version for version in there if version.startswith(prefix)]
    if len(those) > 1:
        raise TableError(f"{prefix}: {len(those)} versions begin so ({', '.join(those)}): give more digits")
    if not those:
        known = ", ".join(there) or "none yet, `hilnas lut latency` makes the first"
        raise TableError(f"{prefix}: neither a file nor a version in {folder / 'versions'}; there are {known}")
    return _read(there[those[0]])[0]


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "versions").glob("*-*.parquet"))


def _read(path: Path) -> tuple[Table, Lineage]:
    table = Table.load(path)
    try:
        lineage = Lineage.of(table)
    except TableError as error:
        raise TableError(f"{path}: {error}") from None
    if not path.stem.endswith(f"-{lineage.version}"):
        raise TableError(f"{path}: it is version {lineage.version}: give the file its name back, or delete it")
    return table, lineage
