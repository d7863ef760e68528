"""The cost tables that are searched: a run's, scheme by scheme, those of its models that LCPAQ refined, or a folder's.

Over a run a model is a full network: what lies outside the blocks (stem, head, the correction's constant) counts, and
the teacher's totals are known. A folder of tables knows the blocks only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import file_digest
from deploy.latency.key import check_device
from deploy.latency.table import CPU_OPERATORS
from deploy.run.records import AgreementRecord, RunState, SchemesRecord, SearchRecord
from deploy.run.schemes import key_of, tables_folder
from deploy.search.estimates import WEIGHTED_NSR
from hil.errors import UsageError
from nas.search.union import CostTables
from nas.space import SearchSpace
from nas.table import Table, size_table

MAIN = {"nsr": "nsr", "size": "size", "latency": "latency-corrected"}
CONFIRMED = "latency-confirmed"
"""Name of the table that the stage `search` corrected further, by the candidates that it measured whole."""
OTHER = {"nsr": "nsr", "size": "size", "latency": "latency"}  # the constant alone corrects it
ON_CPU = "cpu_operators"
"""The quantity of the tables that say how many operators of a subnet a delegate left on the CPU."""


def scheme_of(nsr: Table) -> str | None:
    """The scheme that an NSR table was made with; None if its provenance does not say."""
    provenance = nsr.provenance
    return provenance.get("scheme") or (f"{provenance['granularity']} int8" if "granularity" in provenance else None)


def cost_tables_of_folder(folder: Path, space: SearchSpace) -> CostTables:
    """nsr.parquet and, where they are there, size, latency-corrected or else latency, and what stays on the CPU.

    The size is computed where the folder has none. Raises `UsageError` without nsr.parquet, `TableError` if that is not
    this space's.
    """
    paths = {name: folder / f"{name}.parquet" for name in ("nsr", "size", "latency", "latency-corrected")}
    if not paths["nsr"].exists():
        raise UsageError(f"{paths['nsr']}: no such table; give --tables a folder with nsr.parquet")
    Table.load(paths["nsr"]).check_space(space)  # before every subnet's size is computed: a space may have too many
    tables = {"size": size_table(space)}
    for name, path in paths.items():  # the corrected latency last, so that it is taken
        if path.exists():
            tables[name.partition("-")[0]] = Table.load(path)
    return CostTables(scheme_of(tables["nsr"]) or "", {**tables, **_on_cpu(folder)})


def cost_tables_of_run(run: Path) -> list[CostTables]:
    """A searched run's, the main scheme's first; they must be those that its stages made."""
    stages = RunState.read(run / RunState.FILE).stages
    keys = {stage: stages[stage].key for stage in ("tables", "profile")}
    searched = SearchRecord.read(run / SearchRecord.FILE)
    agreed = AgreementRecord.read(run / AgreementRecord.FILE)
    outside_bits, outside_us = searched.outside_blocks.size_bits, searched.outside_blocks.latency_us
    name, *others = searched.schemes or ("",)
    main = main_cost_tables(
        run,
        name,
        keys,
        {"size": float(outside_bits), "latency": outside_us},
        latency=CONFIRMED if searched.confirmed else MAIN["latency"],
    )
    schemes = [replace(main, name=name or scheme_of(main.tables["nsr"]) or "")]
    schemes += [other_cost_tables(run, QuantizationScheme.parse(other), keys, outside_bits) for other in others]
    teacher = {"size": float(searched.teacher_size_bits), "latency": agreed.teacher_us}
    return [replace(tables, teacher=teacher) for tables in schemes]


def main_cost_tables(
    run: Path,
    name: str,
    keys: Mapping[str, str],
    outside: Mapping[str, float],
    *,
    latency: str = MAIN["latency"],
) -> CostTables:
    """The main scheme's of a run, corrected by full models; `keys` of the stages tables and profile.

    `latency`: which of the corrected tables, the agreement's or the search's (`CONFIRMED`).

    Raises `TableError` for tables that these stages, or this checkpoint, did not make, and for latencies of another
    device than the one that agreed.
    """
    return CostTables(name, _load(run, run / "tables", {**MAIN, "latency": latency}, keys), outside)


def other_cost_tables(
    run: Path, scheme: QuantizationScheme, keys: Mapping[str, str], outside_bits: float
) -> CostTables:
    """Another scheme's, as `main_cost_tables`. All weights are as wide, so the size outside the blocks is the same."""
    made = SchemesRecord.read(run / SchemesRecord.FILE)
    if str(scheme) not in made.schemes:
        raise UsageError(f"{run / SchemesRecord.FILE}: no tables of '{scheme}'; run hilnas search again")
    scheme_keys = {stage: key_of(key, scheme, made.arithmetic) for stage, key in keys.items()}
    tables = _load(run, tables_folder(run, scheme), OTHER, scheme_keys)
    constant_us = made.schemes[str(scheme)].constant_us
    return CostTables(str(scheme), tables, {"size": outside_bits, "latency": constant_us})


def _load(run: Path, folder: Path, files: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Table]:
    tables = {name: Table.load(folder / f"{file}.parquet") for name, file in files.items()}
    tables["nsr"].check_origin({"key": keys["tables"], "checkpoint": file_digest(run / "supernets.pt")})
    tables["latency"].check_origin({"key": keys["profile"]})
    check_device(tables["latency"], AgreementRecord.read(run / AgreementRecord.FILE).conditions)
    return tables | _weighted(folder) | _on_cpu(folder)


def _weighted(folder: Path) -> dict[str, Table]:
    """The NSRs with weights for blocks and channels; tables of an earlier version have none."""
    path = folder / f"{WEIGHTED_NSR}.parquet"
    return {WEIGHTED_NSR: Table.load(path)} if path.exists() else {}


def _on_cpu(folder: Path) -> dict[str, Table]:
    """The count of operators that the delegate left, where the board has one."""
    path = folder / f"{CPU_OPERATORS}.parquet"
    return {ON_CPU: Table.load(path)} if path.exists() else {}
