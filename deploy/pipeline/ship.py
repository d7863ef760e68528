"""The last stage: evaluate the final networks on the validation images and on the board, bundle the best.

The validation images are for the report: what is bundled is chosen on held-out training images.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deploy.compile.artifact import Artifact, ReadBack, kernels_of, model_metadata, read_back, save_model
from deploy.compile.scheme import QuantizationScheme
from deploy.latency.shares import MORE_ROUNDS, enough_rounds, latency_shares
from deploy.latency.table import summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import (
    BoardScore,
    BudgetVerdict,
    BundleRecord,
    FinalRecord,
    LatencyRecord,
    ModelRecord,
    PlacementRecord,
    SearchRecord,
    plain,
)
from deploy.run.records.search import SelectedModel
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from deploy.ship.board_scores import board_scores
from deploy.ship.budgets import verdicts
from deploy.ship.bundle import Contents, export
from deploy.ship.card import CardFacts, evaluations_in
from deploy.ship.golden import golden_examples, write_golden
from deploy.ship.manifest import Accuracy, BundleMeasurement
from deploy.ship.provenance import configuration, provenance_of
from deploy.ship.task_output import description
from deploy.ship.verification import verify
from hil.boards.kinds import open_board
from hil.measurement import Measurement
from nas.estimate import Estimate
from nas.networks.segmenter import Encoder
from nas.tasks.counted import Counted, paired_difference
from nas.tasks.task import counted_integer, score_float, score_integer


@dataclass(frozen=True)
class Final:
    """A network before it is measured: scores in percent, size in bits, its scheme where there are several.

    Attributes:
        int8: the INT8 score on the validation images, image by image.
        score_held_out: of a selected model, the INT8 score on held-out training images.
    """

    name: str
    subnet: str
    artifact: Artifact
    score_fp32: float
    int8: Counted
    score_held_out: float | None
    size_bits: int
    macs: int
    predicted_us: float | None
    read_back: ReadBack
    scheme: str | None = None

    def record(
        self, metric: str, latency: LatencyRecord, board: BoardScore | None, against: Estimate | None = None
    ) -> ModelRecord:
        """With its latency and score on the board, the scores' metric, its difference to the teacher trained on."""
        placed = self.read_back.placement
        return ModelRecord(
            name=self.name,
            subnet=self.subnet,
            metric=metric,
            score_fp32=self.score_fp32,
            score_int8=self.int8.score,
            size_bits=self.size_bits,
            requested_bits=self.read_back.requested_bits,
            stored_bits=self.read_back.stored_bits,
            executed_bits=self.read_back.executed_bits,
            placement=PlacementRecord(**asdict(placed)) if placed else None,
            macs=self.macs,
            predicted_us=self.predicted_us,
            latency_us=latency,
            scheme=self.scheme,
            score_held_out=self.score_held_out,
            against_teacher_plus=against,
            board=board,
        )


def _evaluate(context: Context, model: Encoder, name: str, selected: SelectedModel | None = None) -> Final:
    """A selected model, quantized by the scheme that it was selected with; None: the teacher, trained on or not."""
    settings = context.experiment.quantization
    named = selected.scheme if selected else None
    scheme = QuantizationScheme.parse(named) if named else settings.main_scheme
    subnet = selected.subnet if selected else TEACHER
    architecture = selected.architecture if selected else None
    graph = quantize_network(context, model, architecture, scheme=scheme.scheme(settings.scheme))
    kernels = kernels_of(scheme.form, context.arithmetic)
    score_fp32 = score_float(model, context.val_data)
    int8 = counted_integer(graph, context.val_data, kernels)
    artifact = save_model(
        graph,
        context.evaluation[:1],
        Artifact.at(context.path / "models", name),
        model_metadata(graph, subnet, context.keys["ship"], **{f"{context.task.key}_int8": int8.score}),
        context.target,
        form=scheme.form,
        tail=context.tail,
        described=description(  # not by the budget: two may select one network, whose file is measured once
            context.experiment.name, context.task.name, context.val_data.classes, context.keys["ship"]
        ),
    )
    examples = golden_examples(context.val_data, context.experiment.deploy.golden_images)
    write_golden(artifact.model, graph, examples, form=scheme.form, arithmetic=context.arithmetic)
    return Final(
        name,
        subnet,
        artifact,
        score_fp32,
        int8,
        score_integer(graph, context.held_out_data, kernels) if selected else None,
        graph.size_bits,
        graph.macs,
        selected.predicted_us if selected else None,
        read_back(artifact.model, context.target),
        named,
    )


def ship(context: Context) -> Iterator[Progress]:
    """Final INT8 networks: the task's metric, latency side by side, the bundle and its verification: final.json."""
    selected = SearchRecord.read(context.path / SearchRecord.FILE).selected
    total = len(selected) + 2
    teacher = _evaluate(context, context.teacher, TEACHER)
    yield Progress("ship", 1, total, "teacher evaluated")
    teacher_plus = _evaluate(context, retrained(context, TEACHER_PLUS), TEACHER_PLUS)
    yield Progress("ship", 2, total, f"{TEACHER_PLUS} evaluated")
    models: list[Final] = []
    for entry in selected:
        models.append(_evaluate(context, retrained(context, entry.name, entry.architecture), entry.name, entry))
        yield Progress("ship", 2 + len(models), total, f"{entry.name} evaluated")

    measurements, budgets = yield from _measured(context, teacher, teacher_plus, models)
    conditions, latencies = measurements[0].conditions, _latencies(measurements)
    files = {final.name: (final.artifact.model, final.int8) for final in (teacher, teacher_plus, *models)}
    boards = yield from board_scores(context, files, total + len(measurements))
    best = _best(models, budgets, latencies)
    metric = context.task.key
    differences = {model.name: paired_difference([model.int8], [teacher_plus.int8]) for model in models}
    records = {
        final.name: final.record(metric, latencies[final.name], boards.get(final.name), differences.get(final.name))
        for final in (teacher, teacher_plus, *models)
    }
    card = _card(context, best.name, records, budgets)
    samples = tuple(m.latencies_us for m in measurements if m.model == best.name)
    bundle = _bundle(context, best, BundleMeasurement(latencies[best.name], conditions, samples), card)
    with open_board(context.board) as board:
        verified = verify(bundle, board)
    FinalRecord(
        models=tuple(record for record in records.values() if record.name != TEACHER_PLUS),
        teacher_plus=records[TEACHER_PLUS],
        budgets=budgets,
        conditions=conditions,
        bundle=BundleRecord(str(bundle), best.name, True, verified.board, plain(verified.latency_us)),
    ).write(context.path / FinalRecord.FILE)
    ended = total + len(measurements) + len(boards) + 1
    yield Progress("ship", ended, ended, "bundle verified")


def _measured(
    context: Context, teacher: Final, teacher_plus: Final, models: Sequence[Final]
) -> Generator[Progress, None, tuple[list[Measurement], tuple[BudgetVerdict, ...]]]:
    """All final models side by side, and whether the budgets are kept; in more rounds while that is undecided."""
    jobs = [final.artifact.job() for final in (teacher, teacher_plus, *models)]
    settings = enough_rounds(protocol(context.experiment.agreement.measuring))
    most = MORE_ROUNDS * settings.rounds
    while True:
        total = len(jobs) * (1 + settings.rounds) + 1
        measurements = yield from measure_with_progress(
            context, jobs, settings, "ship", done=len(jobs), total=total, together=True
        )
        shares = latency_shares(measurements, TEACHER)
        asked = {budget.name: budget for budget in context.experiment.budgets}
        budgets = tuple(
            verdict
            for model in models
            for verdict in verdicts(asked[model.name], model.size_bits / teacher.size_bits, shares[model.name])
        )
        if all(verdict.decided for verdict in budgets) or settings.rounds >= most:
            return measurements, budgets
        settings = replace(settings, rounds=2 * settings.rounds)


def _latencies(measurements: Sequence[Measurement]) -> dict[str, LatencyRecord]:
    """By model."""
    return {
        name: LatencyRecord.of(latency, [m for m in measurements if m.model == name])
        for name, latency in summaries(measurements).items()
    }


def _best(models: Sequence[Final], budgets: Sequence[BudgetVerdict], latencies: Mapping[str, LatencyRecord]) -> Final:
    """What is bundled: of the models that keep their budgets, if any does, the best on held-out training images."""
    broken = {verdict.name for verdict in budgets if not verdict.kept}
    kept = [model for model in models if model.name not in broken] or models
    return max(kept, key=lambda model: (model.score_held_out or 0.0, -latencies[model.name].median))


def _card(
    context: Context, name: str, records: Mapping[str, ModelRecord], budgets: Sequence[BudgetVerdict]
) -> CardFacts:
    """Of the model that ships, beside the teacher and the teacher trained on."""
    return CardFacts(
        context.task.metric,
        (records[name], records[TEACHER], records[TEACHER_PLUS]),
        tuple(verdict for verdict in budgets if verdict.name == name),
        evaluations_in(context.path, (name, TEACHER, TEACHER_PLUS)),
        provenance_of(context),
        configuration(context.experiment, context.space),
    )


def _bundle(context: Context, final: Final, measurement: BundleMeasurement, card: CardFacts) -> Path:
    metric, (record, *_) = context.task.metric, card.models
    data, conditions = context.experiment.data.name, measurement.conditions
    accuracy = Accuracy(metric, data, "val", final.score_fp32, final.int8.score, conditions.board, record.board)
    facts = {
        "subnet": final.subnet,
        **({"scheme": final.scheme} if final.scheme else {}),
        "data": data,
        **accuracy.facts(),
        "size": f"{final.size_bits / 8000:.1f} kB of weights",
        "latency": f"{measurement.latency_us.median / 1000:.3f} ms median on {conditions.board} "
        f"({conditions.machine}, {conditions.runtime})",
    }
    contents = Contents(
        f"{context.experiment.name}-{final.name}",
        final.artifact,
        context.task.name,
        context.val_data.classes,
        measurement,
        facts,
        accuracy,
        card,
    )
    return export(contents, context.path / "bundle")
