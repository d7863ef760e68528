"""A table's versions: each one that became current in a run is kept, named after its content, with lineage.

tables/latency.parquet                        the current one
tables/versions/latency-1a2b3c4d5e6f.parquet  the same bytes, and every one that was current before
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deploy.formats.files import write_atomically
from deploy.latency.correction import correction_of
from deploy.latency.interactions import REPAIRS
from deploy.latency.key import TableKey
from deploy.run.records import Validation, plain
from hil.measure import now
from hil.measurement import digest
from nas.errors import ConfigError, TableError
from nas.settings import STRICT, build
from nas.table import Table

How = Literal["measured", "predicted", "corrected", "validated", "repaired"]
DIGITS = 12
LINEAGE = "lineage"
"""Where a table's provenance has its `Lineage`."""
FORMER_HOW = {"regressed": "predicted"}  # in tables of format 1


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from.

    Attributes:
        version: first digits of a sha256 over entries, interactions, key, `how`, `parents` and `evidence`.
        how: the version was made.
        parents: the versions that it was made of.
        when: ISO 8601, UTC; the only field that the version does not depend on.
        evidence: of a validated version; None of any other.
    """

    version: str
    how: How
    parents: tuple[str, ...]
    when: str
    evidence: Validation | None = None
    __pydantic_config__ = STRICT

    @classmethod
    def of(cls, table: Table) -> Lineage:
        """Raises `TableError` where a table has none, or was changed since."""
        try:
            raw = dict(table.provenance[LINEAGE])
            former = {"how": FORMER_HOW.get(raw["how"], raw["how"]), "evidence": raw["evidence"] or None}
            lineage = build(cls, {**raw, **former}, LINEAGE)
        except (KeyError, TypeError, ValueError, ConfigError):
            raise TableError("the latency table has no lineage that this version reads: profile again") from None
        if lineage.version != version_of(table, lineage):
            raise TableError(f"the latency table is not its version {lineage.version}, it was changed: profile again")
        return lineage

    def to_json(self) -> dict[str, Any]:
        evidence = {} if self.evidence is None else plain(self.evidence)
        return {
            "version": self.version,
            "how": self.how,
            "parents": list(self.parents),
            "when": self.when,
            "evidence": evidence,
        }


def version_of(table: Table, lineage: Lineage) -> str:
    """The version of a table with this lineage: equal for equal content, however and whenever it was written.

    Sources and `how` count under their names of table format 1, so that tables of that format keep their versions.
    """
    key = TableKey.of(table)
    sources = {"measured": "isolated" if key.form == "isolated" else "in_context", "predicted": "regressed"}
    entries = sorted(
        [str(s), *map(float, (e.value, e.low, e.high)), int(e.n), sources.get(e.source, e.source)]
        for s, e in table.entries.items()
    )
    how = "regressed" if lineage.how == "predicted" else lineage.how
    met = sorted([str(b), e.value, e.low, e.high, e.n] for b, e in table.interactions.items())
    content = [entries, key.compared(), how, list(lineage.parents), lineage.to_json()["evidence"]]
    return digest([*content, met] if met else content)[:DIGITS]


def save_version(
    table: Table,
    folder: Path,
    name: str,
    how: How,
    parents: Sequence[str] = (),
    *,
    evidence: Validation | None = None,
) -> Table:
    """Make `table` the current `folder/name.parquet` and keep it in `folder/versions`; the table with its lineage.

    Both files are written atomically, the version first. The same content again is the same version, with the
    time when it was first made. Raises `TableError` if the table does not name what it belongs to.
    """
    lineage = Lineage("", how, tuple(parents), now(), evidence)
    lineage = replace(lineage, version=version_of(table, lineage))
    kept = folder / "versions" / f"{name}-{lineage.version}.parquet"
    if kept.exists():  # its other provenance may have changed since: another key that came to the same entries
        lineage = replace(lineage, when=_read(kept)[1].when)
    saved = replace(table, provenance={**table.provenance, LINEAGE: lineage.to_json()})
    content = io.BytesIO()
    saved.to_frame().to_parquet(content, engine="pyarrow", index=False)
    for path in (kept, folder / f"{name}.parquet"):
        write_atomically(path, content.getvalue())
    return Table.load(kept)


@dataclass(frozen=True)
class Version:
    """A version that is kept.

    Attributes:
        name: of the table.
        lineage: of the version.
        sources: number of entries by source.
        current: whether it is the run's current table.
        tau_b: on full networks that were left out of the fit; None where none were measured.
    """

    name: str
    lineage: Lineage
    sources: Mapping[str, int]
    current: bool
    tau_b: float | None

    def to_json(self) -> dict[str, Any]:
        counts = {"sources": dict(self.sources), "current": self.current, "tau_b": self.tau_b}
        return {"name": self.name, **self.lineage.to_json(), **counts}


def versions(folder: Path) -> list[Version]:
    """Those in `folder/versions`, oldest first; `TableError` naming a file that is damaged."""
    found: list[Version] = []
    before: dict[str, float] = {}  # tau-b of the tables that were corrected
    for path in _files(folder):
        table, lineage = _read(path)
        name = path.stem.removesuffix(f"-{lineage.version}")
        correction = correction_of(table) if lineage.how == "corrected" else None
        if correction is not None:
            before |= dict.fromkeys(lineage.parents, correction.tau_b_before)
        tau_b = None if correction is None else correction.tau_b_held_out
        sources = dict(Counter(str(entry.source) for entry in table.entries.values()))
        current = folder / f"{name}.parquet"
        is_current = current.exists() and current.read_bytes() == path.read_bytes()
        found.append(Version(name, lineage, sources, is_current, tau_b))
    known = [v if v.tau_b is not None else replace(v, tau_b=before.get(v.lineage.version)) for v in found]
    return sorted(known, key=lambda v: v.lineage.when)


def find_version(folder: Path, prefix: str) -> Table:
    """The kept version that begins with these digits; `TableError` where none or several do."""
    kept = {path.stem.rpartition("-")[2]: path for path in _files(folder)}
    matching = [version for version in kept if version.startswith(prefix)]
    if len(matching) > 1:
        raise TableError(f"{prefix}: {len(matching)} versions begin so ({', '.join(matching)}): give more digits")
    if not matching:
        known = ", ".join(kept) or "none yet, `hilnas lut latency` makes the first"
        raise TableError(f"{prefix}: neither a file nor a version in {folder / 'versions'}; there are {known}")
    return _read(kept[matching[0]])[0]


def before_repairs(table: Table, folder: Path) -> Table:
    """The version that the repairs of `table` started from; itself where it had none. `TableError` without its file."""
    while REPAIRS in table.provenance:
        table = find_version(folder, Lineage.of(table).parents[0])
    return table


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
