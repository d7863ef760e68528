"""The last stage: evaluate the final networks on the validation images and on the board, bundle the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.compile.artifact import Artifact, ReadBack, kernels_of, model_metadata, read_back, save_model
from deploy.compile.scheme import QuantizationScheme
from deploy.latency.table import summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import BundleRecord, FinalRecord, LatencyRecord, ModelRecord, PlacementRecord, SearchRecord
from deploy.run.records.search import SelectedModel
from deploy.ship.bundle import Contents, export, verify
from hil.boards.config import open_board
from hil.measurement import Conditions
from hil.stats import LatencySummary
from nas.networks.segmenter import Encoder
from nas.tasks.task import score_float, score_integer


@dataclass(frozen=True)
class Final:
    """A network before it is measured: scores in percent, size in bits, its scheme where there are several."""

    name: str
    subnet: str
    artifact: Artifact
    score_fp32: float
    score_int8: float
    size_bits: int
    macs: int
    predicted_us: float | None
    read_back: ReadBack
    scheme: str | None = None

    def record(self, metric: str, latency: LatencySummary) -> ModelRecord:
        """With its latency; `metric` is the key of what its scores are."""
        placed = self.read_back.placement
        return ModelRecord(
            name=self.name,
            subnet=self.subnet,
            metric=metric,
            score_fp32=self.score_fp32,
            score_int8=self.score_int8,
            size_bits=self.size_bits,
            requested_bits=self.read_back.requested_bits,
            stored_bits=self.read_back.stored_bits,
            executed_bits=self.read_back.executed_bits,
            placement=PlacementRecord(**asdict(placed)) if placed else None,
            macs=self.macs,
            predicted_us=self.predicted_us,
            latency_us=LatencyRecord(latency.median_us, latency.p90_us, latency.n, latency.ci95_us),
            scheme=self.scheme,
        )


def _evaluate(context: Context, model: Encoder, selected: SelectedModel | None = None) -> Final:
    """A selected model, quantized by the scheme that it was selected with; None: the teacher."""
    settings = context.experiment.quantization
    named = selected.scheme if selected else None
    scheme = QuantizationScheme.parse(named) if named else settings.main_scheme
    name, subnet = (selected.name, selected.subnet) if selected else ("teacher", "teacher")
    architecture = selected.architecture if selected else None
    graph = quantize_network(context, model, architecture, scheme=scheme.scheme(settings.scheme))
    score_fp32 = score_float(model, context.val_data)
    score_int8 = score_integer(graph, context.val_data, kernels_of(scheme.form))
    artifact = save_model(
        graph,
        context.evaluation[:1],
        Artifact.at(context.path / "models", name),
        model_metadata(graph, subnet, context.keys["ship"], **{f"{context.task.key}_int8": score_int8}),
        context.target,
        form=scheme.form,
    )
    return Final(
        name,
        subnet,
        artifact,
        score_fp32,
        score_int8,
        graph.size_bits,
        graph.macs,
        selected.predicted_us if selected else None,
        read_back(artifact.model, context.target),
        named,
    )


def ship(context: Context) -> Iterator[Progress]:
    """Final INT8 networks: the task's metric, latency side by side, the bundle and its verification: final.json."""
    selected = SearchRecord.read(context.path / SearchRecord.FILE).selected
    settings = protocol(context.experiment.agreement.measuring)
    total = len(selected) + 1 + (len(selected) + 1) * settings.rounds + 1
    finals = [_evaluate(context, context.teacher)]
    yield Progress("ship", 1, total, "teacher evaluated")
    for entry in selected:
        model = retrained(context, entry.name, entry.architecture)
        finals.append(_evaluate(context, model, entry))
        yield Progress("ship", len(finals), total, f"{entry.name} evaluated")

    jobs = [final.artifact.job() for final in finals]
    measurements = yield from measure_with_progress(context, jobs, settings, "ship", done=len(finals), total=total)
    conditions, medians = measurements[0].conditions, summaries(measurements)
    best = max(finals[1:], key=lambda final: (final.score_int8, -medians[final.name].median_us))
    bundle = _bundle(context, best, medians[best.name], conditions)
    with open_board(context.board) as board:
        verdict = verify(bundle, board)
    FinalRecord(
        tuple(final.record(context.task.key, medians[final.name]) for final in finals),
        conditions,
        BundleRecord(str(bundle), best.name, bool(verdict["verified"]), verdict["board"], verdict.get("latency_us")),
    ).write(context.path / FinalRecord.FILE)
    yield Progress("ship", total, total, "bundle verified")


def _bundle(context: Context, final: Final, latency: LatencySummary, conditions: Conditions) -> Path:
    facts = {
        "subnet": final.subnet,
        **({"scheme": final.scheme} if final.scheme else {}),
        "data": context.experiment.data.name,
        f"{context.task.metric} (INT8, validation)": f"{final.score_int8:.2f} %",
        "size": f"{final.size_bits / 8000:.1f} kB of weights",
        "latency": f"{latency.median_us / 1000:.3f} ms median on {conditions.board} "
        f"({conditions.machine}, {conditions.runtime})",
    }
    measurement = {"summary": asdict(latency), "conditions": conditions.to_json()}
    contents = Contents(
        f"{context.experiment.name}-{final.name}",
        final.artifact,
        context.task.name,
        context.val_data.classes,
        context.experiment.data.size,
        measurement,
        facts,
    )
    return export(contents, context.path / "bundle")
