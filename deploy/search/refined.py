"""The selected models whose bits LCPAQ assigned anew inside the blocks, as cost tables that allow one model each.

NSRs and sizes are those of blocks.json, as is the size outside the blocks; few bits run as int8, so latencies are those
of the main scheme's tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from deploy.formats.digest import digest, file_digest
from deploy.run.records import RunState, SearchRecord
from deploy.run.records.keyed import KeyedRecord
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.lcpaq.policy import Policy, load_policy
from nas.search.union import CostTables
from nas.settings import STRICT
from nas.space import Architecture, Subnet
from nas.table import Table


@dataclass(frozen=True)
class RefinedBlock:
    """A block at the policy's bits; `plain_nsr`: of the subnet as the search selected it."""

    subnet: str
    nsr: float
    size_bits: int
    plain_nsr: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RefinedRecord(KeyedRecord):
    """A refined model, in the numbers of the tables.

    Attributes:
        key: `refined_key` of what it was made from.
        network: a digest of the network that the policy is of.
        policy: in words.
        outside_bits: what lies outside the blocks, at the policy's widths.
    """

    network: str
    policy: str
    outside_bits: int
    blocks: tuple[RefinedBlock, ...]

    FILE: ClassVar[str] = "blocks.json"
    COMMAND: ClassVar[str] = "lcpaq refine"


@dataclass(frozen=True, eq=False)
class Refined:
    """The refined models of a run; `stale`: the names of those whose record is out of date, which are left out."""

    models: tuple[CostTables, ...] = ()
    stale: tuple[str, ...] = ()


NONE_REFINED = Refined()


def refined_key(keys: Mapping[str, str], checkpoint: str, architecture: str, network: str, policy: Policy) -> str:
    """What blocks.json was made from: the stages, supernets.pt (its digest), the selected model, and its bits now."""
    stages = [keys.get(stage, "") for stage in ("tables", "search", "retrain")]
    return digest("lcpaq blocks", *stages, checkpoint, architecture, network, str(policy))


def refined_of_run(run: Path, main: CostTables) -> Refined:
    """Of every selected model that LCPAQ refined; `main`: the main scheme's tables.

    Raises `UsageError` for a record that is damaged.
    """
    keys = {stage: state.key for stage, state in RunState.read(run / RunState.FILE).stages.items()}
    architectures = {model.name: model.subnet for model in SearchRecord.read(run / SearchRecord.FILE).selected}
    models, stale = [], []
    for path in sorted(run.glob(f"lcpaq/*/{RefinedRecord.FILE}")):
        name, record = path.parent.name, RefinedRecord.read(path)
        subnet = architectures.get(name)
        if subnet is not None and record.key == _key_now(run, path, subnet, record.network, keys):
            models.append(_cost_tables(f"lcpaq {name}", main, Architecture.parse(subnet), path, record))
        else:
            stale.append(name)
    return Refined(tuple(models), tuple(stale))


def _key_now(run: Path, path: Path, architecture: str, network: str, keys: Mapping[str, str]) -> str | None:
    """None where policy.json is not there, or of another network."""
    try:
        policy = load_policy(path.with_name("policy.json"), network)
    except ConfigError:
        return None
    return refined_key(keys, file_digest(run / "supernets.pt"), architecture, network, policy)


def _cost_tables(
    name: str, main: CostTables, architecture: Architecture, path: Path, record: RefinedRecord
) -> CostTables:
    blocks = {block.subnet: block for block in record.blocks}
    if set(blocks) != set(map(str, architecture.subnets)):
        raise UsageError(f"{path}: its blocks are not those of {architecture}; delete it and run again")
    nsrs = {subnet: blocks[str(subnet)].nsr for subnet in architecture.subnets}
    sizes = {subnet: float(blocks[str(subnet)].size_bits) for subnet in architecture.subnets}
    tables = {"nsr": _changed(main.tables["nsr"], nsrs), "size": _changed(main.tables["size"], sizes)}
    return CostTables(
        name,
        {**main.tables, **tables},
        {**main.outside, "size": float(record.outside_bits)},
        frozenset(architecture.subnets).__contains__,
        main.teacher,
    )


def _changed(table: Table, values: Mapping[Subnet, float]) -> Table:
    entries = {subnet: Estimate.exact(value) for subnet, value in values.items()}
    return replace(table, entries={**table.entries, **entries})
