"""A refined policy as the file that the board runs: judged on validation images, measured, bundled, verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.latency.table import summaries
from deploy.lcpaq.proxy import deployed
from deploy.lcpaq.subject import Subject, Wanted, stored_policy
from deploy.run.context import protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measured
from deploy.ship.bundle import Contents, export, verify
from hil.boards.config import open_board
from nas.lcpaq.policy import INT8, Policy
from nas.tasks.task import score_float, score_integer


def ship(subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    """shipped.json and bundle/: policy.json's network, as `hilnas loop` ships its models."""
    context, policy, path = subject.context, stored_policy(subject), subject.folder / "shipped.json"
    searched = read_json(subject.folder / "proxy.json", ("best",))
    key = digest(
        subject.key, str(policy), str(searched["best"]), wanted.tuning_steps, *map(settings_of, context.boards)
    )
    if path.exists() and read_json(path, ("key",))["key"] == key:
        return
    eight = Policy(dict.fromkeys(policy.bits, INT8))
    (by, graph), data = deployed(subject, wanted), context.val_data
    scores = {"fp32": score_float(subject.model, data), "int8": score_integer(graph, data)}
    scores["int8_all8"] = score_integer(subject.graph(eight), data)
    yield Progress("lcpaq ship", 1, 3, "judged")
    artifact = save_model(
        graph,
        context.evaluation[:1],
        Artifact.at(subject.folder / "models", f"lcpaq-{subject.name}"),
        model_metadata(graph, str(subject.architecture or subject.name), subject.key, policy=str(policy)),
        context.target,
    )
    found = list(measured(context, [artifact.job()], protocol(context.experiment.agreement.measuring)))
    latency, conditions = summaries(found)[artifact.name], found[0].conditions.to_json()
    yield Progress("lcpaq ship", 2, 3, "measured")
    task = context.task
    facts = {
        "policy": str(policy),
        "quantized by": by,
        "data": context.experiment.data.name,
        f"{task.metric} (INT8, validation)": f"{scores['int8']:.2f} %",
        "size": f"{graph.size_bits / 8000:.1f} kB of weights",
        "latency": f"{latency.median_us / 1000:.3f} ms median on {conditions['board']}",
    }
    contents = Contents(
        f"{context.experiment.name}-lcpaq-{subject.name}",
        artifact,
        task.name,
        context.val_data.classes,
        context.experiment.data.size,
        {"summary": asdict(latency), "conditions": conditions},
        facts,
    )
    bundle = export(contents, subject.folder / "bundle")
    with open_board(context.board) as board:
        verified = bool(verify(bundle, board)["verified"])
    record = {
        "key": key,
        "by": by,
        "metric": task.metric,
        **scores,
        "size_bits": graph.size_bits,
        "latency": asdict(latency),
        "conditions": conditions,
        "bundle": str(bundle),
        "verified": verified,
    }
    write_json(path, record)
    yield Progress("lcpaq ship", 3, 3, "bundle verified")
