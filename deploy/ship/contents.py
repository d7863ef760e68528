"""What a bundle holds, for people, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.formats.tflite.read import read
from deploy.ship.manifest import BundleMeasurement, ListedFile, Manifest
from deploy.ship.signatures import SIGNATURE
from deploy.targets.inspection import inspect_model
from hil.errors import ModelError

CONDITIONS = ("board", "soc", "machine", "kernel", "runtime", "delegate", "kernels", "threads", "governor")


def described(bundle: Path) -> dict[str, Any]:
    """By name what is in a bundle. Raises `UsageError`, `ModelError` for one that is damaged."""
    manifest = Manifest.read(bundle / Manifest.FILE)
    measured = BundleMeasurement.read(_inside(bundle, manifest.measurement))
    model = inspect_model(read(_inside(bundle, manifest.model)))
    conditions = measured.conditions.to_json()
    latency = measured.latency_us
    found: dict[str, Any] = {"name": manifest.name, **manifest.facts}
    if manifest.accuracy:
        accuracy = manifest.accuracy
        found["metric"] = f"{accuracy.int8:.2f} % {accuracy.metric} INT8 on {accuracy.data} {accuracy.split}"
    found["latency"] = f"{latency.median / 1000:.3f} ms median over {latency.n} runs"
    found["measured on"] = ", ".join(f"{name} {conditions[name]}" for name in CONDITIONS if conditions.get(name))
    found["operators"] = ", ".join(f"{count} {kind}" for kind, count in sorted(model.operators_by_kind.items()))
    found["golden pairs"] = len(manifest.golden)
    if manifest.variants:
        found["models"] = ", ".join(f"{one.model} for the {one.place}" for one in manifest.variants)
    found["files"] = {name: listed.bytes for name, listed in sorted(manifest.files.items())}
    found["signature"] = (bundle / SIGNATURE).is_file()
    return found


def contents_text(bundle: Path) -> Iterator[str]:
    for name, value in described(bundle).items():
        if name == "files":
            yield f"files: {len(value)}, {sum(value.values()) / 1000:.1f} kB"
            yield from (f"  {path}: {size} bytes" for path, size in value.items())
        elif name == "signature":
            yield f"signature: {'there; --allowed-signers says whose' if value else 'none'}"
        else:
            yield f"{name}: {value}"


def differences(one: Path, other: Path) -> Iterator[tuple[str, str, str]]:
    """(what, in the one, in the other) where two bundles differ; files by their hashes."""
    here, there = described(one), described(other)
    for name in dict.fromkeys((*here, *there)):
        if name != "files" and here.get(name) != there.get(name):
            yield name, str(here.get(name, "")), str(there.get(name, ""))
    hashes = [Manifest.read(bundle / Manifest.FILE).files for bundle in (one, other)]
    for path in sorted({*hashes[0], *hashes[1]}):
        mine, theirs = (files.get(path) for files in hashes)
        if mine != theirs:
            yield path, _file_text(mine), _file_text(theirs)


def _file_text(file: ListedFile | None) -> str:
    return f"{file.bytes} bytes, {file.sha256[:12]}" if file else "missing"


def _inside(bundle: Path, name: str) -> Path:
    path = (bundle / name).resolve()
    if not path.is_relative_to(bundle.resolve()):
        raise ModelError(f"{bundle}: its manifest names '{name}', which is outside it; it was not made by this kit")
    return path
