"""The accuracy predictor of a run: fine-tune, fit, evaluate how it ranks what it has not seen, and search with it.

What it is: `nas.search.predict`. Every correlation is of held-out models: their accuracy chose neither the weights nor
the ridge's strength. The NSR sum, which is fitted to nothing, stands beside it on the same models.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.settings.deployment import Budget
from deploy.search.cost_tables import cost_tables_of_run
from deploy.search.fine_tuning import FineTuned, TrainingPlan, brief, fine_tunings, finished, key_of, sampled
from deploy.search.predictor_record import (
    FineTunedModel,
    PredictedModel,
    PredictorRank,
    PredictorRecord,
    PredictorSelection,
    RankAgreement,
    RidgeWeights,
)
from hil.errors import CheckFailed
from hil.stats import bootstrap_ci
from nas.search.candidates import Limits, candidates
from nas.search.k_best import k_best
from nas.search.predict import AccuracyPredictor, NsrFeatures, Order, held_out, search
from nas.search.union import CostTables
from nas.space import Architecture
from nas.table import Table

Vector = NDArray[np.float64]
ORDERS: tuple[Order, ...] = (1, 2)
NSR_SUM = "nsr_sum"


def rank_coefficients(a: Vector, b: Vector) -> tuple[float, float]:
    """(tau-b, Spearman); NaN where one of the two is constant.

    Not SciPy's, which finds p-values too: thousands of resamples would take minutes.
    """
    from scipy.stats import rankdata

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    of_a, of_b = (np.sign(x[:, None] - x) for x in (a, b))
    tau = (of_a * of_b).sum() / np.sqrt(np.square(of_a).sum() * np.square(of_b).sum())
    return float(tau), float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def rank_agreement(predicted: Vector, actual: Vector, seed: int) -> RankAgreement:
    """How `predicted` ranks the models (n,) that turned out `actual`; `CheckFailed` where all are equal."""
    if np.ptp(actual) == 0 or np.ptp(predicted) == 0:
        raise CheckFailed(
            f"all {len(actual)} models are equally good, so nothing ranks them; "
            "give their training more steps, or the images that they are scored on more samples"
        )
    tau, rho = rank_coefficients(predicted, actual)

    def of_resampled(which: int) -> tuple[float, float]:
        return bootstrap_ci(lambda i: rank_coefficients(predicted[i], actual[i])[which], len(actual), seed=seed)

    return RankAgreement(tau, of_resampled(0), rho, of_resampled(1))


def gain(predicted: Vector, baseline: Vector, actual: Vector, seed: int) -> tuple[float, float]:
    """The 95 % interval of tau-b(predicted) - tau-b(baseline), both on the same resampled models."""

    def difference(i: NDArray[np.intp]) -> float:
        return rank_coefficients(predicted[i], actual[i])[0] - rank_coefficients(baseline[i], actual[i])[0]

    return bootstrap_ci(difference, len(actual), seed=seed)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The fine-tuned models and what is predicted of them, (n,) each.

    Attributes:
        architectures: n of them.
        scores: that they turned out to have.
        nsr_sums: over their blocks.
        held_out: by order, the scores that a predictor fitted on the other models expects.
    """

    architectures: Sequence[Architecture]
    scores: Vector
    nsr_sums: Vector
    held_out: Mapping[Order, Vector]

    @classmethod
    def of(cls, features: NsrFeatures, nsr: Table, models: Mapping[Architecture, FineTuned]) -> Evidence:
        architectures = list(models)
        scores = np.array([model.score for model in models.values()])
        left_out = {order: held_out(features.design(architectures, order), scores) for order in ORDERS}
        return cls(architectures, scores, np.array([nsr.total(a) for a in architectures]), left_out)

    def ranks(self, seed: int) -> dict[str, PredictorRank]:
        """How each way ranks; the sums with their sign turned, so that more is better everywhere."""
        plain = -self.nsr_sums
        ranks = {NSR_SUM: PredictorRank(**vars(rank_agreement(plain, self.scores, seed)))}
        for order, predicted in self.held_out.items():
            ranks[f"order_{order}"] = PredictorRank(
                **vars(rank_agreement(predicted, self.scores, seed)),
                tau_b_gain_ci95=gain(predicted, plain, self.scores, seed),
                rms_error=_rms(predicted - self.scores),
            )
        return ranks

    def rms_of_the_mean(self) -> float:
        """The error of the simplest prediction, the others' mean: what `rms_error` has to beat."""
        n = len(self.scores)
        return _rms((self.scores - self.scores.mean()) * n / (n - 1))


def _rms(errors: Vector) -> float:
    return float(np.sqrt(np.square(errors).mean()))


@dataclass(frozen=True, eq=False)
class Fitted:
    """The predictors of both orders, and what speaks for them."""

    predictors: Mapping[Order, AccuracyPredictor]
    evidence: Evidence
    models: Sequence[FineTuned]

    def search(self, context: Context, costs: Sequence[Table], limits: Limits) -> tuple[Architecture, float]:
        """The best architecture within `limits` by the configured order, and its expected score."""
        return self.ranked(context, costs, limits, 1)[0]

    def ranked(
        self, context: Context, costs: Sequence[Table], limits: Limits, count: int
    ) -> list[tuple[Architecture, float]]:
        """The best `count`, of the neighbours that are ranked."""
        settings = context.experiment.predictor
        pair = self.predictors[1], self.predictors[settings.order]
        return search(context.space, pair, costs, limits, settings.neighbours)[:count]

    def record(self, context: Context) -> PredictorRecord:
        experiment, evidence = context.experiment, self.evidence
        return PredictorRecord(
            key=key_of(context, plan_of(experiment)),
            metric=context.task.metric,
            order=experiment.predictor.order,
            schedule=plan_of(experiment).schedule,
            rank=evidence.ranks(experiment.seed),
            rms_error_of_the_mean=evidence.rms_of_the_mean(),
            predictors=tuple(RidgeWeights(**predictor.record()) for predictor in self.predictors.values()),
            models=tuple(
                FineTunedModel(
                    **vars(model),
                    nsr=float(evidence.nsr_sums[i]),
                    held_out_1=float(evidence.held_out[1][i]),
                    held_out_2=float(evidence.held_out[2][i]),
                )
                for i, model in enumerate(self.models)
            ),
        )


def plan_of(experiment: Experiment) -> TrainingPlan:
    """How the models are fine-tuned that the predictor is fitted on."""
    return TrainingPlan(brief(experiment, experiment.predictor.schedule))


def fitted(context: Context) -> Generator[Progress, None, Fitted]:
    """Fine-tune what is not done yet, and fit: predictor.json, tables/loss.parquet.

    Needs the tables stage.
    """
    experiment = context.experiment
    nsr, size = (Table.load(context.path / "tables" / f"{name}.parquet") for name in ("nsr", "size"))
    features = NsrFeatures.of(context.space, nsr)
    wanted = sampled(context.space, nsr, size, experiment.predictor.models, experiment.seed)
    plan = plan_of(experiment)
    before = len(finished(context, plan, wanted))
    for i, one in enumerate(fine_tunings(context, plan, wanted), start=before + 1):
        yield Progress("predict", i, len(wanted), f"{one.score:.2f} % {one.subnet}")
    models = finished(context, plan, wanted)
    evidence = Evidence.of(features, nsr, models)
    predictors = {
        order: AccuracyPredictor.fitted(features, evidence.architectures, evidence.scores, order) for order in ORDERS
    }
    predictors[1].table(context.space).save(context.path / "tables" / "loss.parquet")
    fit = Fitted(predictors, evidence, list(models.values()))
    fit.record(context).write(context.path / PredictorRecord.FILE)
    return fit


def predict(context: Context) -> Iterator[Progress]:
    """Fit, then search under every budget: `selected` in predictor.json. Needs a run whose search stage is done."""
    main, *_ = cost_tables_of_run(context.path)
    fit = yield from fitted(context)
    path = context.path / PredictorRecord.FILE
    selected = tuple(_selection(context, main, fit, budget) for budget in context.experiment.budgets)
    replace(PredictorRecord.read(path), selected=selected).write(path)


def _selection(context: Context, tables: CostTables, fit: Fitted, budget: Budget) -> PredictorSelection:
    """What the predictor selects within a budget, beside what the least NSR sum selects there."""
    nsr, shares = tables.tables["nsr"], {"size": budget.size, "latency": budget.latency}
    limits = {q: share * tables.teacher[q] - tables.outside[q] for q, share in shares.items() if share is not None}
    costs = [tables.tables[quantity] for quantity in limits]
    best, score = fit.search(context, costs, limits)
    plain = k_best(candidates(context.space, [nsr, *costs]), limits, 1)[0].architecture
    predicted = float(fit.predictors[context.experiment.predictor.order].predict([plain])[0])
    return PredictorSelection(
        name=budget.name,
        subnet=str(best),
        predicted=score,
        nsr=nsr.total(best),
        size_bits=tables.total("size", best),
        latency_us=tables.total("latency", best),
        least_nsr=PredictedModel(str(plain), predicted, nsr.total(plain)),
    )
