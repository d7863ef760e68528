"""A run's tables as the sides of one search: the main scheme's, those of the alternatives that it names, and the found
models whose bits LCPAQ dealt out anew inside the blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import digest, file_digest
from deploy.formats.files import read_json
from deploy.latency.key import check_device
from deploy.run.records import AgreementRecord, SchemesRecord, SearchRecord
from deploy.run.schemes import key_of, tables_folder
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.lcpaq.policy import Policy, load_policy
from nas.search.union import Side
from nas.space import Architecture
from nas.table import Entry, Table

REFINED = "blocks.json"
MAIN = {"nsr": "nsr", "size": "size", "latency": "latency-corrected"}
OTHER = {"nsr": "nsr", "size": "size", "latency": "latency"}  # the constant alone corrects it


def main_side(run: Path, name: str, keys: Mapping[str, str], around: Mapping[str, float]) -> Side:
    """The main scheme's tables of a run, with feedback; `keys` of the stages tables and profile.

    Raises `TableError` for tables that these stages, or this checkpoint, did not make, and for latencies of another
    device than the one that agreed.
    """
    return Side(name, _load(run, run / "tables", MAIN, keys), around)


def other_side(run: Path, alternative: QuantizationScheme, keys: Mapping[str, str], around_bits: float) -> Side:
    """An alternative's, as `main_side`. The widths of all weights are the same, so what lies around weighs the same."""
    own = {stage: key_of(key, alternative) for stage, key in keys.items()}
    tables = _load(run, tables_folder(run, alternative), OTHER, own)
    constant_us = SchemesRecord.read(run / SchemesRecord.FILE).schemes[str(alternative)].constant_us
    return Side(str(alternative), tables, {"size": around_bits, "latency": constant_us})


def _load(run: Path, folder: Path, files: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Table]:
    tables = {name: Table.load(folder / f"{file}.parquet") for name, file in files.items()}
    tables["nsr"].check_origin({"key": keys["tables"], "checkpoint": file_digest(run / "supernets.pt")})
    tables["latency"].check_origin({"key": keys["profile"]})
    check_device(tables["latency"], AgreementRecord.read(run / AgreementRecord.FILE).conditions)
    return tables


def refined_key(keys: Mapping[str, str], checkpoint: str, architecture: str, network: str, policy: Policy) -> str:
    """What blocks.json was made from: the stages, supernets.pt (its digest), the found model, and its bits now."""
    stages = [keys.get(stage, "") for stage in ("tables", "search", "retrain")]
    return digest("lcpaq blocks", *stages, checkpoint, architecture, network, str(policy))


def refined_sides(run: Path, main: Side, keys: Mapping[str, str]) -> tuple[list[Side], list[str]]:
    """A side for every found model that LCPAQ refined, and the names of those whose record is out of date.

    A side allows the one model. Its NSRs and sizes are the record's, as is the size around the blocks; few bits run as
    int8, so its latencies are those of the main tables.
    """
    sides, stale = [], []
    found = {entry.name: entry.subnet for entry in SearchRecord.read(run / SearchRecord.FILE).selected}
    for path in sorted(run.glob(f"lcpaq/*/{REFINED}")):
        name = path.parent.name
        record = read_json(path, ("key", "network", "around_bits", "blocks"))
        if name in found and record["key"] == _key_now(run, path, found[name], record["network"], keys):
            sides.append(_refined(f"lcpaq {name}", main, Architecture.parse(found[name]), path, record))
        else:
            stale.append(name)
    return sides, stale


def _key_now(run: Path, path: Path, architecture: str, network: str, keys: Mapping[str, str]) -> str | None:
    """None where policy.json is not there, or of another network."""
    try:
        policy = load_policy(path.with_name("policy.json"), network)
    except ConfigError:
        return None
    return refined_key(keys, file_digest(run / "supernets.pt"), architecture, network, policy)


def _refined(name: str, main: Side, architecture: Architecture, path: Path, record: Mapping[str, Any]) -> Side:
    subnets, tables = architecture.subnets, dict(main.tables)
    try:
        for quantity, column in (("nsr", "nsr"), ("size", "size_bits")):
            own = {block["subnet"]: Entry.exact(float(block[column])) for block in record["blocks"]}
            entries = {**main.tables[quantity].entries, **{subnet: own[str(subnet)] for subnet in subnets}}
            tables[quantity] = replace(main.tables[quantity], entries=entries)
        around = {**main.around, "size": float(record["around_bits"])}
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: not a record of this kit; delete it and run again") from None
    return Side(name, tables, around, frozenset(subnets).__contains__)
