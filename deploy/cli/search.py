"""`hilnas search`: the loop up to the exact front; with a question, other budgets, tables or devices."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_agreement, add_run, load, open_run
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.run.records import SearchRecord


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RunOptions):
    """See the help of each option."""

    size_budget: str | None
    latency_budget: tuple[str, ...] | None
    latency: tuple[str, ...] | None
    k: int | None
    objectives: str | None
    no_cpu_fallback: bool
    front: Path | None
    prove: bool
    tables: Path | None
    space: Path | None


def add(commands: Commands) -> None:
    search = add_run(
        commands.add_parser(
            "search",
            help="the best architectures under budgets of latency and size",
            description="The loop up to the exact front, and the best architecture under each of the configuration's "
            "budgets. With the options below its tables are asked something else, or with --tables any others.",
        )
    )
    add_agreement(search)
    asked = search.add_argument_group("questions")
    asked.add_argument("--size-budget", metavar="X", help="250kB (also bits, B, MB), or 75%% of the teacher's weights")
    asked.add_argument(
        "--latency-budget",
        action="append",
        metavar="Y",
        help="3.5ms (also us, s), or 80%% of the teacher's latency; NAME=3.5ms for each of several devices",
    )
    asked.add_argument(
        "--latency",
        action="append",
        metavar="NAME=FILE",
        help="a device's latency table; several: models for all of them and for each, and what sharing costs",
    )
    asked.add_argument("--k", type=int, help="how many to list, best first (default 1)")
    asked.add_argument("--objectives", metavar="A,B", help="of nsr,size,latency; the first is minimised (default: all)")
    asked.add_argument("--no-cpu-fallback", action="store_true", help="only subnets that the delegate took whole")
    asked.add_argument("--front", type=Path, metavar="FILE.csv", help="write the whole front, for every budget at once")
    asked.add_argument("--prove", action="store_true", help="hold it to brute force on random sub-spaces")
    asked.add_argument("--tables", type=Path, metavar="DIR", help="instead of a run's: nsr.parquet and others")
    asked.add_argument("--space", type=Path, metavar="FILE.toml", help="which space --tables are of")
    bind(search, SearchOptions, run)


def run(options: SearchOptions) -> int:
    """Search, or answer a question; the exit code. `CheckFailed` if a proof was asked for and does not hold."""
    from deploy.search import devices
    from deploy.search import query as searching
    from nas.table import Table

    arguments = argparse.Namespace(**vars(options))  # of the room below, until it takes what it needs
    if not searching.asks(arguments):
        return _stage(options)
    answer = devices.run if options.latency else searching.run
    for device in devices.devices_of(options.latency or ()):
        Table.load(device.path)  # refused before a loop runs
    if (options.tables or options.space) and (options.tau is not None or options.models is not None):
        raise UsageError("--tables alone were never compared with whole models: leave out --tau and --models")
    if options.tables or options.space:
        if options.tables is None:
            raise UsageError("--space goes with --tables; a run's space is its configuration's")
        return answer(arguments, searching.material_of_tables(options.tables, options.space))
    _, space = load(options)
    return answer(arguments, searching.material_of_run(_searched(options), space))


def _searched(options: SearchOptions) -> Path:
    """The folder of the run, whose search is done."""
    from deploy.pipeline.loop import loop

    with open_run(options) as context:
        console.follow(loop(context, "search"))
        return context.path


def _stage(options: SearchOptions) -> int:
    """The stage's own answer."""
    from deploy.run.records import SearchRecord

    record = SearchRecord.read(_searched(options) / SearchRecord.FILE)
    console.say_json(record.to_json()) if options.json else show_selected(record)
    return 0


def show_selected(record: SearchRecord) -> None:
    """The stage's own answer: the front, and the model under each budget."""
    from deploy.latency.gate import gate_text

    if record.gate.override:
        console.say(gate_text(record.gate))
    console.say(f"front: {len(record.pareto_front)} architectures over (NSR, latency)")
    for m in record.selected:
        scheme = f" ({m.scheme})" if m.scheme else ""
        console.say(
            f"{m.name}: {m.subnet} nsr {m.nsr:.4f} predicted {m.predicted_us / 1000:.3f} ms "
            f"weights {m.size_bits / 8000:.1f} kB{scheme}"
        )


def show_answer(record: Mapping[str, Any]) -> None:
    """The answer of `hilnas search` with a question (deploy/search/query.py)."""
    console.say(
        f"front: {record['front']} of {record['architectures']:.3g} architectures over "
        f"({', '.join(record['objectives'])}), in {record['seconds']:.3f} s; costs are of {record['of']}"
    )
    for rank, entry in enumerate(record["found"], start=1):
        console.say(f"{rank}: {_costs(entry)}")
    for name in record.get("stale", ()):
        console.say(
            f"left out: lcpaq {name}, refined for another search or other bits; hilnas lcpaq refine --model {name}"
        )
    proof = record.get("proof")
    if proof:
        console.say(
            f"proof: {proof['sub_spaces']} sub-spaces with {proof['architectures']} architectures and "
            f"{proof['queries']} budgets against brute force, {proof['sampled']} random architectures against the "
            f"front: {proof['difference'] or 'no difference'}"
        )


def show_answer_for_devices(record: Mapping[str, Any]) -> None:
    """The answer for several devices (deploy/search/devices.py)."""
    show_answer(record)
    for name, device in record["devices"].items():
        console.say(f"{name} alone: {_costs(device['alone'])}; sharing costs {device['sharing_costs_nsr']:.4f} of NSR")


def _costs(entry: Mapping[str, Any]) -> str:
    costs = [f"nsr {entry['nsr']:.4f}"] if "nsr" in entry else []
    costs += [f"weights {entry['size_bits'] / 8000:.1f} kB"] if "size_bits" in entry else []
    for key, value in entry.items():
        plain, _, device = key.partition("@")
        if plain == "latency_us":
            costs.append(f"predicted {value / 1000:.3f} ms{' on ' + device if device else ''}")
    return f"{entry['subnet']} {' '.join(costs)}{_scheme(entry)}"


def _scheme(entry: Mapping[str, Any]) -> str:
    """Of an entry that says its scheme: there are several."""
    return f" ({entry['scheme']})" if "scheme" in entry else ""
