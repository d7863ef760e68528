"""`hilnas predict`: the accuracy predictor of a run, fitted and shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, add_tau, open_run

if TYPE_CHECKING:
    from deploy.run.config import Experiment
    from deploy.search.predictor_record import PredictorRecord

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
            "block NSRs predict held-out models, against their plain sum, and what does the predictor select under the "
            "budgets? What is done is not done again; settings are [predictor] of the configuration.",
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
    from deploy.pipeline.loop import loop
    from deploy.search.predictor import predict
    from deploy.search.predictor_record import PredictorRecord

    with open_run(options, change=options.changed) as context:
        console.follow(loop(context, "search"))
        console.follow(predict(context))
        path = context.path / PredictorRecord.FILE
    record = PredictorRecord.read(path)
    if options.json:
        console.say_json(record.to_json())
    else:
        show_predictor(record)
        console.say(f"written to {path}")
    return 0


def show_predictor(record: PredictorRecord) -> None:
    """How each way ranks held-out models, and what the predictor selects."""
    rows = []
    for way, name in WAYS.items():
        rank = record.rank[way]
        error = "" if rank.rms_error is None else f"{rank.rms_error:.2f}"
        tau_b = (f"{rank.tau_b:.3f}", _interval(rank.tau_b_ci95))
        rows.append((name, *tau_b, f"{rank.spearman:.3f}", _interval(rank.spearman_ci95), error))
    console.table(("ranked by", "tau-b", "95 % interval", "Spearman", "95 % interval", "error, points"), rows)
    scores = [model.score for model in record.models]
    console.say(
        f"{len(scores)} models of {min(scores):.2f} to {max(scores):.2f} % {record.metric} (INT8) after "
        f"{record.schedule.steps} steps; the error of their mean is {record.rms_error_of_the_mean:.2f} points"
    )
    for model in record.selected or ():
        plain = model.least_nsr
        console.say(f"{model.name}: {model.subnet} predicted {model.predicted:.2f} %, NSR {model.nsr:.4f}")
        same = model.subnet == plain.subnet
        least = "the least NSR selects the same" if same else f"the least NSR: {plain.subnet}"
        console.say(f"  {least}, predicted {plain.predicted:.2f} %, NSR {plain.nsr:.4f}")


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.3f} - {high:.3f}"
