"""What the study's runs hold of each model, image by image, as it is compared and as it is published."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.compare.records import ComparisonRecord, MethodRecord, RetrainedRecord
from deploy.formats.files import write_atomically
from deploy.formats.journal import Journal
from deploy.run.records import FinalRecord, ModelRecord
from deploy.ship.evaluation import BOARD, ImageScore
from deploy.studies.ablation import AblationRecord
from deploy.studies.camvid.plan import lcpaq_step, run_name
from deploy.studies.finish import FinishRecord
from deploy.studies.finished_controls import FinishedControls
from deploy.studies.widths import HomogeneousModel, WidthsRecord
from hil.errors import UsageError
from nas.tasks.confusion import Cell, Confusion, counted_cells
from nas.tasks.counted import Counted

CLASSES = 11  # of CamVid
COLUMNS = ["seed", "kind", "model", "image", "label", "predicted", "pixels"]
IMAGES = "camvid.parquet"
FINAL, PLAIN, FINISHED = "final", "without finish", "with finish"
"""Kinds of evidence: a run's final model, and what `hilnas study finish` makes of it."""
WITHOUT = "recipe without "


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """A model's confusions on the validation images, in their order.

    Attributes:
        kind: where it comes from: a run's final model, a control's method, a width.
    """

    seed: int
    kind: str
    name: str
    confusions: tuple[Confusion, ...]

    @property
    def counted(self) -> Counted:
        return counted_cells(self.confusions, CLASSES, dense=True)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One seed's run: its last record, and by name what the board predicted."""

    seed: int
    final: FinalRecord
    evidence: dict[str, ModelEvidence]

    @property
    def teacher(self) -> ModelRecord:
        return self.final.models[0]

    @classmethod
    def read(cls, folder: Path, seed: int) -> FinishedRun:
        """Raises `UsageError` for a run without its last record, or without every image's result."""
        final = FinalRecord.read(folder / FinalRecord.FILE)
        names = [model.name for model in (*final.models, final.teacher_plus)]
        return cls(seed, final, {name: _of_board(folder, seed, name) for name in names})


def _of_board(folder: Path, seed: int, name: str) -> ModelEvidence:
    path = folder / "evaluations" / f"{name}.jsonl"
    return ModelEvidence(seed, FINAL, name, _confusions(Journal.latest(path, ImageScore), run_name(seed)))


def _confusions(journal: Journal[ImageScore], step: str) -> tuple[Confusion, ...]:
    scores = {score.index: score for score in journal.read()}
    if not scores or any(score.failure for score in scores.values()):
        raise UsageError(
            f"{journal.path}: not every validation image has a result; run the study's step '{step}' again"
        )
    return tuple(scores[index].confusions[BOARD] for index in sorted(scores))


def compared(folder: Path, seed: int, budget: str) -> Iterator[tuple[MethodRecord, ModelEvidence]]:
    """What was retrained beside a run's model of that budget; its first retraining."""
    record = ComparisonRecord.read(folder / "compare" / f"{budget}.json")
    for method in record.methods:
        retrained = RetrainedRecord.read(folder / "compare" / "retrained" / f"{method.retrained[0]}.json")
        yield method, ModelEvidence(seed, f"{budget}: {method.method}", method.subnet, retrained.confusions)


def finished_controls(folder: Path, seed: int) -> dict[str, ModelEvidence]:
    """What was compared, with quantization-aware steps, by its retraining's key."""
    return {
        one.retrained: ModelEvidence(seed, f"{FINISHED}, {one.budget}: {one.method}", one.subnet, one.finished)
        for one in FinishedControls.read(folder / FinishedControls.FILE).winners
    }


def at_one_width(folder: Path, seed: int) -> Iterator[tuple[HomogeneousModel, ModelEvidence]]:
    for model in WidthsRecord.read(folder / WidthsRecord.FILE).models:
        yield model, ModelEvidence(seed, f"{model.bits} bits", model.name, model.confusions)


def policy_of_layers(folder: Path, seed: int, model: str, share: int, key: str) -> ModelEvidence:
    """What LCPAQ shipped of a model at a share of its size; `key`: of its images' results."""
    path = folder / "evaluations" / f"lcpaq-{model}.jsonl"
    return ModelEvidence(
        seed, f"LCPAQ at {share} %", model, _confusions(Journal(path, ImageScore, key), lcpaq_step(model, share))
    )


def both_ways(folder: Path, seed: int) -> Iterator[ModelEvidence]:
    """Final models without and with quantization-aware steps."""
    for one in FinishRecord.read(folder / FinishRecord.FILE).models:
        yield ModelEvidence(seed, PLAIN, one.name, one.plain)
        yield ModelEvidence(seed, FINISHED, one.name, one.finished)


def ablated(folder: Path, seed: int) -> Iterator[ModelEvidence]:
    """A final model without one part of the recipe after the other; the first has the whole recipe."""
    for one in AblationRecord.read(folder / AblationRecord.FILE).rows:
        yield ModelEvidence(seed, f"{WITHOUT}{one.without}", one.model, one.confusions)


def write_images(evidence: Sequence[ModelEvidence], path: Path) -> None:
    """Parquet, one row for each cell of each image's confusion matrix: what every figure can be computed from."""
    import pandas as pd

    rows = [
        (one.seed, one.kind, one.name, image, label, predicted, pixels)
        for one in evidence
        for image, cells in enumerate(one.confusions)
        for label, predicted, pixels in cells
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(
        {"kind": "category", "model": "category", "image": "uint16", "pixels": "uint32"}
        | dict.fromkeys(("seed", "label", "predicted"), "uint8")
    )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    write_atomically(path, buffer.getvalue())


def read_images(path: Path) -> list[ModelEvidence]:
    """What `write_images` wrote. Raises `UsageError` for another file."""
    import pandas as pd
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path, columns=COLUMNS)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UsageError(
            f"{path}: not the images' results of a study ({error}); give a folder that has its own"
        ) from error
    images = int(frame["image"].max()) + 1 if len(frame) else 0
    found: dict[tuple[int, str, str], list[list[Cell]]] = {}
    for seed, kind, model, image, *cell in frame.itertuples(index=False, name=None):
        of = found.setdefault((int(seed), kind, model), [[] for _ in range(images)])
        label, predicted, pixels = map(int, cell)
        of[image].append((label, predicted, pixels))
    return [ModelEvidence(*of, tuple(map(tuple, cells))) for of, cells in found.items()]
