"""What a report is drawn from: the files of a run's folder, those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deploy.compare.records import ComparisonRecord
from deploy.formats.files import read_json
from deploy.formats.journal import Journal
from deploy.report.gallery import GalleryRecord
from deploy.run.records import (
    AgreementRecord,
    DataRecord,
    ModelRecord,
    RunState,
    SearchRecord,
    Summary,
    TailRecord,
)
from deploy.run.settings.deployment import TEACHER
from deploy.run.shipped import load_space
from deploy.ship.evaluation import BOARD, ImageScore
from hil.errors import HilError
from hil.measurement import Measurement
from nas.errors import NasError
from nas.settings import build
from nas.space import Architecture, SearchSpace
from nas.table import Table
from nas.tasks.confusion import Confusion

STORE = "measurements.sqlite"
EXPERIMENT = "experiment.json"
"""The configuration as it was run, and its space."""


@dataclass(frozen=True, eq=False)
class Material:
    """A run's records, read when they are drawn. `folder` is the run's."""

    folder: Path
    summary: Summary
    agreement: AgreementRecord
    search: SearchRecord

    @classmethod
    def of(cls, folder: Path) -> Material:
        """`UsageError` for a run that is not finished."""
        summary = Summary.read(folder / Summary.FILE)
        agreement = AgreementRecord.read(folder / AgreementRecord.FILE)
        return cls(folder, summary, agreement, SearchRecord.read(folder / SearchRecord.FILE))

    @property
    def models(self) -> tuple[ModelRecord, ...]:
        """The teacher, the teacher trained on, then a model per budget."""
        return self.summary.all_models

    @cached_property
    def bundled(self) -> ModelRecord:
        named = {model.name: model for model in self.models}
        return named.get(self.summary.bundle.model, self.models[-1])

    @cached_property
    def data_warning(self) -> str | None:
        """What the check of the run's files found; None for generated images, which have none."""
        path = self.folder / DataRecord.FILE
        return DataRecord.read(path).warning if path.exists() else None

    @cached_property
    def gallery(self) -> GalleryRecord | None:
        path = self.folder / GalleryRecord.FILE
        return GalleryRecord.read(path) if path.exists() else None

    @cached_property
    def tail(self) -> TailRecord | None:
        """Where full networks end, where that was measured."""
        path = self.folder / TailRecord.FILE
        return TailRecord.read(path) if path.exists() else None

    @cached_property
    def comparisons(self) -> tuple[ComparisonRecord, ...]:
        """Controls and rivals, by budget."""
        paths = (self.folder / "compare" / f"{verdict.name}.json" for verdict in self.summary.budgets)
        return tuple(ComparisonRecord.read(path) for path in dict.fromkeys(paths) if path.exists())

    @cached_property
    def confusions(self) -> Mapping[str, tuple[Confusion, ...]]:
        """By model, what the board predicted on each image that it had an output for."""
        found = {}
        for model in self.models:
            journal = Journal.latest(self.folder / "evaluations" / f"{model.name}.jsonl", ImageScore)
            scores = {score.index: score for score in journal.read() if score.failure is None}
            if scores:
                found[model.name] = tuple(scores[index].confusions[BOARD] for index in sorted(scores))
        return found

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """By quantity (nsr, latency), the table that was searched last."""
        names = {"nsr": ("nsr",), "latency": ("latency-confirmed", "latency-corrected", "latency")}
        found = {}
        for quantity, files in names.items():
            paths = [self.folder / "tables" / f"{name}.parquet" for name in files]
            if there := [path for path in paths if path.exists()]:
                found[quantity] = Table.load(there[0])
        return found

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every one in the run's own store; none where another store was used."""
        from hil.store import Store

        path = self.folder / STORE
        if not path.exists():
            return ()
        with Store(path, create=False) as store:
            return tuple(store.all())

    @cached_property
    def state(self) -> RunState:
        path = self.folder / RunState.FILE
        return RunState.read(path) if path.exists() else RunState()


def architecture_of(model: ModelRecord) -> Architecture | None:
    """None of the teacher, whose layers are the space's."""
    return None if model.subnet == TEACHER else Architecture.parse(model.subnet)


def space_of(material: Material) -> SearchSpace | None:
    """The run's space, from its folder or by its name; None where it is not at hand any more."""
    path = material.folder / EXPERIMENT
    try:
        if path.exists():
            space = build(SearchSpace, read_json(path, ("space",))["space"], str(path))
        else:
            space = load_space(material.summary.space.name)
    except (NasError, HilError):
        return None
    return space if space.digest == material.summary.space.digest else None
