"""A refined policy as the file that the board runs: evaluated on validation images, measured, bundled, verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.formats.digest import digest
from deploy.formats.tflite.operators import Form
from deploy.latency.table import summaries
from deploy.lcpaq.card import DeployedNetwork, card_facts
from deploy.lcpaq.proxy import deployed
from deploy.lcpaq.records import ProxyRecord, ShippedRecord
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import kept_policy
from deploy.run.context import protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measured
from deploy.run.records import LatencyRecord
from deploy.ship.board_scores import board_scores
from deploy.ship.bundle import Contents, export
from deploy.ship.card import CardFacts
from deploy.ship.evaluation_record import EvaluationRecord, evaluation_path
from deploy.ship.golden import golden_examples, write_golden
from deploy.ship.manifest import Accuracy, BundleMeasurement
from deploy.ship.task_output import description
from deploy.ship.verification import verify
from hil.boards.kinds import open_board
from nas.lcpaq.policy import INT8, Policy
from nas.quant.integer_graph import IntegerGraph
from nas.tasks.task import counted_integer, score_float

STAGE = "lcpaq ship"
STEPS = 5  # evaluated, measured, two networks scored on the board, verified


def ship(subject: RunNetwork, settings: StepSettings) -> Iterator[Progress]:
    """shipped.json and bundle/: policy.json's network, as `hilnas loop` ships its models."""
    context, policy = subject.context, kept_policy(subject)
    proxied = ProxyRecord.read(subject.folder / ProxyRecord.FILE)
    boards = map(settings_of, context.boards)
    given = ["given"] if settings.nothing_to_search else []
    key = digest(subject.key, str(policy), asdict(proxied.best), settings.tuning_steps, *boards, *given)
    if ShippedRecord.current(subject.folder, key):
        return
    (quantized_by, graph), name = deployed(subject, settings), f"lcpaq-{subject.name}"
    all_8_bits = Policy(dict.fromkeys(policy.bits, INT8))
    ours = _compiled(subject, name, graph, policy)
    theirs = _compiled(subject, f"{name}-8-bits", subject.graph(all_8_bits), all_8_bits)
    fp32 = score_float(subject.model, context.val_data)
    yield Progress(STAGE, 1, STEPS, "evaluated")
    examples = golden_examples(context.val_data, context.experiment.deploy.golden_images)
    write_golden(ours.artifact.model, graph, examples, form=Form(), arithmetic=context.arithmetic)
    networks = (ours, theirs)
    jobs = [network.artifact.job() for network in networks]
    measurements = list(measured(context, jobs, protocol(context.experiment.agreement.measuring), together=True))
    latencies, conditions = summaries(measurements), measurements[0].conditions
    yield Progress(STAGE, 2, STEPS, "measured")
    files = {network.name: (network.artifact.model, network.int8) for network in networks}
    scores = yield from board_scores(context, files, 2, STAGE)
    records = [
        network.record(
            subject,
            fp32,
            LatencyRecord.of(latencies[network.name], [m for m in measurements if m.model == network.name]),
            scores.get(network.name),
        )
        for network in networks
    ]
    samples = tuple(m.latencies_us for m in measurements if m.model == name)
    card = card_facts(subject, settings, networks, records, key)
    measurement = BundleMeasurement(records[0].latency_us, conditions, samples)
    bundle = export(
        _contents(subject, ours.artifact, measurement, quantized_by, card),
        subject.folder / "bundle",
    )
    with open_board(context.board) as board:
        verify(bundle, board)
    shipped = ShippedRecord(
        key=key,
        quantized_by=quantized_by,
        metric=context.task.metric,
        fp32=fp32,
        int8=ours.int8.score,
        int8_all8=theirs.int8.score,
        size_bits=graph.size_bits,
        latency=latencies[name],
        conditions=conditions,
        bundle=str(bundle),
        verified=True,
        evaluation=EvaluationRecord.read(evaluation_path(context.path, name)).key if scores else None,
    )
    shipped.write(subject.folder / shipped.FILE)
    yield Progress(STAGE, STEPS, STEPS, "bundle verified")


def _compiled(subject: RunNetwork, name: str, graph: IntegerGraph, policy: Policy) -> DeployedNetwork:
    context = subject.context
    artifact = save_model(
        graph,
        context.evaluation[:1],
        Artifact.at(subject.folder / "models", name),
        model_metadata(graph, str(subject.architecture or subject.name), subject.key, policy=str(policy)),
        context.target,
        tail=context.tail,
        described=description(name, context.task.name, context.val_data.classes, subject.key),
    )
    return DeployedNetwork(artifact, graph, counted_integer(graph, context.val_data))


def _contents(
    subject: RunNetwork, artifact: Artifact, measurement: BundleMeasurement, quantized_by: str, card: CardFacts
) -> Contents:
    context, record = subject.context, card.models[0]
    data, board = context.experiment.data, measurement.conditions.board
    accuracy = Accuracy(
        context.task.metric, data.name, "val", record.score_fp32, record.score_int8, board, record.board
    )
    facts = {
        "policy": str(kept_policy(subject)),
        "quantized by": quantized_by,
        "data": data.name,
        **accuracy.facts(),
        "size": f"{record.size_bits / 8000:.1f} kB of weights",
        "latency": f"{record.latency_us.median / 1000:.3f} ms median on {board}",
    }
    return Contents(
        f"{context.experiment.name}-{artifact.name}",
        artifact,
        context.task.name,
        context.val_data.classes,
        measurement,
        facts,
        accuracy,
        card,
    )
