"""Validation images beside what each model makes of them."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path

from deploy.formats.class_colours import hexadecimal
from deploy.formats.plots.pages import scrolled
from deploy.report.gallery import DIFFERENCE, FOLDER, GalleryRecord, ShownImage
from deploy.report.material import Material


def images(material: Material) -> str:
    """Of segmentation a row an image, of classification a card; nothing where the run has no pictures."""
    gallery = material.gallery
    if gallery is None or not gallery.images:
        return ""
    drawn = _strip(material.folder, gallery) if gallery.dense else _cards(material.folder, gallery)
    return f'<p class="muted">{escape(_said(gallery))}</p>{drawn}'


def _said(gallery: GalleryRecord) -> str:
    """How the images were chosen, and what colours mean."""
    shown, reference = gallery.shown, gallery.reference
    if not gallery.dense:
        return (
            f"Validation images that {shown} gets wrong, then those on which {shown} and {reference} differ, then some "
            "drawn at random; what is wrong is in colour."
        )
    return (
        f"Validation images on which {shown} and {reference} differ the most, then some drawn at random. In the last "
        f"column {shown} is right where it is green, {reference} where it is red, neither where it is grey."
    )


def _why(gallery: GalleryRecord, one: ShownImage) -> str:
    match one.why:
        case "wrong":
            return f"{gallery.shown} is wrong"
        case "differs":
            return "differs the most" if gallery.dense else "the two differ"
        case "drawn":
            return "drawn at random"


def _strip(folder: Path, gallery: GalleryRecord) -> str:
    columns = ("image", "label", *gallery.models, DIFFERENCE)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = ""
    for one in gallery.images:
        note = f"{one.name}: {_why(gallery, one)}, {one.differing:.1%}"
        texts = (note if what == "image" else f"{what} of {one.name}" for what in columns)
        cells = (_picture(folder, one, what, text) for what, text in zip(columns, texts, strict=True))
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        rows += f'<tr class="note"><td colspan="{len(columns)}"><small>{escape(note)}</small></td></tr>'
    table = f'<table class="gallery" style="--columns: {len(columns)}"><thead><tr>{head}</tr></thead>'
    return f'{scrolled(f"{table}<tbody>{rows}</tbody></table>")}<p class="key">{"".join(_classes(gallery))}</p>'


def _cards(folder: Path, gallery: GalleryRecord) -> str:
    cards = ""
    for one in gallery.images:
        label = _class(gallery, one.label)
        predicted: dict[str, list[str]] = defaultdict(list)
        for model in gallery.models:
            predicted[_class(gallery, (one.predicted or {}).get(model))].append(model)
        lines = ""
        for name, models in predicted.items():
            mark = "" if name == label else ' class="wrong"'
            lines += f"<span{mark}>{escape(name)}: {escape(', '.join(models))}</span>"
        picture = _picture(folder, one, "image", f"{one.name}, labelled {label}")
        note = f"<small>{escape(f'{one.name}: {_why(gallery, one)}')}</small>"
        cards += f"<figure>{picture}<figcaption><b>{escape(label)}</b>{lines}{note}</figcaption></figure>"
    return f'<div class="cards">{cards}</div>'


def _class(gallery: GalleryRecord, label: int | None) -> str:
    return "?" if label is None else gallery.classes[label]


def _picture(folder: Path, one: ShownImage, what: str, text: str) -> str:
    path = folder / FOLDER / one.picture(what)
    if not path.exists():
        return f"<small>{escape(path.name)} is missing</small>"
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text, quote=True)}" src="data:image/{kind};base64,{content}" />'


def _classes(gallery: GalleryRecord) -> Iterator[str]:
    for label, name in enumerate(gallery.classes):
        yield f'<span><i style="background: {hexadecimal(label)}"></i>{escape(name)}</span> '
