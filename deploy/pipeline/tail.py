"""The stage that measures where full networks should end: `[deploy] tail = "auto"`.

Each tail is the teacher's, from the image's bytes to the class map, in turns on the board. What a tail changes is the
same for every network of the run but for its logits' producer, so one measurement decides for all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.latency.agreement import failures
from deploy.latency.shares import enough_rounds, latency_shares
from deploy.latency.table import summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.quantizing import quantize_network
from deploy.run.records import MeasuredTail, TailRecord
from hil.errors import ModelError
from hil.measurement import Measurement
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph
from nas.quant.tails import TAILS, Tail, with_tail
from nas.tasks.task import score_integer

logger = logging.getLogger(__name__)
PLAIN: Tail = "classes"
COARSE: Tail = "nearest"
IN_FILE: tuple[Tail, ...] = (PLAIN, COARSE)
"""Those that leave the CPU nothing: all that a board can run whose program only times a model."""


def tail(context: Context) -> Iterator[Progress]:
    """The fastest tail whose metric is within the tolerance: tail.json."""
    tolerance, metric = context.experiment.deploy.tolerance, context.task.metric
    if not context.task.dense:
        TailRecord(PLAIN, metric, tolerance).write(context.path / TailRecord.FILE)
        return
    teacher = quantize_network(context, context.teacher, tail=PLAIN)
    tails = TAILS if context.board.driver == "python" else IN_FILE
    artifacts, refused = _compiled(context, teacher, tails)
    settings = enough_rounds(protocol(context.experiment.agreement.measuring))
    measurements = yield from measure_with_progress(
        context, [artifact.job() for artifact in artifacts.values()], settings, "tail", together=True
    )
    found = _measured(context, teacher, tails, measurements, refused)
    TailRecord(fastest(found, tolerance), metric, tolerance, found).write(context.path / TailRecord.FILE)


def fastest(tails: Sequence[MeasuredTail], tolerance: float) -> Tail:
    """Of the tails that run and whose metric is within the tolerance of the class map's.

    Another than the class map in the file only where its whole interval is below that one's latency. Raises
    `ModelError` where none runs.
    """
    least = next(one.score for one in tails if one.tail == PLAIN) - tolerance
    able = [one for one in tails if one.latency_us is not None and one.score >= least]
    if not able:
        reasons = "; ".join(f"{one.tail}: {one.failure}" for one in tails if one.failure)
        raise ModelError(
            f"the teacher runs on the board with no tail ({reasons}); fix the model, or name [deploy] tail"
        )
    no_slower = [one for one in able if one.share is None or one.share.high < 1]  # the class map itself is one
    return min(no_slower, key=lambda one: one.latency_us or 0.0).tail


def _compiled(
    context: Context, teacher: IntegerGraph, tails: Sequence[Tail]
) -> tuple[dict[Tail, Artifact], dict[Tail, str]]:
    """The teacher's files, and why the target refuses others."""
    artifacts, refused = dict[Tail, Artifact](), dict[Tail, str]()
    for name in tails:
        metadata = model_metadata(teacher, "teacher", context.keys["tail"], tail=name)
        artifact = Artifact.at(context.path / "models", f"teacher-{name}")
        graph, image = with_tail(teacher, name), context.evaluation[:1]
        try:
            artifacts[name] = save_model(graph, image, artifact, metadata, context.target, tail=name)
        except ModelError as error:
            refused[name] = str(error)
    return artifacts, refused


def _measured(
    context: Context,
    teacher: IntegerGraph,
    tails: Sequence[Tail],
    measurements: Sequence[Measurement],
    refused: Mapping[Tail, str],
) -> tuple[MeasuredTail, ...]:
    data, plain = context.held_out_data, f"teacher-{PLAIN}"
    scores = {name: score_integer(with_tail(teacher, name), data) for name in IN_FILE}
    failed = {f"teacher-{name}": why for name, why in refused.items()} | failures(measurements)
    for name, why in failed.items():
        logger.warning("%s: %s", name, why)
    well = [m for m in measurements if m.model not in failed]
    times = summaries(well) if well else {}
    shares: Mapping[str, Estimate] = latency_shares(well, plain, seed=context.experiment.seed) if plain in times else {}
    found = []
    for name in tails:
        model = f"teacher-{name}"
        after = [m.class_map_us for m in well if m.model == model and m.class_map_us is not None]
        found.append(
            MeasuredTail(
                tail=name,
                score=scores[COARSE if name == COARSE else PLAIN],
                latency_us=times[model].median_us if model in times else None,
                class_map_us=min(after, default=None),
                share=shares.get(model) if name != PLAIN else None,
                failure=failed.get(model),
            )
        )
    return tuple(found)
