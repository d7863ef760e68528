"""A bundle of what `hilnas quantize` wrote: its files, measured on a board, and with labelled images evaluated there.

The bundle's model is the file with its metadata completed: the ecosystem's, with labels where they are known. That one
is measured and evaluated.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deploy.compile.artifact import Artifact
from deploy.compile.canary import known_good
from deploy.compile.tails import CLASS_MAP, classes_of
from deploy.formats.digest import file_digest
from deploy.formats.tflite.metadata import Description
from deploy.formats.tflite.read import DTYPES, read
from deploy.formats.tflite.writer import described_again
from deploy.latency.table import summaries
from deploy.quantize.card import NetworkFacts, NetworkProvenance, network_card, noise_text, score_text
from deploy.quantize.record import QuantizationRecord
from deploy.run.folder import Progress
from deploy.run.records import LatencyRecord, Record
from deploy.ship.bundle import Contents, export
from deploy.ship.evaluate import evaluate, evaluation_folder
from deploy.ship.evaluated_models import ImagesAsked, file_model
from deploy.ship.evaluation import EvaluatedModel
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.golden import golden_folder
from deploy.ship.manifest import BundleMeasurement
from deploy.ship.model_ends import images_of
from deploy.ship.preprocessing import preprocessing
from deploy.ship.task_output import INDICES, TASK_OUTPUTS, TENSORS
from deploy.targets.inspection import inspect_model
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import UsageError
from hil.job import MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement
from hil.sessions import open_session
from hil.store import Store
from nas.data import Dataset
from nas.quant.tails import Sizes

STAGE = "measure"


@dataclass(frozen=True)
class BundleTrial:
    """What shows what a model does.

    Attributes:
        images: labelled ones; None: no metric, and no classes.
        evaluations: the folder of evaluations, which go on where they were stopped.
    """

    board: BoardConfig
    protocol: MeasureProtocol
    images: ImagesAsked | None
    evaluations: Path


@dataclass(frozen=True, eq=False)
class QuantizedFile:
    """A file of `hilnas quantize`, with what is known of its outputs.

    Attributes:
        task: a key of `TASK_OUTPUTS`.
        left: the resizes of its logits that the CPU makes before it takes the class map; None: it has no class map.
    """

    artifact: Artifact
    record: QuantizationRecord
    task: str = TENSORS
    classes: tuple[str, ...] = ()
    left: Sizes | None = None

    @classmethod
    def at(cls, path: Path) -> QuantizedFile:
        """The one that the record in a folder is of; `path`: the folder, or the file. Raises `UsageError`."""
        folder = path if path.is_dir() else path.parent
        if not (folder / QuantizationRecord.FILE).is_file():
            raise UsageError(f"{path}: no {QuantizationRecord.FILE} there; give what `hilnas quantize` wrote")
        record = QuantizationRecord.read(folder / QuantizationRecord.FILE)
        artifact = Artifact.at(folder, record.file_name)
        if not artifact.exists:
            raise UsageError(f"{artifact.model}: it, or its golden pair, is missing: quantize again")
        if path.is_file() and path.resolve() != artifact.model.resolve():
            raise UsageError(
                f"{path}: {QuantizationRecord.FILE} beside it is of {artifact.model.name}; give each its own --out"
            )
        kinds = [end.dtype for end in inspect_model(read(artifact.model)).outputs]
        return cls(artifact, record, INDICES if "INT32" in kinds else TENSORS)

    def of_data(self, model: EvaluatedModel, data: Dataset) -> QuantizedFile:
        """With the task and the classes of labelled data, where its one output is theirs."""
        output, one = model.output, len(read(self.artifact.model).outputs) == 1
        fits = output.shape[1:3] == data.size if output.size and not output.scores else output.scores
        if not one or not fits:
            return self
        left: Sizes | None = None
        if output.size:
            left = (data.size,) if output.scores else ()
        return QuantizedFile(self.artifact, self.record, data.task, data.classes, left)


def export_quantized(path: Path, out: Path, trial: BundleTrial) -> Generator[Progress, None, Path]:
    """Measure what is at `path`, and write its bundle to `out`.

    Raises `UsageError` for what `hilnas quantize` did not write, `ModelError` where its outputs on the board are not
    the golden ones, or do not fit the labelled images, `DataError`, `BoardError`.
    """
    written = QuantizedFile.at(path)
    if trial.images:
        written = written.of_data(*file_model(written.artifact.model, trial.images))
    with TemporaryDirectory(prefix="hilnas-bundle-") as scratch:
        staged = _staged(written, Path(scratch))
        measured = yield from _measured(staged, trial, Path(scratch))
        evaluation = (yield from _evaluated(staged, trial)) if trial.images else None
        latency = LatencyRecord.of(summaries(measured)[staged.name], measured)
        conditions = measured[0].conditions
        facts = NetworkFacts(written.record, NetworkProvenance.of(written.record), latency, conditions, evaluation)
        samples = tuple(one.latencies_us for one in measured)
        return export(_contents(written, staged, facts, BundleMeasurement(latency, conditions, samples)), out)


def _staged(written: QuantizedFile, folder: Path) -> Artifact:
    """The files as they ship: the metadata complete, golden outputs as the class maps that the CPU makes."""
    artifact, record = written.artifact, written.record
    staged, info = Artifact.at(folder, artifact.name), read(artifact.model)
    metadata = dict(inspect_model(info).hilnas or {})
    if written.left is not None:
        metadata[CLASS_MAP] = written.left
    images = images_of(info)
    grey = inspect_model(info).inputs[0].shape[-1:] == (1,)
    described = Description(
        record.model,
        f"{_what(written)}, quantized ({record.scheme}).",
        file_digest(artifact.model)[:16],
        written.classes,
        images.formula if images else None,
        "rgb" if images is None else "grey" if grey else images.colours,
    )
    staged.model.write_bytes(described_again(artifact.model.read_bytes(), metadata, described))
    as_shipped = _class_map(written)
    shutil.copyfile(artifact.input, staged.input)
    staged.expected.write_bytes(as_shipped(artifact.expected.read_bytes()))
    if golden_folder(artifact.model).is_dir():
        shutil.copytree(golden_folder(artifact.model), golden_folder(staged.model))
        for output in golden_folder(staged.model).glob("*.output.bin"):
            output.write_bytes(as_shipped(output.read_bytes()))
    return staged


def _class_map(written: QuantizedFile) -> Callable[[bytes], bytes]:
    """From the bytes of the file's output to those of the golden one."""
    left = written.left
    if not left:
        return bytes
    (end,) = inspect_model(read(written.artifact.model)).outputs

    def made(output: bytes) -> bytes:
        logits = np.frombuffer(output, DTYPES[end.dtype]).reshape(end.shape)
        return classes_of(logits, left).astype(np.int32).tobytes()

    return made


def _measured(staged: Artifact, trial: BundleTrial, scratch: Path) -> Generator[Progress, None, list[Measurement]]:
    total, found = trial.protocol.rounds, list[Measurement]()
    canary = known_good(scratch / "canary")
    with open_board(trial.board) as board, open_session(board) as session, Store(scratch / "store.sqlite") as store:
        yield Progress(STAGE, 0, total, "starts")
        for measurement in measure(session, [staged.job()], trial.protocol, store, canary=canary):
            found.append(measurement)
            yield Progress(STAGE, len(found), total, f"{staged.name} on {trial.board.name}", (measurement,))
    summaries(found)  # raises where it failed
    return found


def _evaluated(staged: Artifact, trial: BundleTrial) -> Generator[Progress, None, EvaluationRecord]:
    assert trial.images is not None  # noqa: S101 (for the type checker)
    model, data = file_model(staged.model, trial.images)
    folder = evaluation_folder(trial.evaluations, model, trial.images, trial.board)
    finished = yield from evaluate(model, data, trial.images, trial.board, folder)
    return finished.record


def _what(written: QuantizedFile) -> str:
    if not written.classes:
        count = len(written.record.outputs)
        return f"The network {written.record.model}, with {count} output{'' if count == 1 else 's'}"
    return f"{TASK_OUTPUTS[written.task].task} by the network {written.record.model}"


def _contents(
    written: QuantizedFile, staged: Artifact, facts: NetworkFacts, measurement: BundleMeasurement
) -> Contents:
    record, evaluation = written.record, facts.evaluation
    steps, ends = preprocessing(staged.model), inspect_model(read(staged.model)).outputs
    documents: dict[str, str | Record] = {
        "MODEL_CARD.md": network_card(f"{_what(written)}.", written.classes, steps, facts),
        NetworkProvenance.FILE: facts.provenance,
        QuantizationRecord.FILE: record,
    }
    metric = {}
    if evaluation:
        documents[EvaluationRecord.FILE] = replace(evaluation, model="model.tflite")
        metric = {f"{evaluation.metric.name}, {one.predictor}": score_text(one.score) for one in evaluation.scores}
    return Contents(
        name=re.sub(r"[^\w.+-]", "_", record.model, flags=re.ASCII) or "network",
        artifact=staged,
        task=written.task,
        classes=written.classes,
        measurement=measurement,
        facts={
            "outputs": ", ".join(f"{end.name} {end.dtype.lower()} {'x'.join(map(str, end.shape))}" for end in ends),
            "scheme": record.scheme,
            "calibrated on": record.data,
            "noise of the outputs": noise_text(record),
            **metric,
            "size": f"{staged.model.stat().st_size / 1000:.1f} kB",
            "latency": f"{facts.latency_us.median / 1000:.3f} ms median on {facts.conditions.board} "
            f"({facts.conditions.machine}, {facts.conditions.runtime})",
        },
        documents=documents,
    )
