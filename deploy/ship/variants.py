"""Models for several places in one bundle: one for the board's delegate, one for its CPU, under one manifest.

The first bundle's files stay where they are; the other's model, with what proves it, is in models/PLACE/. The verifier
and infer.py take the one for what the board has (`board_scripts/places.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from deploy.formats.digest import file_digest
from deploy.formats.pack import pack
from deploy.ship.bundle import write_aside
from deploy.ship.manifest import FORMAT, ListedFile, Manifest, Place, Variant
from hil.errors import UsageError


def join(bundles: Mapping[Place, Path], target: Path, *, packed: Collection[Place] = ()) -> Path:
    """Write bundles of one task as one; of places in `packed` the model is stored in its packed form.

    Raises `UsageError` for a bundle of other labels, or that holds several models.
    """
    manifests = {place: Manifest.read(bundle / Manifest.FILE) for place, bundle in bundles.items()}
    (first, *_), labels = bundles, {}
    for place, manifest in manifests.items():
        if manifest.variants:
            raise UsageError(
                f"{bundles[place]}: holds several models already; give the bundles that it was joined from"
            )
        labels[place] = (bundles[place] / manifest.labels).read_bytes()
        if labels[place] != labels[first]:
            raise UsageError(
                f"{bundles[place]}: has other labels than {bundles[first]}; join models of the same classes"
            )

    def fill(folder: Path) -> None:
        for name in manifests[first].files:
            _copy(bundles[first] / name, folder / name)
        variants = []
        for place, manifest in manifests.items():
            prefix = "" if place == first else f"models/{place}/"
            for name in manifest.files if prefix else ():
                if name in _proof(manifest):
                    _copy(bundles[place] / name, folder / f"{prefix}{name}")
            variants.append(_variant(place, manifest, prefix))
            if place in packed:
                variants[-1] = replace(variants[-1], model=_pack(folder, variants[-1].model))
        listed = sorted(p for p in folder.rglob("*") if p.is_file())
        files = {str(p.relative_to(folder)): ListedFile(file_digest(p), p.stat().st_size) for p in listed}
        joined = replace(manifests[first], format=FORMAT, variants=tuple(variants), files=files)
        joined.write(folder / Manifest.FILE)

    return write_aside(target, fill)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _pack(folder: Path, model: str) -> str:
    """Puts the packed form in the place of a model's file, and says what it is called."""
    name = str(PurePosixPath(model).with_suffix(".packed"))
    (folder / name).write_bytes(pack((folder / model).read_bytes()))
    (folder / model).unlink()
    return name


def _proof(manifest: Manifest) -> frozenset[str]:
    """Of a model's files, those that go with it."""
    pairs = (path for pair in manifest.golden for path in (pair.input, pair.output, pair.image, pair.classes) if path)
    beside = ("MODEL_CARD.md", "evaluation.json", "layers.json", "provenance.json", "quantization.json")
    return frozenset((manifest.model, manifest.preprocessing, manifest.measurement, *pairs, *beside))


def _variant(place: Place, manifest: Manifest, prefix: str) -> Variant:
    def moved(name: str | None) -> str | None:
        return None if name is None else str(PurePosixPath(prefix) / name)

    golden = tuple(
        replace(
            pair,
            input=prefix + pair.input,
            output=prefix + pair.output,
            image=moved(pair.image),
            classes=moved(pair.classes),
        )
        for pair in manifest.golden
    )
    return Variant(
        place,
        prefix + manifest.model,
        prefix + manifest.preprocessing,
        prefix + manifest.measurement,
        golden,
        manifest.class_map,
    )
