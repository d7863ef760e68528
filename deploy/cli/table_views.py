"""How `hilnas lut` shows a table: its entries by source, its versions, how two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from hil.errors import UsageError
from nas.errors import TableError

if TYPE_CHECKING:
    from deploy.latency.difference import TableDifference
    from deploy.latency.versions import Version
    from nas.estimate import Estimate
    from nas.table import Table


@dataclass(frozen=True)
class SourceSummary:
    """The entries of one source; `widths` of the 95 % interval are in percent of the value."""

    source: str
    entries: int
    least_n: int
    most_n: int
    median_width_percent: float
    p95_width_percent: float


def by_source(table: Table) -> list[SourceSummary]:
    """How well the entries of each source are known, most entries first."""
    groups: dict[str, list[Estimate]] = {}
    for entry in table.entries.values():
        groups.setdefault(entry.source, []).append(entry)
    return sorted((_of_source(source, entries) for source, entries in groups.items()), key=lambda g: -g.entries)


def _of_source(source: str, entries: Sequence[Estimate]) -> SourceSummary:
    import numpy as np

    widths = [100 * (entry.high - entry.low) / max(entry.value, 1e-9) for entry in entries]
    median, p95 = (float(q) for q in np.quantile(widths, (0.5, 0.95)))
    runs = [int(entry.n) for entry in entries]
    return SourceSummary(source, len(entries), min(runs), max(runs), median, p95)


def show_table(table: Table, path: Path) -> None:
    from deploy.search.estimates import split_half_text

    values = sorted((entry.value, str(subnet)) for subnet, entry in table.entries.items())
    console.say(f"{path}: {len(values)} entries, {table.quantity} in {table.unit}")
    three = (values[0], values[len(values) // 2], values[-1])
    for (value, subnet), word in zip(three, ("smallest", "median", "largest"), strict=True):
        console.say(f"  {word:>8} {value:.6g} {subnet}")
    if reliability := split_half_text(table):
        console.say(reliability)


def show_latency(path: Path, as_json: bool) -> None:
    """A latency table: what it belongs to, its version, its entries by source."""
    from deploy.latency.key import TableKey
    from deploy.latency.versions import Lineage
    from nas.table import Table

    table = Table.load(path)
    key, lineage, groups = TableKey.of(table), Lineage.of(table), by_source(table)
    if as_json:
        record = {"table": str(path), "belongs": key.to_json(), "lineage": lineage.to_json()}
        met = {str(boundary): asdict(entry) for boundary, entry in table.interactions.items()}
        console.say_json({**record, "sources": [asdict(group) for group in groups], "interactions": met})
        return
    show_table(table, path)
    console.say(f"  version {lineage.version}, {lineage.how} {lineage.when[:19]}; {key}")
    for g in groups:
        runs = f"{g.least_n} to {g.most_n}" if g.least_n < g.most_n else f"{g.most_n}"
        console.say(
            f"  {g.source:>10} {g.entries} entries of {runs} runs; 95 % intervals {g.median_width_percent:.1f} % wide "
            f"(median), {g.p95_width_percent:.1f} % (95th percentile)"
        )
    for block in sorted({boundary.block for boundary in table.interactions}):
        terms = [entry.value for boundary, entry in table.interactions.items() if boundary.block == block]
        console.say(f"  b{block}|b{block + 1}: {len(terms)} interactions of {min(terms):+.0f} to {max(terms):+.0f} us")


def show_versions(folder: Path, as_json: bool) -> None:
    """Of the tables in a run's folder."""
    from deploy.latency.versions import versions

    found = versions(folder)
    if not found:
        raise UsageError(f"{folder / 'versions'}: no versions yet; `hilnas lut latency` makes the first")
    if as_json:
        console.say_json({"versions": [version.to_json() for version in found]})
        return
    for version in found:
        console.say(_line(version))


def _line(v: Version) -> str:
    sources = ", ".join(f"{n} {source}" for source, n in v.sources.items())
    made = v.lineage
    parts = [f"{made.version}  {made.when[:19]}  {made.how:9} {v.name}: {sources}"]
    parts += [f"of {' and '.join(made.parents)}"] if made.parents else []
    parts += [f"tau-b {v.tau_b:.3f}"] if v.tau_b is not None else []
    if made.evidence is not None:
        parts.append(f"{made.evidence.entries} entries again, median ratio {made.evidence.ratio:.3f}")
    return "; ".join(parts) + (" (current)" if v.current else "")


def show_difference(words: Sequence[str], folder: Path, as_json: bool) -> None:
    """Between two tables, each a file or a version of those in a run's folder."""
    from deploy.latency.difference import compare

    a, b = (_table(word, folder) for word in words)
    found = compare(a, b)
    if as_json:
        console.say_json(found.to_json())
    else:
        _show_difference(found)


def _table(word: str, folder: Path) -> Table:
    from deploy.latency.key import TableKey
    from deploy.latency.versions import find_version
    from nas.table import Table

    if not word.endswith(".parquet") and not Path(word).is_file():
        return find_version(folder, word)
    table = Table.load(Path(word))
    try:
        TableKey.of(table)
    except TableError as error:
        raise TableError(f"{word}: {error}") from None
    return table


def _show_difference(found: TableDifference) -> None:
    for words in found.keys:
        console.say(f"differs: {words}")
    if not found.keys:
        console.say("both belong to the same space, input, scheme, form, device and setting")
    console.say(f"{found.common} entries in both, {found.only_a} only in A, {found.only_b} only in B")
    for change, count in found.sources.items():
        console.say(f"{count} entries changed source: {change}")
    console.say(
        f"B / A: median {found.ratio_median:.4f}, 5 % below {found.ratio_p5:.4f}, 5 % above {found.ratio_p95:.4f}; "
        f"the 95 % intervals of {found.beyond} entries do not overlap"
    )
    blocks = ", ".join(f"block {n} {_tau(tau)}" for n, tau in found.tau_b_of_block.items())
    console.say(f"tau-b between them: {_tau(found.tau_b)}; {blocks}")
    if found.interactions:
        console.say(f"{found.interactions} interactions at block boundaries differ")
    for m in found.most:
        if m.ratio != 1:
            where = ", intervals do not overlap" if m.beyond else ""
            console.say(f"  {m.ratio:8.4f}  {m.a_us:.6g} -> {m.b_us:.6g} us  {m.subnet}{where}")


def _tau(tau: float | None) -> str:
    return "undefined" if tau is None else f"{tau:.3f}"
