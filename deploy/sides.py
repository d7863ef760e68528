"""A run's tables as the sides of one search: the main scheme's, and those of the alternatives that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.alternatives import Alternative
from deploy.config import digest, file_digest
from deploy.latency.key import check_device
from deploy.run import read_json
from hil.measurement import Conditions
from nas.search.union import Side
from nas.table import Table

RECORD = "alternatives.json"
MAIN = {"nsr": "nsr", "size": "size", "latency": "latency-corrected"}
OTHER = {"nsr": "nsr", "size": "size", "latency": "latency"}  # the constant alone corrects it


def key_of(stage_key: str, alternative: Alternative) -> str:
    """What an alternative's files and tables say they were made with, from the key of the main scheme's stage."""
    return digest(stage_key, "alternative", str(alternative))


def tables_folder(run: Path, alternative: Alternative) -> Path:
    return run / "tables" / alternative.slug


def main_side(run: Path, name: str, keys: Mapping[str, str], around: Mapping[str, float]) -> Side:
    """The main scheme's tables of a run, with feedback; `keys` of the stages tables and profile.

    Raises `TableError` for tables that these stages, or this checkpoint, did not make, and for latencies of another
    device than the one that agreed.
    """
    return Side(name, _load(run, run / "tables", MAIN, keys), around)


def other_side(run: Path, alternative: Alternative, keys: Mapping[str, str], around_bits: float) -> Side:
    """An alternative's, as `main_side`. The widths of all weights are the same, so what lies around weighs the same."""
    own = {stage: key_of(key, alternative) for stage, key in keys.items()}
    tables = _load(run, tables_folder(run, alternative), OTHER, own)
    constant_us = read_json(run / RECORD, (str(alternative),))[str(alternative)]["constant_us"]
    return Side(str(alternative), tables, {"size": around_bits, "latency": constant_us})


def _load(run: Path, folder: Path, files: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Table]:
    tables = {name: Table.load(folder / f"{file}.parquet") for name, file in files.items()}
    tables["nsr"].check_origin({"key": keys["tables"], "checkpoint": file_digest(run / "supernets.pt")})
    tables["latency"].check_origin({"key": keys["profile"]})
    judged = read_json(run / "agreement.json", ("conditions",))
    check_device(tables["latency"], Conditions.from_json(judged["conditions"]))
    return tables
