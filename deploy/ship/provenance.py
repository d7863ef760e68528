"""provenance.json: what a bundle's model was made from, and the files with which it is made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution
from typing import ClassVar

from deploy.formats.toml import to_toml
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.records import DataRecord, Record, plain
from deploy.run.records.base import OMITTED
from nas.settings import STRICT
from nas.space import SearchSpace

CONFIGURATION, SPACE = "experiment.toml", "space.toml"
PACKAGES = ("hilnas", "torch", "numpy", "scipy", "pillow", "torchmetrics", "flatbuffers", "ai-edge-litert")
"""What decides a model's weights, its file or its scores."""


@dataclass(frozen=True)
class Package:
    """A package that took part; `licence`: as its metadata names it, "" where they do not."""

    name: str
    version: str
    licence: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Provenance(Record):
    """What a model was made from.

    Attributes:
        command: what makes it again, in a folder with the bundle's configuration.
        keys: of the run's stages, in their order: digests of all settings that count.
        images: of generated data sets the spec is all there is to know; of files on disk their digests.
        data: digests of the image files; None of generated ones.
        encoder: sha256 of the file that the teacher's encoder started from; None where it began with random weights.
    """

    run: str
    command: str
    keys: Mapping[str, str]
    images: str
    packages: tuple[Package, ...]
    data: DataRecord | None = field(default=None, metadata=OMITTED)
    encoder: str | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "provenance.json"
    COMMAND: ClassVar[str] = "bundle export"


def provenance_of(context: Context) -> Provenance:
    """Of a run's final models."""
    experiment, path = context.experiment, context.path / DataRecord.FILE
    encoder = context.identities["teacher"].values.get("teacher.encoder")
    return Provenance(
        run=experiment.name,
        command=f"hilnas loop --config {CONFIGURATION} --board {experiment.board}",
        keys=context.keys,
        images=experiment.data.name,
        packages=installed(),
        data=DataRecord.read(path) if path.exists() else None,
        encoder=encoder if isinstance(encoder, str) else None,
    )


def configuration(experiment: Experiment, space: SearchSpace) -> dict[str, str]:
    """By name the files that `hilnas loop --config experiment.toml` reads: the same keys, and so the same models."""
    return {
        CONFIGURATION: to_toml(plain(replace(experiment, space=SPACE))),
        SPACE: to_toml(plain(space)),
    }


def installed(names: Iterable[str] = PACKAGES) -> tuple[Package, ...]:
    """Those that are there, as they are."""
    return tuple(_packages(names))


def _packages(names: Iterable[str]) -> Iterator[Package]:
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
        yield Package(name, found.version, _licence(found.metadata))


def _licence(metadata: PackageMetadata) -> str:
    """In one line: the newer field, or the classifiers, or the older field, which may be a whole text."""
    expression, classifiers, text = (
        metadata.get_all(key) or [] for key in ("License-Expression", "Classifier", "License")
    )
    classified = ", ".join(line.rpartition(" :: ")[2] for line in classifiers if "License" in line)
    lines = ("".join(expression) or classified or "".join(text)).strip().splitlines()
    return lines[0] if lines else ""
