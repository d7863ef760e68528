"""`hilnas lcpaq sensitivity|solve|refine|proxy|run`: bits for each layer of a run's trained network.

Each action runs those before it, where they are not done under the present settings; what was finished is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from deploy.cli import console
from deploy.formats.figures import check_image
from deploy.formats.files import read_json
from deploy.lcpaq import plots, steps
from deploy.lcpaq.blocks import judge_blocks
from deploy.lcpaq.proxy import search_settings
from deploy.lcpaq.resnet import train_resnet, width_in
from deploy.lcpaq.ship import ship
from deploy.lcpaq.subject import BLOCKS, Subject, Wanted
from deploy.pipeline.loop import loop
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from hil.errors import UsageError
from nas.lcpaq.policy import ACTIVATION_BITS, INT8

Step = Callable[[Subject, Wanted], Iterator[Progress]]
STEPS: Mapping[str, tuple[Step, ...]] = {
    "sensitivity": (steps.sensitivity,),
    "solve": (steps.sensitivity, steps.solve_policy),
    "refine": (steps.sensitivity, steps.solve_policy, steps.refine_policy, judge_blocks),
    "proxy": (search_settings,),
    "run": (steps.sensitivity, steps.solve_policy, steps.refine_policy, judge_blocks, search_settings, ship),
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
    names = ("teacher", *(budget.name for budget in experiment.budgets), "resnet18")
    if arguments.model not in names and width_in(experiment, arguments.model) is None:
        raise UsageError(f"--model {arguments.model}: '{experiment.name}' has {', '.join(names)}")
    if BLOCKS in wanted.limits.values() and arguments.model not in {budget.name for budget in experiment.budgets}:
        raise UsageError(f"--size-limit {BLOCKS}: {arguments.model} has no block bits; name a found model or give %")
    if experiment.quantization.calibration_images < 2:
        print(
            "warning: one calibration image: ranges are that image's; set quantization.calibration_images to 16",
            file=sys.stderr,
        )
    with Run(arguments.runs_dir / experiment.name) as folder:
        context = Context(experiment, space, folder, arguments.boards)
        with console.progress() as show:
            for done in _trained(context, arguments.model):
                show(done)
            subject = Subject.of(context, arguments.model)
            for done in _steps(arguments, subject, wanted):
                show(done)
        if arguments.action != "proxy":
            _draw(subject, arguments.plot)
    _show(arguments, subject.folder)
    return 0


def _trained(context: Context, name: str) -> Iterator[Progress]:
    """Train what the network needs, where it is not done; a ResNet18 needs nothing of the loop."""
    if (width := width_in(context.experiment, name)) is not None:
        return train_resnet(context, name, width)
    return loop(context, "teacher" if name == "teacher" else "retrain")


def _steps(arguments: argparse.Namespace, subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    if "latency_us" in wanted.limits or arguments.measure_latency:
        yield from steps.measure_latency(subject)
    for step in STEPS[arguments.action]:
        yield from step(subject, wanted)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    given = {"size_bits": arguments.size_limit, "bops": arguments.bops_limit, "latency_us": arguments.latency_limit}
    limits = {name: text for name, text in given.items() if text is not None}
    widths = _widths("--bits", arguments.bits)
    activation_widths = (INT8,) if not arguments.tie_bits else tuple(w for w in widths if w in ACTIVATION_BITS)
    if arguments.activation_bits:
        activation_widths = _widths("--activation-bits", arguments.activation_bits)
    return Wanted(
        limits or {"size_bits": "67%"},
        arguments.sensitivity,
        widths,
        not arguments.all_layers,
        arguments.images,
        arguments.judged,
        arguments.k,
        trials=arguments.trials,
        tuning_steps=arguments.tuning_steps,
        activation_widths=activation_widths,
        tie_bits=arguments.tie_bits,
    )


def _widths(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{option} {text}: write bit widths with commas between, for example 4,6,8")
    return tuple(sorted({int(part) for part in parts}))


def _records(folder: Path) -> dict[str, Any]:
    names = ("sensitivity", "solve", "refine", "blocks", "proxy", "shipped")
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
        _show_blocks(records.get("blocks"))
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
    tables = {"{} bits": record["layers"], "reads {} bits": record.get("activations", {})}
    columns = [(title.format(width), rows, width) for title, rows in tables.items() for width in _first(rows)]
    table = RichTable()
    for column in ("layer", *(title for title, _, _ in columns)):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name in record["layers"]:
        table.add_row(name, *(f"{rows[name][width]:.3g}" for _, rows, width in columns))
    console.out.print(table)
    console.say(f"{record['kind']} on {record['images']} images, {record['cpu_s']:.1f} s of CPU")


def _first(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(next(iter(rows.values()), {}))


def _show_solution(record: Mapping[str, Any]) -> None:
    console.say(record["policy"])
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


def _show_blocks(record: Mapping[str, Any] | None) -> None:
    """Of a found model: what its search would say of it now."""
    if record:
        nsr, plain = (sum(block[name] for block in record["blocks"]) for name in ("nsr", "plain_nsr"))
        console.say(f"NSR of the blocks {nsr:.4f}, at the bits that the search gave them {plain:.4f}")


def _show_proxy(record: Mapping[str, Any]) -> None:
    best = ", ".join(f"{name} {value}" for name, value in record["best"].items())
    console.say(f"settings: {best}: {record['score']:.2f} %")
    reached = ", ".join(map(str, record["reached"]))
    console.say(f"trials on each rung: {reached}; {record['cpu_s']:.1f} s of CPU; a grid has {record['grid_settings']}")
    for one in record["agreement"]:
        if one["tau_b"] is not None:
            console.say(f"rung {one['rung'] + 1} ranks as the last one: tau-b {one['tau_b']:.2f} over {one['trials']}")
