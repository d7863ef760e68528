"""Validation images beside what each model makes of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

from deploy.formats.class_colours import hexadecimal
from deploy.report.gallery import DIFFERENCE, FOLDER, GalleryRecord, ShownImage
from deploy.report.material import Material

WHY = {"differs": "differs the most", "drawn": "drawn at random"}


def images(material: Material) -> str:
    """A row an image; nothing where the run has no pictures."""
    gallery = material.gallery
    if gallery is None or not gallery.images:
        return ""
    head = "".join(f"<th>{escape(column)}</th>" for column in _columns(gallery))
    rows = "".join(_row(material.folder, gallery, one) for one in gallery.images)
    both = f"{gallery.shown} and {gallery.reference}"
    which = f"on which {both} differ the most" if gallery.dense else f"that {both} predict otherwise"
    colours = f"in the last column {gallery.shown} is right where it is green, {gallery.reference} where it is red"
    marks = colours if gallery.dense else "what is wrong is in colour"
    chosen = f"Validation images {which}, then some drawn at random; {marks}."
    return (
        f'<p class="muted">{escape(chosen)}</p><div class="wide"><table class="gallery"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_key(gallery) if gallery.dense else ''}"
    )


def _columns(gallery: GalleryRecord) -> tuple[str, ...]:
    return ("image", "label", *gallery.models, *((DIFFERENCE,) if gallery.dense else ()))


def _row(folder: Path, gallery: GalleryRecord, one: ShownImage) -> str:
    note = f"{one.name}: {WHY[one.why]}" + (f", {one.differing:.1%}" if gallery.dense else "")
    picture = _picture(folder, one, "image", note)
    first = f"<td>{picture}</td>"
    below = f'<tr class="note"><td colspan="{len(_columns(gallery))}"><small>{escape(note)}</small></td></tr>'
    if gallery.dense:
        others = (_picture(folder, one, what, f"{what} of {one.name}") for what in _columns(gallery)[1:])
        return f"<tr>{first}{''.join(f'<td>{other}</td>' for other in others)}</tr>{below}"
    label, predicted = one.label, one.predicted or {}
    named = [gallery.classes[label] if label is not None else "?"]
    cells = [f"<td>{escape(named[0])}</td>"]
    for name in gallery.models:
        found = predicted.get(name)
        text = gallery.classes[found] if found is not None else "?"
        mark = "" if found == label else ' class="wrong"'
        cells.append(f"<td{mark}>{escape(text)}</td>")
    return f"<tr>{first}{''.join(cells)}</tr>{below}"


def _picture(folder: Path, one: ShownImage, what: str, text: str) -> str:
    path = folder / FOLDER / one.picture(what)
    if not path.exists():
        return f"<small>{escape(path.name)} is missing</small>"
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text, quote=True)}" src="data:image/{kind};base64,{content}" />'


def _key(gallery: GalleryRecord) -> str:
    return f'<p class="key">{"".join(_classes(gallery))}</p>'


def _classes(gallery: GalleryRecord) -> Iterator[str]:
    for label, name in enumerate(gallery.classes):
        yield f'<span><i style="background: {hexadecimal(label)}"></i>{escape(name)}</span> '
