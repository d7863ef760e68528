"""A refined policy as the file that the board runs: evaluated on validation images, measured, bundled, verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.formats.digest import digest
from deploy.formats.tflite.operators import Form
from deploy.latency.table import summaries
from deploy.lcpaq.proxy import deployed
from deploy.lcpaq.records import ProxyRecord, ShippedRecord
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import Subject
from deploy.run.context import protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measured
from deploy.run.records import LatencyRecord
from deploy.ship.bundle import Contents, export
from deploy.ship.golden import golden_examples, write_golden
from deploy.ship.manifest import BundleMeasurement
from deploy.ship.task_output import description
from deploy.ship.verification import verify
from hil.boards.kinds import open_board
from hil.measurement import Conditions
from hil.stats import LatencySummary
from nas.lcpaq.policy import INT8, Policy
from nas.quant.integer_graph import IntegerGraph
from nas.tasks.task import score_float, score_integer


def ship(subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """shipped.json and bundle/: policy.json's network, as `hilnas loop` ships its models."""
    context, policy = subject.context, subject.policy()
    proxied = ProxyRecord.read(subject.folder / ProxyRecord.FILE)
    boards = map(settings_of, context.boards)
    key = digest(subject.key, str(policy), asdict(proxied.best), settings.tuning_steps, *boards)
    if ShippedRecord.current(subject.folder, key):
        return
    (quantized_by, graph), data = deployed(subject, settings), context.val_data
    int8 = score_integer(graph, data)
    all_8_bits = subject.graph(Policy(dict.fromkeys(policy.bits, INT8)))
    fp32, int8_all8 = score_float(subject.model, data), score_integer(all_8_bits, data)
    yield Progress("lcpaq ship", 1, 3, "evaluated")
    artifact = save_model(
        graph,
        context.evaluation[:1],
        Artifact.at(subject.folder / "models", f"lcpaq-{subject.name}"),
        model_metadata(graph, str(subject.architecture or subject.name), subject.key, policy=str(policy)),
        context.target,
        tail=context.tail,
        described=description(f"lcpaq-{subject.name}", context.task.name, data.classes, subject.key),
    )
    examples = golden_examples(data, context.experiment.deploy.golden_images)
    write_golden(artifact.model, graph, examples, form=Form(), arithmetic=context.arithmetic)
    measurements = list(measured(context, [artifact.job()], protocol(context.experiment.agreement.measuring)))
    latency, conditions = summaries(measurements)[artifact.name], measurements[0].conditions
    yield Progress("lcpaq ship", 2, 3, "measured")
    facts = {"policy": str(policy), "quantized by": quantized_by, **_facts(subject, graph, int8, latency, conditions)}
    bundle = export(
        _contents(subject, artifact, LatencyRecord.of(latency, measurements), conditions, facts),
        subject.folder / "bundle",
    )
    with open_board(context.board) as board:
        verify(bundle, board)
    record = ShippedRecord(
        key=key,
        quantized_by=quantized_by,
        metric=context.task.metric,
        fp32=fp32,
        int8=int8,
        int8_all8=int8_all8,
        size_bits=graph.size_bits,
        latency=latency,
        conditions=conditions,
        bundle=str(bundle),
        verified=True,
    )
    record.write(subject.folder / record.FILE)
    yield Progress("lcpaq ship", 3, 3, "bundle verified")


def _facts(
    subject: Subject, graph: IntegerGraph, int8: float, latency: LatencySummary, conditions: Conditions
) -> dict[str, str]:
    """What the bundle's README says of the model."""
    return {
        "data": subject.context.experiment.data.name,
        f"{subject.context.task.metric} (INT8, validation)": f"{int8:.2f} %",
        "size": f"{graph.size_bits / 8000:.1f} kB of weights",
        "latency": f"{latency.median_us / 1000:.3f} ms median on {conditions.board}",
    }


def _contents(
    subject: Subject, artifact: Artifact, latency: LatencyRecord, conditions: Conditions, facts: dict[str, str]
) -> Contents:
    context = subject.context
    return Contents(
        f"{context.experiment.name}-lcpaq-{subject.name}",
        artifact,
        context.task.name,
        context.val_data.classes,
        BundleMeasurement(latency, conditions),
        facts,
    )
