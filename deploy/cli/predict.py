"""`hilnas predict`: the accuracy predictor of a run, fitted and shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from deploy.cli import console
from deploy.formats.files import read_json
from deploy.latency.gate import check_threshold
from deploy.pipeline.loop import loop
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.search.predictor import predict
from nas.engine.open import open_engine

WAYS = {"nsr_sum": "NSR sum", "order_1": "ridge, first order", "order_2": "ridge, second order"}


def run(arguments: argparse.Namespace, config: Path) -> int:
    """Run the loop up to the search where that is not done, fine-tune, fit, show; the exit code."""
    engine = open_engine(arguments.engine, arguments.workers)
    experiment, space = load_experiment(config, Overrides.of(arguments))
    if arguments.models is not None:
        experiment = replace(experiment, predictor=replace(experiment.predictor, models=arguments.models))
    with Run(arguments.runs_dir / experiment.name) as folder:
        context = Context(experiment, space, folder, arguments.boards, engine, tau=check_threshold(arguments.tau))
        with console.progress() as show:
            for done in loop(context, "search"):
                show(done)
            for done in predict(context):
                show(done)
    result = folder.path / "predictor.json"
    record = read_json(result)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        show_predictor(record)
        console.say(f"written to {result}")
    return 0


def show_predictor(record: Mapping[str, Any]) -> None:
    """How each way ranks the models left out, and what the predictor finds."""
    table = RichTable()
    for column in ("ranked by", "tau-b", "95 % interval", "Spearman", "95 % interval", "error, points"):
        table.add_column(column, justify="left" if column == "ranked by" else "right")
    for way, name in WAYS.items():
        rank = record["rank"][way]
        error = f"{rank['rms_error']:.2f}" if "rms_error" in rank else ""
        shown = (f"{rank['tau_b']:.3f}", _interval(rank["tau_b_ci95"]), f"{rank['spearman']:.3f}")
        table.add_row(name, *shown, _interval(rank["spearman_ci95"]), error)
    console.out.print(table)
    scores = [model["score"] for model in record["models"]]
    console.say(
        f"{len(scores)} models of {min(scores):.2f} to {max(scores):.2f} % {record['metric']} (INT8) after "
        f"{record['schedule']['steps']} steps; their mean errs by {record['rms_error_of_the_mean']:.2f} points"
    )
    for entry in record["found"]:
        plain = entry["least_nsr"]
        console.say(f"{entry['name']}: {entry['subnet']} predicted {entry['predicted']:.2f} %, NSR {entry['nsr']:.4f}")
        same = entry["subnet"] == plain["subnet"]
        rival = "the least NSR finds the same" if same else f"the least NSR: {plain['subnet']}"
        console.say(f"  {rival}, predicted {plain['predicted']:.2f} %, NSR {plain['nsr']:.4f}")


def _interval(ends: list[float]) -> str:
    return f"{ends[0]:.3f} - {ends[1]:.3f}"
