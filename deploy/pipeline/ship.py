"""The last stage: judge the final networks on the validation images and on the board, bundle the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.compile.artifact import Artifact, ReadBack, kernels_of, model_metadata, read_back, save_model
from deploy.compile.scheme import Alternative
from deploy.formats.files import write_json
from deploy.latency.table import summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.ship.bundle import Contents, export, verify
from deploy.ship.report import write_report
from hil.boards.config import open_board
from hil.stats import LatencySummary
from nas.networks.segmenter import Encoder
from nas.space import Architecture
from nas.tasks.task import score_float, score_integer


@dataclass(frozen=True)
class Final:
    """A network judged before the board: metric in percent, size in bits, its scheme where there are several."""

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


NOT_FOUND: Mapping[str, Any] = {}


def _judge(context: Context, name: str, model: Encoder, subnet: str, found: Mapping[str, Any] = NOT_FOUND) -> Final:
    """`found`: what search.json says of the model, which is quantized by the scheme that was found."""
    settings = context.experiment.quantization
    scheme = Alternative.parse(found.get("scheme", str(settings.own)))
    architecture = None if subnet == "teacher" else Architecture.parse(subnet)
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
        found.get("predicted_us"),
        read_back(artifact.model, context.target),
        found.get("scheme"),
    )


def ship(context: Context) -> Iterator[Progress]:
    """Final INT8 networks: the task's metric, latency side by side, the bundle and its verification: final.json."""
    found: Any = context.record("search")["found"]
    settings = protocol(context.experiment.agreement.measuring)
    total = len(found) + 1 + (len(found) + 1) * settings.rounds + 1
    finals = [_judge(context, "teacher", context.teacher, "teacher")]
    yield Progress("ship", 1, total, "teacher judged")
    for entry in found:
        model = retrained(context, entry["name"], Architecture.parse(entry["subnet"]))
        finals.append(_judge(context, entry["name"], model, entry["subnet"], entry))
        yield Progress("ship", len(finals), total, f"{entry['name']} judged")

    jobs = [final.artifact.job() for final in finals]
    measurements = yield from measure_with_progress(context, jobs, settings, "ship", done=len(finals), total=total)
    conditions, medians = measurements[0].conditions, summaries(measurements)
    best = max(finals[1:], key=lambda final: (final.score_int8, -medians[final.name].median_us))
    bundle = _bundle(context, best, medians[best.name], conditions.to_json())
    with open_board(context.board) as board:
        verdict = verify(bundle, board)
    models = [_record(final, context.task.key, medians[final.name]) for final in finals]
    write_json(
        context.path / "final.json",
        {
            "models": models,
            "conditions": conditions.to_json(),
            "bundle": {
                "path": str(bundle),
                "model": best.name,
                "verified": bool(verdict["verified"]),
                "board": verdict["board"],
                "latency_us": verdict.get("latency_us"),
            },
        },
    )
    yield Progress("ship", total, total, "bundle verified")


def _record(final: Final, metric: str, latency: LatencySummary) -> dict[str, Any]:
    return {
        "name": final.name,
        "subnet": final.subnet,
        **({"scheme": final.scheme} if final.scheme else {}),
        f"{metric}_fp32": final.score_fp32,
        f"{metric}_int8": final.score_int8,
        "size_bits": final.size_bits,
        **asdict(final.read_back),
        "macs": final.macs,
        "predicted_us": final.predicted_us,
        "latency_us": _latency(latency),
    }


def _latency(latency: LatencySummary) -> dict[str, Any]:
    return {"median": latency.median_us, "p90": latency.p90_us, "n": latency.n, "ci95": list(latency.ci95_us)}


def _bundle(context: Context, final: Final, latency: LatencySummary, conditions: Mapping[str, Any]) -> Path:
    facts = {
        "subnet": final.subnet,
        **({"scheme": final.scheme} if final.scheme else {}),
        "data": context.experiment.data.name,
        f"{context.task.metric} (INT8, validation)": f"{final.score_int8:.2f} %",
        "size": f"{final.size_bits / 8000:.1f} kB of weights",
        "latency": f"{latency.median_us / 1000:.3f} ms median on {conditions['board']} "
        f"({conditions['machine']}, {conditions['runtime']})",
    }
    measurement = {"summary": asdict(latency), "conditions": dict(conditions)}
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


def summarize_run(context: Context) -> dict[str, Any]:
    """summary.json and report.html from the stages' records; cheap, so it is written every time."""
    final, judged, profiled, search = (context.record(n) for n in ("final", "agreement", "profile", "search"))
    agreement: Any = judged["agreement"]
    models: Any = final["models"]
    seconds = context.run.seconds
    summary = {
        "name": context.experiment.name,
        "data": {
            "spec": context.experiment.data.name,
            "size": list(context.experiment.data.size),
            "classes": len(context.val_data.classes),
            "train": len(context.train_data),
            "val": len(context.val_data),
        },
        "task": context.task.name,
        "metric": {"name": context.task.metric, "key": context.task.key},
        "space": {"name": context.space.name, "digest": context.space.digest, "subnets": context.space.count()},
        "teacher": models[0],
        "models": models[1:],
        "agreement": {key: agreement[key] for key in ("tau_b", "ci95", "n_models", "spearman", "ceiling_tau_b")},
        "correction": judged["correction"],
        **({"gate": search["gate"]} if "gate" in search else {}),  # a run of an earlier version had none
        "counts": {
            "subnets_compiled": profiled["compiled"],
            "subnets_measured": profiled["measured"],
            "subnets_exact_parity": profiled["exact_parity"],
        },
        "bundle": final["bundle"],
        "conditions": final["conditions"],
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
    }
    write_json(context.path / "summary.json", summary)
    write_report(context.path / "report.html", summary, judged, search)
    return summary
