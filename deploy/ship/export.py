"""A bundle of any model of a finished run."""

from __future__ import annotations

from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.run.records import ModelRecord, Summary
from deploy.ship.bundle import Contents, export
from deploy.ship.card import CardFacts, evaluations_in
from deploy.ship.manifest import Accuracy, BundleMeasurement, Manifest
from deploy.ship.provenance import CONFIGURATION, SPACE, Provenance
from hil.errors import UsageError
from nas.space import Architecture


def export_from_run(run: Path, model: str | None, out: Path) -> Path:
    """A bundle of one of a finished run's models, in `out`; None: of the model that the run shipped."""
    summary = Summary.read(run / Summary.FILE)
    name = model or summary.bundle.model
    by_name = {m.name: m for m in summary.all_models}
    if name not in by_name:
        raise UsageError(f"{run}: no model '{name}'; there are {', '.join(by_name)}")
    record, artifact = by_name[name], Artifact.at(run / "models", name)
    if not artifact.exists:
        raise UsageError(f"{artifact.model}: missing; run the loop again, it makes what is missing")
    if record.subnet != "teacher":
        Architecture.parse(record.subnet)
    shipped = run / "bundle"
    labels = (shipped / Manifest.read(shipped / Manifest.FILE).labels).read_text(encoding="utf8").split("\n")[:-1]
    metric, data, on = summary.metric.name, summary.data.spec, summary.conditions.board
    accuracy = Accuracy(metric, data, "val", record.score_fp32, record.score_int8, on, record.board)
    facts = {
        "subnet": record.subnet,
        "data": data,
        **accuracy.facts(),
        "size": f"{record.size_bits / 8000:.1f} kB of weights",
    }
    measurement = BundleMeasurement(record.latency_us, summary.conditions)
    if name == summary.bundle.model:
        measurement = BundleMeasurement.read(shipped / BundleMeasurement.FILE)
    card = _card(run, summary, record)
    contents = Contents(f"{summary.name}-{name}", artifact, summary.task, labels, measurement, facts, accuracy, card)
    return export(contents, out)


def _card(run: Path, summary: Summary, record: ModelRecord) -> CardFacts | None:
    """None of a run that shipped without one."""
    shipped = run / "bundle"
    if not (shipped / Provenance.FILE).is_file():
        return None
    others = (model for model in (summary.teacher, summary.teacher_plus) if model.name != record.name)
    models = (record, *others)
    return CardFacts(
        summary.metric.name,
        models,
        tuple(verdict for verdict in summary.budgets if verdict.name == record.name),
        evaluations_in(run, [model.name for model in models]),
        Provenance.read(shipped / Provenance.FILE),
        {name: (shipped / name).read_text(encoding="utf8") for name in (CONFIGURATION, SPACE)},
    )
