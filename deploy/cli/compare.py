"""`hilnas compare-search`: block-wise search against its rivals, as the paper's table of costs does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, load, open_run
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.compare.records import ComparisonRecord, Spent
    from deploy.run.config import Experiment
    from deploy.run.settings.deployment import Budget

COSTS = ("teacher", "train", "tables", "search", "retrain")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RunOptions):
    """`methods`: names separated by commas, None: all; `budget_name`: None: the configuration's first budget."""

    methods: str | None = None
    budget_name: str | None = None


def add(commands: Commands) -> None:
    compare = add_run(
        commands.add_parser("compare-search", help="block-wise search against DNA, SPOS, FairNAS and controls")
    )
    compare.add_argument(
        "--methods",
        metavar="A,B",
        help="of blockwise, dna, spos, fairnas, random and the controls teacher_plus, random_blocks, uniform, "
        "fewer_layers (default: all)",
    )
    compare.add_argument(
        "--budget", dest="budget_name", metavar="NAME", help="of the configuration's budgets (default: the first)"
    )
    bind(compare, CompareOptions, run)


def run(options: CompareOptions) -> int:
    """Run the loop up to its tables where that is not done, compare, show; the exit code."""
    from deploy.compare.compare_search import compare_search, result_path
    from deploy.compare.records import ComparisonRecord
    from deploy.compare.setup import open_comparison
    from deploy.pipeline.loop import loop
    from deploy.run.folder import Run

    experiment, _ = load(options)
    methods, budget = _methods(options.methods), _budget(experiment, options.budget_name)
    with open_run(options) as context, Run(context.path / "compare") as folder:
        console.follow(loop(context, "agree"))
        comparison = open_comparison(context, folder, budget)
        console.follow(compare_search(comparison, methods))
    path = result_path(comparison)
    record = ComparisonRecord.read(path)
    if options.json:
        console.say_json(record.to_json())
    else:
        show_comparison(record)
        for method in methods:
            if method not in {row.method for row in record.methods}:
                console.say(f"  {method}: nothing of this family is within the budget")
        console.say(f"written to {path}")
    return 0


def _methods(text: str | None) -> list[str]:
    from deploy.compare.methods import METHODS

    methods = list(dict.fromkeys(text.split(","))) if text else list(METHODS)
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"--methods: no '{unknown[0]}'; there are {', '.join(METHODS)}")
    return methods


def _budget(experiment: Experiment, name: str | None) -> Budget:
    budgets = {budget.name: budget for budget in experiment.budgets}
    if name is not None and name not in budgets:
        raise UsageError(f"--budget {name}: no such budget in '{experiment.name}'; there are {', '.join(budgets)}")
    return budgets[name] if name else experiment.budgets[0]


def show_comparison(record: ComparisonRecord) -> None:
    """A row per winner; costs in CPU seconds, `-` for what a method does without.

    On a GPU costs are wall time; so are, marked, those of stages that earlier versions ran without counting.
    """
    from deploy.ship.differences import difference_text

    on_cpu, teacher = record.machine.device == "cpu", record.teacher
    rows = [("teacher", *_figures([teacher.int8], teacher.size_bits, teacher.latency_us), "", *[""] * len(COSTS))]
    for row in record.methods:
        figures = _figures(row.int8, row.size_bits, row.predicted_us)
        if row.latency_share:
            figures = (*figures[:2], f"{row.latency_share.value:.1%} measured")
        rows.append(
            (row.method, *figures, str(row.evaluated), *(_seconds(row.spent.get(cost), on_cpu) for cost in COSTS))
        )
    columns = ("method", f"{record.metric} INT8 %", "weights kB", "table ms", "evaluated")
    console.table((*columns, *(f"{cost} s" for cost in COSTS)), rows)
    for row in record.methods:
        console.say(f"  {row.method}: {row.subnet}")
        for other, difference in row.against.items():
            console.say(f"  {row.method}: {difference_text(difference, other)}")
    _show_random(record)
    budget = record.budget
    limits = {"latency": budget.latency, "size": budget.size}
    shares = ", ".join(f"{q} {share:.0%} of the teacher's" for q, share in limits.items() if share is not None)
    console.say(
        f"budget {budget.name}: {shares}; costs in {'CPU' if on_cpu else 'GPU'} seconds; "
        f"the latency table took {record.board_seconds:.0f} s of the board, for all methods"
    )


def _show_random(record: ComparisonRecord) -> None:
    """Random architectures count by their mean; the best of them is what luck gives."""
    scores = [sum(row.int8) / len(row.int8) for row in record.methods if row.method == "random_blocks"]
    if scores:
        console.say(
            f"  random_blocks: {record.metric} INT8 {sum(scores) / len(scores):.2f} % in the mean, "
            f"{max(scores):.2f} % the best of {len(scores)}"
        )


def _figures(scores: Sequence[float], size_bits: float, latency_us: float | None) -> tuple[str, str, str]:
    latency = "-" if latency_us is None else f"{latency_us / 1000:.3f}"
    several = f" ({min(scores):.2f} - {max(scores):.2f})" if len(scores) > 1 else ""
    return f"{sum(scores) / len(scores):.2f}{several}", f"{size_bits / 8000:.1f}", latency


def _seconds(spent: Spent | None, on_cpu: bool) -> str:
    if spent is None:
        return "-"
    if not on_cpu:
        return f"{spent.wall_s:.2f}"
    return f"{spent.wall_s:.2f} wall" if spent.cpu_s is None else f"{spent.cpu_s:.2f}"
