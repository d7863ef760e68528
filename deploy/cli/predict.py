"""`hilnas predict`: the accuracy predictor of a run, fitted and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, add_tau, open_run

if TYPE_CHECKING:
    from deploy.run.config import Experiment

WAYS = {"nsr_sum": "NSR sum", "order_1": "ridge, first order", "order_2": "ridge, second order"}


@dataclass(frozen=True, kw_only=True)
class PredictOptions(RunOptions):
    """`fine_tuned`: how many architectures are fine-tuned; None: as many as the configuration says."""

    fine_tuned: int | None = None

    def changed(self, experiment: Experiment) -> Experiment:
        if self.fine_tuned is None:
            return experiment
        return replace(experiment, predictor=replace(experiment.predictor, models=self.fine_tuned))


def add(commands: Commands) -> None:
    predict = add_run(
        commands.add_parser(
            "predict",
            help="fit an accuracy predictor, search with it",
            description="The loop up to the search, then short fine-tunings of sampled architectures: how well do "
            "block NSRs predict what was left out, against their plain sum, and what does the predictor find under "
            "the budgets? What is done is not done again; settings are [predictor] of the configuration.",
        )
    )
    predict.add_argument(
        "--models",
        dest="fine_tuned",
        type=int,
        metavar="N",
        help="how many to fine-tune (default: the configuration's)",
    )
    add_tau(predict)
    bind(predict, PredictOptions, run)


def run(options: PredictOptions) -> int:
    """Run the loop up to the search where that is not done, fine-tune, fit, show; the exit code."""
    from deploy.formats.files import read_json
    from deploy.pipeline.loop import loop
    from deploy.search.predictor import predict

    with open_run(options, change=options.changed) as context:
        console.follow(loop(context, "search"))
        console.follow(predict(context))
        result = context.path / "predictor.json"
    record = read_json(result)
    if options.json:
        console.say_json(record)
    else:
        show_predictor(record)
        console.say(f"written to {result}")
    return 0


def show_predictor(record: Mapping[str, Any]) -> None:
    """How each way ranks the models left out, and what the predictor finds."""
    rows = []
    for way, name in WAYS.items():
        rank = record["rank"][way]
        error = f"{rank['rms_error']:.2f}" if "rms_error" in rank else ""
        shown = (f"{rank['tau_b']:.3f}", _interval(rank["tau_b_ci95"]), f"{rank['spearman']:.3f}")
        rows.append((name, *shown, _interval(rank["spearman_ci95"]), error))
    console.table(("ranked by", "tau-b", "95 % interval", "Spearman", "95 % interval", "error, points"), rows)
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
