"""Class by class: how well each is recognized, by which model better or worse, and what a classifier takes for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

from deploy.formats.plots.figures import Axis, Bars, Plot, Points
from deploy.formats.plots.pages import scrolled, wide
from deploy.report.material import Material
from deploy.run.settings.deployment import TEACHER_PLUS
from nas.tasks.confusion import Confusion, class_scores

MOST_CLASSES = 40  # that a picture holds
SHOWN = 0.05  # points: less is no difference in a table of one decimal

Scores: TypeAlias = Mapping[str, tuple[float | None, ...]]
"""By model, of each class in percent; None of a class that no image has."""


def classes(material: Material) -> str:
    """Nothing where no board's answers are kept."""
    gallery, confusions = material.gallery, material.confusions
    if gallery is None or not confusions or len(gallery.classes) > MOST_CLASSES:
        return ""
    names, dense = gallery.classes, gallery.dense
    scores = {model: class_scores(images, len(names), dense=dense) for model, images in confusions.items()}
    reference = TEACHER_PLUS if TEACHER_PLUS in scores else next(iter(scores))
    shown = material.bundled.name if material.bundled.name in scores else next(reversed(scores))
    plot = _plot(scores, names, reference, shown, "IoU" if dense else "images that are right")
    counts = _counts(confusions[reference], len(names))
    compared = _differences(scores, names, reference, [sum(row) for row in counts], dense=dense)
    if dense:
        return wide(plot) + compared
    others = "".join(
        f"<details><summary>{escape(model)}</summary>{_confusions(model, images, names)}</details>"
        for model, images in confusions.items()
        if model != shown
    )
    return wide(plot) + compared + _confusions(shown, confusions[shown], names) + others


def _plot(scores: Scores, names: Sequence[str], reference: str, shown: str, what: str) -> Plot:
    """Bars of the reference, a mark of the bundled model on each."""
    there = [(float(label), score) for label, score in enumerate(scores[shown]) if score is not None]
    heights = tuple(score or 0.0 for score in scores[reference])
    tips = tuple(f"{reference}, {name}: {height:.1f} %" for name, height in zip(names, heights, strict=True))
    marks = (
        Bars(heights, ("muted",) * len(names), tips, reference),
        Points(
            tuple(label for label, _ in there),
            tuple(score for _, score in there),
            "selected",
            shown,
            tips=tuple(f"{shown}, {names[int(label)]}: {score:.1f} %" for label, score in there),
            shape="diamond",
            size=5,
        ),
    )
    title = f"{what[0].upper()}{what[1:]}, class by class, by the board's own answers"
    return Plot(title, Axis("", names=tuple(names)), Axis(f"{what}, %", zero=True), marks, height=240)


def _differences(scores: Scores, names: Sequence[str], reference: str, counted: Sequence[int], *, dense: bool) -> str:
    """A row per class: how much of it there is, the reference's score, and how far every other model is from it."""
    others = [model for model in scores if model != reference]
    share = "pixels, %" if dense else "images"
    head = "".join(f"<th>{escape(title)}</th>" for title in ("class", share, f"{reference}, %", *others))
    rows, all_ = "", sum(counted)
    for label, name in enumerate(names):
        base = scores[reference][label]
        size = f"{100 * counted[label] / all_:.2f}" if dense and all_ else str(counted[label])
        cells = "".join(_difference(scores[model][label], base) for model in others)
        score = "-" if base is None else f"{base:.1f}"
        rows += f'<tr><th scope="row">{escape(name)}</th><td>{size}</td><td>{score}</td>{cells}</tr>'
    said = f"Points against {reference}, class by class; less is in colour."
    table = f'<table class="classes"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p class="muted">{escape(said)}</p>{scrolled(table)}'


def _difference(score: float | None, base: float | None) -> str:
    if score is None or base is None:
        return "<td>-</td>"
    points = score - base
    if abs(points) < SHOWN:
        return "<td>0</td>"
    mark = ' class="wrong"' if points < 0 else ""
    return f"<td{mark}>{points:+.1f}</td>"


def _counts(images: Sequence[Confusion], classes: int) -> list[list[int]]:
    """Rows are labels, columns what was predicted: pixels, or images."""
    counts: Counter[tuple[int, int]] = Counter()
    for image in images:
        for label, predicted, n in image:
            counts[label, predicted] += n
    return [[counts[label, predicted] for predicted in range(classes)] for label in range(classes)]


def _confusions(model: str, images: Sequence[Confusion], names: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ""
    for label, row in enumerate(_counts(images, len(names))):
        cells = ""
        for predicted, n in enumerate(row):
            kind = "right" if label == predicted else "wrong"
            weight = f' class="{kind}" style="--share: {n / sum(row):.2f}"' if n else ""
            cells += f"<td{weight}>{n or ''}</td>"
        rows += f'<tr><th scope="row">{escape(names[label])}</th>{cells}</tr>'
    title = f"{model}: labels in rows, predictions in columns, numbers of images"
    table = f'<table class="confusions"><thead><tr><th>label</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p class="above">{escape(title)}</p>{scrolled(table)}'
