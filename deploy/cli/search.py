"""`hilnas search`: the loop up to the Pareto front; with a question, other budgets, tables or devices."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_agreement, add_run, load, open_run
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.run.records import SearchRecord
    from deploy.search.devices import Device
    from deploy.search.query import AnswerRecord, Question, RankedModel, SearchAnswer
    from deploy.search.refined import Refined
    from nas.search.union import CostTables
    from nas.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RunOptions):
    """What is asked of a run's tables, or of others; None or False everywhere: the loop's own search.

    Attributes:
        size_budget: as `250kB` or `75%`.
        latency_budget: as `3.5ms`, `80%`, or for each of several devices `NAME=3.5ms`.
        latency: tables of devices, as `NAME=FILE`.
        k: how many models.
        objectives: separated by commas.
        no_cpu_fallback: only subnets of which nothing stays on the CPU.
        front: the file that the Pareto front is written to.
        prove: hold the answer to brute force.
        tables: a folder of tables, in place of a run's.
        space: the file of the space that `tables` are of.
    """

    size_budget: str | None = None
    latency_budget: tuple[str, ...] | None = None
    latency: tuple[str, ...] | None = None
    k: int | None = None
    objectives: str | None = None
    no_cpu_fallback: bool = False
    front: Path | None = None
    prove: bool = False
    tables: Path | None = None
    space: Path | None = None

    @property
    def asks(self) -> bool:
        """Whether more is asked than the stage's result."""
        texts = (self.size_budget, self.latency_budget, self.latency, self.objectives, self.k)
        files = (self.front, self.tables, self.space)
        return self.no_cpu_fallback or self.prove or any(given is not None for given in (*texts, *files))


def add(commands: Commands) -> None:
    search = add_run(
        commands.add_parser(
            "search",
            help="the best architectures under budgets of latency and size",
            description="The loop up to the exact Pareto front, and the best architecture under each of the "
            "configuration's budgets. The options below put another question to its tables, or with --tables to any "
            "others.",
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
    asked.add_argument("--k", type=int, metavar="N", help="how many models to list, best first (default 1)")
    asked.add_argument("--objectives", metavar="A,B", help="of nsr,size,latency; the first is minimised (default: all)")
    asked.add_argument("--no-cpu-fallback", action="store_true", help="only subnets of which nothing stays on the CPU")
    asked.add_argument(
        "--front", type=Path, metavar="FILE.csv", help="write the Pareto front: the best model for every budget"
    )
    asked.add_argument("--prove", action="store_true", help="compare it with brute force on random sub-spaces")
    asked.add_argument("--tables", type=Path, metavar="DIR", help="instead of a run's: nsr.parquet and others")
    asked.add_argument("--space", type=Path, metavar="NAME|FILE", help="which space --tables are of")
    bind(search, SearchOptions, run)


def run(options: SearchOptions) -> int:
    """Search, or answer a question; the exit code. `CheckFailed` if a proof was asked for and does not hold."""
    if not options.asks:
        return _stage(options)
    from deploy.search.devices import devices_of
    from nas.table import Table

    devices = devices_of(options.latency or ())
    for device in devices:
        Table.load(device.path)  # refused before a loop runs
    answered = (
        _asked_of_tables(options, devices) if options.tables or options.space else _asked_of_run(options, devices)
    )
    if options.front:
        _write_csv(options.front, answered.union())
    if options.json:
        console.say_json(answered.record.to_json())
    else:
        show_answer(answered.record)
    answered.record.check_proof()
    return 0


def _stage(options: SearchOptions) -> int:
    """The stage's result."""
    from deploy.run.records import SearchRecord
    from deploy.ship.budgets import check_missed

    record = SearchRecord.read(_searched(options) / SearchRecord.FILE)
    if options.json:
        console.say_json(record.to_json())
    else:
        show_selected(record)
    check_missed(record.missed)
    return 0


def _asked_of_tables(options: SearchOptions, devices: Sequence[Device]) -> SearchAnswer:
    from deploy.run.shipped import load_space
    from deploy.search.cost_tables import cost_tables_of_folder
    from deploy.search.refined import NONE_REFINED

    if options.tau is not None or options.models is not None:
        raise UsageError("--tables alone were never compared with full models: leave out --tau and --models")
    if options.tables is None:
        raise UsageError("--space goes with --tables; a run's space is its configuration's")
    if options.space is None:
        raise UsageError("--tables says not of which space they are: give --space NAME or FILE.toml")
    space = load_space(options.space)
    return _answer(options, space, [cost_tables_of_folder(options.tables, space)], NONE_REFINED, devices)


def _asked_of_run(options: SearchOptions, devices: Sequence[Device]) -> SearchAnswer:
    from deploy.search.cost_tables import cost_tables_of_run
    from deploy.search.refined import refined_of_run

    _, space = load(options)
    folder = _searched(options)
    schemes = cost_tables_of_run(folder)
    return _answer(options, space, schemes, refined_of_run(folder, schemes[0]), devices)


def _searched(options: SearchOptions) -> Path:
    """The folder of the run, whose search is done."""
    from deploy.pipeline.loop import loop

    with open_run(options) as context:
        console.follow(loop(context, "search"))
        return context.path


def _answer(
    options: SearchOptions,
    space: SearchSpace,
    schemes: Sequence[CostTables],
    refined: Refined,
    devices: Sequence[Device],
) -> SearchAnswer:
    from deploy.search.budgets import budgets_of, budgets_of_devices
    from deploy.search.devices import answer_for_devices, joined
    from deploy.search.query import answer

    latency = options.latency_budget or ()
    if not devices:
        budgets = budgets_of(schemes[0], options.size_budget, latency)
        return answer(_question(options, budgets), space, schemes, refined)
    joint = joined(space, schemes[0], devices)
    budgets = budgets_of_devices(joint, options.size_budget, latency, [device.name for device in devices])
    return answer_for_devices(_question(options, budgets), space, joint, devices)


def _question(options: SearchOptions, budgets: dict[str, float]) -> Question:
    from deploy.search.query import Question

    return Question(
        budgets=budgets,
        k=1 if options.k is None else options.k,
        objectives=tuple(options.objectives.split(",")) if options.objectives else (),
        no_cpu_fallback=options.no_cpu_fallback,
        prove=options.prove,
    )


def _write_csv(path: Path, models: Sequence[RankedModel]) -> None:
    from deploy.formats.files import write_atomically

    rows = [model.to_json() for model in models]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def show_selected(record: SearchRecord) -> None:
    """The stage's result: the Pareto front, and the model under each budget."""
    from deploy.latency.gate import gate_text

    if record.gate.override:
        console.say(gate_text(record.gate))
    console.say(f"Pareto front: {len(record.pareto_front)} architectures over (NSR, latency)")
    for model in record.selected:
        console.say(
            f"{model.name}: {model.subnet} nsr {model.nsr:.4f} predicted {model.predicted_us / 1000:.3f} ms "
            f"weights {model.size_bits / 8000:.1f} kB{_scheme(model.scheme)}"
        )
    missed = {budget.name for budget in record.missed}
    for budget in record.confirmed.budgets if record.confirmed else ():
        if budget.name not in missed and (share := record.model(budget.name).share):
            console.say(
                f"budget {budget.name}: measured {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of the "
                f"teacher's latency, at most {budget.limit:.3f}; {len(budget.candidates)} models were measured"
            )


def show_answer(record: AnswerRecord) -> None:
    """The answer to a question, for one device or several."""
    console.say(
        f"Pareto front: {record.front} of {record.architectures:.3g} architectures over "
        f"({', '.join(record.objectives)}), in {record.seconds:.3f} s; costs are of {record.scope}"
    )
    for rank, model in enumerate(record.selected, start=1):
        console.say(f"{rank}: {_costs(model)}")
    for name in record.stale:
        console.say(
            f"left out: lcpaq {name}, refined for another search or other bits; hilnas lcpaq refine --model {name}"
        )
    if proof := record.proof:
        console.say(
            f"proof: {proof.sub_spaces} sub-spaces with {proof.architectures} architectures and {proof.queries} "
            f"budgets against brute force, {proof.sampled} random architectures against the Pareto front: "
            f"{proof.difference or 'no difference'}"
        )
    for name, device in record.devices.items():
        console.say(f"{name} alone: {_costs(device.alone)}; sharing costs {device.sharing_costs_nsr:.4f} of NSR")


def _costs(model: RankedModel) -> str:
    costs = [f"nsr {model.costs['nsr']:.4f}"] if "nsr" in model.costs else []
    costs += [f"weights {model.costs['size_bits'] / 8000:.1f} kB"] if "size_bits" in model.costs else []
    for quantity, value in model.costs.items():
        plain, _, device = quantity.partition("@")
        if plain == "latency_us":
            costs.append(f"predicted {value / 1000:.3f} ms{' on ' + device if device else ''}")
    return f"{model.subnet} {' '.join(costs)}{_scheme(model.scheme)}"


def _scheme(name: str | None) -> str:
    """Where there are several."""
    return f" ({name})" if name else ""
