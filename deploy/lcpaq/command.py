"""`hilnas lcpaq sensitivity|solve|refine|proxy|run`: bits for each layer of a run's trained network.

Each action runs those before it, where they are not done under the present settings; what was finished is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from deploy import console
from deploy.config import Overrides, load_experiment
from deploy.context import Context
from deploy.figures import check_image
from deploy.lcpaq import plots, steps
from deploy.lcpaq.proxy import search_settings
from deploy.lcpaq.ship import ship
from deploy.lcpaq.subject import Subject, Wanted
from deploy.loop import loop
from deploy.run import Progress, Run, read_json
from hil.errors import UsageError

Step = Callable[[Subject, Wanted], Iterator[Progress]]
STEPS: Mapping[str, tuple[Step, ...]] = {
    "sensitivity": (steps.sensitivity,),
    "solve": (steps.sensitivity, steps.solve_policy),
    "refine": (steps.sensitivity, steps.solve_policy, steps.refine_policy),
    "proxy": (search_settings,),
    "run": (steps.sensitivity, steps.solve_policy, steps.refine_policy, search_settings, ship),
}
SHOWN = {
    "size_bits": ("weights", 8e3, "kB"),
    "bops": ("bit operations", 1e9, "G"),
    "latency_us": ("latency", 1e3, "ms"),
}


def run(arguments: argparse.Namespace, config: Path) -> int:
    """Train what is not trained, take the steps, show; the exit code."""
    wanted = _wanted(arguments)
    if arguments.plot:
        check_image(arguments.plot)
    experiment, space = load_experiment(config, Overrides.of(arguments))
    names = ("teacher", *(budget.name for budget in experiment.budgets))
    if arguments.model not in names:
        raise UsageError(f"--model {arguments.model}: '{experiment.name}' has {', '.join(names)}")
    if experiment.quantization.calibration_images < 2:
        console.say(
            "warning: one calibration image: ranges are that image's; set quantization.calibration_images to 16"
        )
    with Run(arguments.runs_dir / experiment.name) as folder:
        context = Context(experiment, space, folder, arguments.boards)
        with console.progress() as show:
            for done in loop(context, "teacher" if arguments.model == "teacher" else "retrain"):
                show(done)
            subject = Subject.of(context, arguments.model)
            for done in _steps(arguments, subject, wanted):
                show(done)
        if arguments.action != "proxy":
            _draw(subject, arguments.plot)
    _show(arguments, subject.folder)
    return 0


def _steps(arguments: argparse.Namespace, subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    if "latency_us" in wanted.limits or arguments.measure_latency:
        yield from steps.measure_latency(subject)
    for step in STEPS[arguments.action]:
        yield from step(subject, wanted)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    given = {"size_bits": arguments.size_limit, "bops": arguments.bops_limit, "latency_us": arguments.latency_limit}
    limits = {name: text for name, text in given.items() if text is not None}
    bits = arguments.bits.split(",")
    if not all(part.isascii() and part.isdigit() for part in bits):
        raise UsageError(f"--bits {arguments.bits}: write bit widths with commas between, for example 4,6,8")
    return Wanted(
        limits or {"size_bits": "67%"},
        arguments.sensitivity,
        tuple(sorted({int(part) for part in bits})),
        not arguments.all_layers,
        arguments.images,
        arguments.judged,
        arguments.k,
        trials=arguments.trials,
        tuning_steps=arguments.tuning_steps,
    )


def _records(folder: Path) -> dict[str, Any]:
    names = ("sensitivity", "solve", "refine", "proxy", "shipped")
    return {name: read_json(folder / f"{name}.json") for name in names if (folder / f"{name}.json").exists()}


def _draw(subject: Subject, plot: Path | None) -> None:
    """lcpaq.html, and `plot`, as far as there is something to draw."""
    records = _records(subject.folder)
    if not {"sensitivity", "solve"} <= records.keys():
        return
    drawn = plots.drawn(records["sensitivity"], records["solve"], records.get("refine"))
    plots.write_page(subject.folder / "lcpaq.html", drawn)
    if plot:
        plots.write_image(plot, drawn)


def _show(arguments: argparse.Namespace, folder: Path) -> None:
    records = _records(folder)
    if arguments.json:
        print(json.dumps(records, indent=1))
        return
    if arguments.action == "sensitivity":
        _show_sensitivity(records["sensitivity"])
    if arguments.action in ("solve", "refine", "run"):
        _show_solution(records["solve"])
    if arguments.action in ("refine", "run"):
        _show_refinement(records["refine"])
    if arguments.action in ("proxy", "run"):
        _show_proxy(records["proxy"])
    if arguments.action == "run":
        shipped = records["shipped"]
        console.say(
            f"validation: {shipped['int8']:.2f} % {shipped['metric']} at the policy, by {shipped['by']}; "
            f"{shipped['int8_all8']:.2f} % with 8 bits everywhere, {shipped['fp32']:.2f} % in float"
        )
        console.say(f"bundle: {shipped['bundle']}")
    console.say(f"records in {folder}")


def _show_sensitivity(record: Mapping[str, Any]) -> None:
    table = RichTable()
    widths = list(next(iter(record["layers"].values())))
    for column in ("layer", *(f"{width} bits" for width in widths)):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name, row in record["layers"].items():
        table.add_row(name, *(f"{row[width]:.3g}" for width in widths))
    console.out.print(table)
    console.say(f"{record['kind']} on {record['images']} images, {record['cpu_s']:.1f} s of CPU")


def _show_solution(record: Mapping[str, Any]) -> None:
    console.say(" ".join(f"{name}={bits}" for name, bits in record["bits"].items()))
    for name, value in record["totals"].items():
        if name in SHOWN:
            text, unit, symbol = SHOWN[name]
            limit = f", limit {record['limits'][name] / unit:.4g} {symbol}" if name in record["limits"] else ""
            share = value / record["int8"][name]
            console.say(f"{text} {value / unit:.4g} {symbol}, {share:.1%} of INT8's{limit}")
    console.say(f"solved in {record['seconds']:.3f} s")


def _show_refinement(record: Mapping[str, Any]) -> None:
    table = RichTable()
    for column in ("origin", f"{record['metric']} %", "perturbation", "weights kB"):
        table.add_column(column, justify="left" if column == "origin" else "right")
    for one in record["scored"]:
        kept = " (kept)" if one["policy"] == record["best"] else ""
        costs = one["costs"]
        table.add_row(
            one["origin"] + kept,
            f"{one['score']:.2f}",
            f"{costs['perturbation']:.4g}",
            f"{costs['size_bits'] / 8e3:.1f}",
        )
    console.out.print(table)


def _show_proxy(record: Mapping[str, Any]) -> None:
    best = ", ".join(f"{name} {value}" for name, value in record["best"].items())
    console.say(f"settings: {best}: {record['score']:.2f} %")
    reached = ", ".join(map(str, record["reached"]))
    console.say(f"trials on each rung: {reached}; {record['cpu_s']:.1f} s of CPU; a grid has {record['grid_settings']}")
    for one in record["agreement"]:
        if one["tau_b"] is not None:
            console.say(f"rung {one['rung'] + 1} ranks as the last one: tau-b {one['tau_b']:.2f} over {one['trials']}")
