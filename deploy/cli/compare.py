"""`hilnas compare-search`: block-wise search against its rivals, as the paper's table of costs does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from deploy.cli import console
from deploy.compare.compare_search import compare_search
from deploy.compare.methods import METHODS
from deploy.compare.setup import open_comparison
from deploy.formats.files import read_json
from deploy.pipeline.loop import loop
from deploy.run.config import Budget, Experiment, Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from hil.errors import UsageError
from nas.engine.open import open_engine

COSTS = ("teacher", "train", "tables", "search", "retrain")


def run(arguments: argparse.Namespace, config: Path) -> int:
    """Run the loop up to its tables where that is not done, compare, show; the exit code."""
    experiment, space = load_experiment(config, Overrides.of(arguments))
    engine = open_engine(arguments.engine, arguments.workers)
    methods, budget = _methods(arguments.methods), _budget(experiment, arguments.budget_name)
    with Run(arguments.runs_dir / experiment.name) as of_experiment, Run(of_experiment.path / "compare") as own:
        context = Context(experiment, space, of_experiment, arguments.boards, engine)
        with console.progress() as show:
            for done in loop(context, "agree"):
                show(done)
            for done in compare_search(open_comparison(context, own, budget), methods):
                show(done)
    result = own.path / f"{budget.name}.json"
    record = read_json(result)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        show_comparison(record)
        console.say(f"written to {result}")
    return 0


def _methods(text: str | None) -> list[str]:
    methods = list(dict.fromkeys(text.split(","))) if text else list(METHODS)
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"--methods: no '{unknown[0]}'; there are {', '.join(METHODS)}")
    return methods


def _budget(experiment: Experiment, name: str | None) -> Budget:
    budgets = {budget.name: budget for budget in experiment.budgets}
    if name is not None and name not in budgets:
        raise UsageError(f"--budget {name}: no such budget in '{experiment.name}'; there are {', '.join(budgets)}")
    return budgets[name] if name else experiment.budgets[0]


def show_comparison(record: Mapping[str, Any]) -> None:
    """A row a method; costs in CPU seconds, `-` for what a method does without.

    On a GPU costs are wall time; so are, marked, those of stages that earlier versions ran without counting.
    """
    table = RichTable()
    for column in (
        "method",
        f"{record['metric']} INT8 %",
        "weights kB",
        "table ms",
        "judged",
        *(f"{cost} s" for cost in COSTS),
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    teacher = record["teacher"]
    costs = [""] * len(COSTS)
    unit = "cpu_s" if record["machine"]["device"] == "cpu" else "wall_s"
    table.add_row("teacher", *_figures([teacher["int8"]], teacher["size_bits"], teacher["latency_us"]), "", *costs)
    for row in record["methods"]:
        figures = _figures(row["int8"], row["size_bits"], row["predicted_us"])
        table.add_row(
            row["method"], *figures, str(row["judged"]), *(_seconds(row["spent"].get(c), unit) for c in COSTS)
        )
    console.out.print(table)
    for row in record["methods"]:
        console.say(f"  {row['method']}: {row['subnet']}")
    budget = record["budget"]
    shares = ", ".join(f"{q} {budget[q]:.0%} of the teacher's" for q in ("latency", "size") if budget[q] is not None)
    console.say(
        f"budget {budget['name']}: {shares}; costs in {'CPU' if unit == 'cpu_s' else 'GPU'} seconds; "
        f"the latency table took {record['board_seconds']:.0f} s of the board, for all methods"
    )


def _figures(scores: list[float], size_bits: float, latency_us: float) -> tuple[str, str, str]:
    spread = f" ({min(scores):.2f} - {max(scores):.2f})" if len(scores) > 1 else ""
    return f"{sum(scores) / len(scores):.2f}{spread}", f"{size_bits / 8000:.1f}", f"{latency_us / 1000:.3f}"


def _seconds(spent: Mapping[str, float | None] | None, unit: str) -> str:
    if spent is None:
        return "-"
    return f"{spent['wall_s']:.2f} wall" if spent[unit] is None else f"{spent[unit]:.2f}"
