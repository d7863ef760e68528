"""summary.json, from the records of a finished run's stages."""

from __future__ import annotations

from deploy.run.context import Context
from deploy.run.records import (
    AgreementRecord,
    AgreementSummary,
    DataSummary,
    FinalRecord,
    MetricRecord,
    ProfileRecord,
    SearchRecord,
    SpaceSummary,
    SubnetCounts,
    Summary,
)


def summarize_run(context: Context) -> Summary:
    """Write summary.json; cheap, so it is written every time."""
    agreed = AgreementRecord.read(context.path / AgreementRecord.FILE)
    searched = SearchRecord.read(context.path / SearchRecord.FILE)
    summary = _summary(context, agreed, searched)
    summary.write(context.path / Summary.FILE)
    return summary


def _summary(context: Context, agreed: AgreementRecord, searched: SearchRecord) -> Summary:
    final = FinalRecord.read(context.path / FinalRecord.FILE)
    profiled = ProfileRecord.read(context.path / ProfileRecord.FILE)
    experiment, space, ranks, seconds = context.experiment, context.space, agreed.agreement, context.run.seconds
    teacher, *models = final.models
    classes = len(context.val_data.classes)
    return Summary(
        name=experiment.name,
        data=DataSummary(
            experiment.data.name, experiment.data.size, classes, len(context.train_data), len(context.val_data)
        ),
        task=context.task.name,
        metric=MetricRecord(context.task.metric, context.task.key),
        space=SpaceSummary(space.name, space.digest, space.count()),
        teacher=teacher,
        teacher_plus=final.teacher_plus,
        models=tuple(models),
        budgets=final.budgets,
        agreement=AgreementSummary(ranks.tau_b, ranks.ci95, ranks.n_models, ranks.spearman, ranks.ceiling_tau_b),
        correction=agreed.correction,
        gate=searched.gate,
        counts=SubnetCounts(profiled.compiled, profiled.measured, profiled.exact_parity),
        bundle=final.bundle,
        conditions=final.conditions,
        seconds={**seconds, "total": round(sum(seconds.values()), 2)},
        missed=searched.missed,
    )
