"""Which way to rank architectures agrees with what they are once they are retrained?

Architectures from all over the space are retrained by the run's recipe, several times with other seeds, and evaluated
as the deployed integers on the validation images. Each way to rank them is held to that, and so is one retraining to
another. Trainings, divergences and tables are those of `deploy.search`: killed at any moment, the study goes on.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from deploy.latency.agreement import stratified
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.models import quantized
from deploy.run.settings.search import EstimateName
from deploy.search.candidate import Candidate
from deploy.search.estimates import SPLIT_HALF, WEIGHTED_NSR, estimate_table
from deploy.search.fine_tuning import FineTuned, TrainingPlan, brief, fine_tunings, finished
from deploy.search.predictor import ORDERS, gain, rank_agreement
from deploy.search.predictor_record import PredictorRank
from deploy.search.ranking import divergences
from deploy.studies.ranking_record import RankingRecord, RetrainedModel
from hil.errors import UsageError
from nas.search.front import exact_front
from nas.search.predict import NsrFeatures, held_out
from nas.space import Architecture, SearchSpace
from nas.table import Table

Vector = NDArray[np.float64]
FEWEST = 5  # each is predicted by the others
PLAIN = "nsr"
STAGE = "ranking"


def check_counts(models: int, retrainings: int, steps: int | None) -> None:
    """Raises `UsageError` for too few: before the loop, not after it."""
    if steps is not None and steps < 1:
        raise UsageError(f"--steps {steps}: give 1 or more")
    if models < FEWEST or retrainings < 1:
        raise UsageError(
            f"--models {models} --retrainings {retrainings}: give at least {FEWEST} models and 1 retraining"
        )


def ranking(
    context: Context, models: int, retrainings: int, steps: int | None = None, bits: Sequence[int] | None = None
) -> Iterator[Progress]:
    """Retrain, rank, compare: ranking.json in the run's folder. Needs the tables stage.

    `steps`: of a retraining; None: the recipe's. `bits`: the widths that the models' blocks have; None: the space's.

    Raises `CheckFailed` where all turn out equal, `UsageError` for a width that the space has not.
    """
    experiment, seed = context.experiment, context.experiment.seed
    tables = {name: Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "size", WEIGHTED_NSR)}
    architectures = spread(context.space, tables, models, seed, bits)
    recipe = experiment.retrain if steps is None else replace(experiment.retrain, steps=steps)
    shorter = brief(
        replace(experiment, retrain=recipe), experiment.search.finalist_schedule
    )  # as finalists are trained
    ways = yield from _ways(context, tables, architectures, TrainingPlan(shorter))
    plans = [TrainingPlan(recipe.schedule, final=True, number=number) for number in range(retrainings)]
    retrained = []
    for plan in plans:
        retrained.append((yield from _trained(context, plan, architectures, f"retraining {plan.number + 1}")))
    scores = np.array([[one.score for one in found.values()] for found in retrained])  # (retrainings, models)
    mean = scores.mean(axis=0)
    RankingRecord(
        metric=context.task.metric,
        schedule=recipe.schedule,
        brief=shorter,
        evaluation_images=experiment.quantization.evaluation_images,
        split_half_tau_b=tuple(tables["nsr"].provenance[SPLIT_HALF]),
        rank={name: _rank(name, predicted, ways[PLAIN], mean, seed) for name, predicted in ways.items()},
        models=tuple(
            RetrainedModel(
                str(architecture),
                tuple(scores[:, i].tolist()),
                {name: float(predicted[i]) for name, predicted in ways.items()},
                sum(found[architecture].seconds for found in retrained),
            )
            for i, architecture in enumerate(architectures)
        ),
        noise_ceiling=rank_agreement(scores[0], scores[1], seed) if retrainings > 1 else None,
    ).write(context.path / RankingRecord.FILE)


def of_bits(space: SearchSpace, bits: Sequence[int] | None) -> SearchSpace:
    """The space with some of its widths. Raises `UsageError` for another width."""
    if bits is None:
        return space
    if unknown := [width for width in bits if width not in space.bits]:
        raise UsageError(f"--bits {unknown[0]}: give widths of space '{space.name}': {', '.join(map(str, space.bits))}")
    return replace(space, bits=tuple(width for width in space.bits if width in bits))


def spread(
    space: SearchSpace, tables: Mapping[str, Table], count: int, seed: int, bits: Sequence[int] | None = None
) -> list[Architecture]:
    """Half evenly along the exact front of NSR and size, half from all quantiles of uniform ones' NSR sums."""
    nsr, narrowed = tables["nsr"], of_bits(space, bits)
    front = exact_front(space, [nsr, tables["size"]], lambda subnet: subnet.bits in narrowed.bits).architectures
    places = np.linspace(0, len(front) - 1, min(len(front), (count + 1) // 2)).round().astype(int)
    chosen = dict.fromkeys(front[place] for place in places.tolist())
    uniform = stratified(narrowed, nsr, count, random.Random(f"{seed}/ranking"))
    left = [architecture for architecture in uniform if architecture not in chosen]
    return [*chosen, *left[: count - len(chosen)]]


def _ways(
    context: Context, tables: Mapping[str, Table], architectures: Sequence[Architecture], brief_plan: TrainingPlan
) -> Generator[Progress, None, dict[str, Vector]]:
    """What each way says of the architectures, (n,), more being better."""
    ways: dict[str, Vector] = {}
    graphs = []
    for i, architecture in enumerate(architectures):
        graphs.append(quantized(context, architecture))
        yield Progress(STAGE, i + 1, len(architectures), f"size of {architecture}")
    ways["size"] = np.array([float(graph.size_bits) for graph in graphs])
    ways["macs"] = np.array([float(graph.macs) for graph in graphs])
    for name in get_args(EstimateName):
        table = estimate_table(tables, name)
        ways[name] = -np.array([table.total(architecture) for architecture in architectures])
    found = yield from divergences(context, [Candidate(architecture, None, 0.0) for architecture in architectures])
    ways["divergence"] = -np.array([candidate.estimate for candidate in found])
    tuned = yield from _trained(context, brief_plan, architectures, "fine-tuning")
    ways["fine_tuning"] = np.array([one.score for one in tuned.values()])
    features = NsrFeatures.of(context.space, tables["nsr"])
    for order in ORDERS:
        ways[f"predictor_{order}"] = held_out(features.design(architectures, order), ways["fine_tuning"])
    return ways


def _trained(
    context: Context, plan: TrainingPlan, architectures: Sequence[Architecture], text: str
) -> Generator[Progress, None, dict[Architecture, FineTuned]]:
    before = len(finished(context, plan, architectures))
    for i, one in enumerate(fine_tunings(context, plan, architectures), start=before + 1):
        yield Progress(STAGE, i, len(architectures), f"{text}: {one.score:.2f} % {one.subnet}")
    return finished(context, plan, architectures)


def _rank(name: str, predicted: Vector, plain: Vector, actual: Vector, seed: int) -> PredictorRank:
    beside = None if name == PLAIN else gain(predicted, plain, actual, seed)
    return PredictorRank(**vars(rank_agreement(predicted, actual, seed)), tau_b_gain_ci95=beside)


WORDS = {
    "size": "size",
    "macs": "multiply-accumulates",
    "nsr": "NSR sum",
    "channels": "NSR sum, channels weighted",
    "blocks": "NSR sum, blocks weighted",
    "weighted": "NSR sum, channels and blocks weighted",
    "divergence": "divergence from the teacher",
    "fine_tuning": "brief fine-tuning, held-out images",
    "predictor_1": "ridge on fine-tunings, order 1, held out",
    "predictor_2": "ridge on fine-tunings, order 2, held out",
}


def ranking_rows(record: RankingRecord) -> Iterator[str]:
    """A Markdown table, the best way first."""
    yield "| ranked by | tau-b [95 %] | less that of the NSR sum [95 %] | Spearman [95 %] |"
    yield "|---|---|---|---|"
    for name, rank in sorted(record.rank.items(), key=lambda item: -item[1].tau_b):
        beside = "" if rank.tau_b_gain_ci95 is None else _interval(rank.tau_b_gain_ci95)
        tau, rho = _tau(rank.tau_b, rank.tau_b_ci95), _tau(rank.spearman, rank.spearman_ci95)
        yield f"| {WORDS[name]} | {tau} | {beside} | {rho} |"
    if ceiling := record.noise_ceiling:
        tau, rho = _tau(ceiling.tau_b, ceiling.tau_b_ci95), _tau(ceiling.spearman, ceiling.spearman_ci95)
        yield f"| one retraining against another (noise ceiling) | {tau} | | {rho} |"
    yield ""
    scores = [float(np.mean(model.scores)) for model in record.models]
    halves = " ".join(f"{tau:.2f}" for tau in record.split_half_tau_b)
    yield (
        f"{len(scores)} models of {min(scores):.2f} to {max(scores):.2f} % INT8 {record.metric}, each the mean of "
        f"{len(record.models[0].scores)} retrainings of {record.schedule.steps} steps (fine-tunings: "
        f"{record.brief.steps}); split-half tau-b of the NSRs by block, {record.evaluation_images} images: {halves}"
    )


def _tau(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} {_interval(interval)}"


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]"
