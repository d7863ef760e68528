"""What `hilnas evaluate` shows: what was assumed, the metric by what predicted, per class, images to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.cli import console

if TYPE_CHECKING:
    from deploy.ship.evaluation_record import EvaluationRecord

MOST_CLASSES = 40  # that are shown


def show(record: EvaluationRecord) -> None:
    from deploy.ship.differences import difference_text
    from deploy.ship.evaluation import HOST

    images, failed = record.images, len(record.failed)
    left_out = f", {failed} more failed" if failed else ""
    height, width = images.size
    console.say(f"{record.model} on {images.data}, split {images.split}: {images.scored} images{left_out}")
    console.say(f"images: resized to {height} x {width} bilinearly; input: {record.input}")
    console.say(f"output: {record.output}")
    if record.conditions:
        c = record.conditions
        console.say(f"board: {c.board} ({c.soc or c.machine}), {c.runtime}, kernels {c.kernels}, delegate {c.delegate}")
    else:
        console.say("board: none took part (--board NAME); the scores are of this machine")
    interval = "95 % interval over images"
    rows = [
        (one.predictor, f"{one.score.value:.2f}", f"{one.score.low:.2f} - {one.score.high:.2f}")
        for one in record.scores
    ]
    console.table(("predicted by", f"{record.metric.name} %", interval), rows)
    _show_classes(record)
    for difference in record.differences:
        other = difference.other if difference.other == HOST else f"the {difference.other}"
        text = difference_text(difference.points, other)
        console.say(f"{difference.predictor}: {text}")
    for one in record.against:
        console.say(f"{one.predictor}: {difference_text(one.points, one.model)}")
    if len(record.scores) > 1:
        first, second = record.scores[0].predictor, record.scores[1].predictor
        most = ", ".join(f"{image.image} ({image.share:.2%})" for image in record.differ_most)
        console.say(f"{first} and {second} differ most on: {most or 'no image'}")


def _show_classes(record: EvaluationRecord) -> None:
    what = "IoU %" if record.metric.key == "miou" else "right %"
    columns = ("class", *(f"{one.predictor}, {what}" for one in record.scores))
    shown = (
        (name, *("-" if (v := one.classes[i]) is None else f"{v:.2f}" for one in record.scores))
        for i, name in enumerate(record.images.classes[:MOST_CLASSES])
    )
    console.table(columns, shown)
    if (more := len(record.images.classes) - MOST_CLASSES) > 0:
        console.say(f"{more} more classes: evaluation.json")
