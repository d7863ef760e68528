"""Class by class: the IoU of every model, or what a classifier takes for what."""

from __future__ import annotations

from collections import Counter
from html import escape

from deploy.formats.plots.figures import Axis, Plot, Points, Shape
from deploy.formats.plots.pages import figures
from deploy.formats.plots.svg import inline
from deploy.report.material import Material
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from nas.tasks.confusion import class_scores

MOST_CLASSES = 40  # that a picture holds
COLOURS = {TEACHER: "ink", TEACHER_PLUS: "muted"}
SHAPES: tuple[Shape, ...] = ("diamond", "dot", "triangle", "ring", "square")


def classes(material: Material) -> str:
    """Nothing where no board's answers are kept."""
    gallery = material.gallery
    if gallery is None or not material.confusions or len(gallery.classes) > MOST_CLASSES:
        return ""
    scored = figures([inline(_scores(material, gallery.classes, dense=gallery.dense), 1060)])
    return scored if gallery.dense else scored + _confusions(material, gallery.classes)


def _scores(material: Material, names: tuple[str, ...], *, dense: bool) -> Plot:
    what = "IoU" if dense else "images that are right"
    marks = []
    for i, (model, confusions) in enumerate(material.confusions.items()):
        scores = class_scores(confusions, len(names), dense=dense)
        there = [(label, score) for label, score in enumerate(scores) if score is not None]
        marks.append(
            Points(
                tuple(float(label) for label, _ in there),
                tuple(score for _, score in there),
                COLOURS.get(model, "selected"),
                model,
                tips=tuple(f"{model}, {names[label]}: {score:.1f} %" for label, score in there),
                shape="square" if model in COLOURS else SHAPES[i % len(SHAPES)],
                size=4.5,
            )
        )
    title = f"{what} of each class, by the board's own answers"
    return Plot(title, Axis("", names=names), Axis(f"{what}, %", zero=True), tuple(marks), height=240)


def _confusions(material: Material, names: tuple[str, ...]) -> str:
    """Of the bundled model: rows are labels, columns what was predicted, in images."""
    found = material.confusions.get(material.bundled.name)
    if found is None:
        return ""
    counts: Counter[tuple[int, int]] = Counter()
    for image in found:
        for label, predicted, n in image:
            counts[label, predicted] += n
    of_label = Counter[int]()
    for (label, _), n in counts.items():
        of_label[label] += n
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ""
    for label, name in enumerate(names):
        cells = ""
        for predicted in range(len(names)):
            n = counts[label, predicted]
            share = n / of_label[label] if of_label[label] else 0.0
            kind = "right" if label == predicted else "wrong"
            weight = f' class="{kind}" style="--share: {share:.2f}"' if n else ""
            cells += f"<td{weight}>{n or ''}</td>"
        rows += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    title = f"{material.bundled.name}: labels in rows, predictions in columns, numbers of images"
    table = f'<table class="confusions"><thead><tr><th>label</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p>{escape(title)}</p><div class="wide">{table}</div>'
