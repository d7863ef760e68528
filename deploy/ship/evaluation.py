"""A model scored image by image: by a board's own answers, by integers and floats on this machine, on the same images.

What is scored is on disk at once, a batch's images together, and is not scored again: a killed evaluation goes on.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice, tee
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.journal import Journal
from deploy.ship.model_ends import ModelInput, ModelOutput
from hil.errors import ModelError
from hil.input_shape import InputShape
from hil.job import Job
from hil.outputs import InputOutputs, outputs_of
from hil.sessions import JobSession
from nas.data import Dataset, Sample
from nas.data.batches import normalize
from nas.data.files import PairedFiles
from nas.data.folders import LabelledFiles
from nas.data.middle import Middle
from nas.data.part import Part
from nas.errors import DataError
from nas.quant import simulate
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.quant.integer_graph import IntegerGraph
from nas.quant.simulate import Applied
from nas.tasks.confusion import Confusion, confusion, counted_cells
from nas.tasks.counted import Counted
from nas.tasks.task import TASKS, Network, Task

BOARD, INTEGER, HOST, FLOAT = "board", "integer simulation", "this machine", "float network"
"""What predicts, by the name in records. HOST is the file itself, run by this machine's runtime."""

AT_ONCE = 16  # images that are scored, and stored, together
Predict: TypeAlias = Callable[[Sequence[Sample]], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A file, and what else predicts what it predicts.

    Attributes:
        input, output: of the file.
        others: by name (INTEGER, FLOAT), from samples to their classes (N, H, W), or (N,).
        arithmetic: that INTEGER follows.
        input_shapes: as of a job.
    """

    name: str
    path: Path
    input: ModelInput
    output: ModelOutput
    others: Mapping[str, Predict] = field(default_factory=dict)
    arithmetic: Arithmetic = LITERT
    input_shapes: tuple[InputShape, ...] = ()

    @property
    def job(self) -> Job:
        return Job(self.path, self.path.name, input_shapes=self.input_shapes)


@dataclass(frozen=True)
class ImageScore:
    """One image.

    Attributes:
        index: in the data set; `digest`: of its pixels and labels.
        confusions: by what predicted; none where a device failed, so that all are scored on the same images.
        differing: the share of pixels (of an image's class 0 or 1) that the first two of those predict otherwise; None
            where only one predicts.
        failure: why a device had no output for it; None where all had.
    """

    index: int
    digest: str
    confusions: Mapping[str, Confusion]
    differing: float | None = None
    failure: str | None = None


def integer_predict(graph: IntegerGraph, task: Task, kernels: Applied) -> Predict:
    """The integers of the deployed network, by these kernels."""

    def predict(samples: Sequence[Sample]) -> NDArray[np.int64]:
        q = simulate.quantize(normalize([sample.image for sample in samples]), graph.tensors[graph.input])
        return np.asarray(task.integer_predictions(simulate.run(graph, q, kernels)).numpy(), np.int64)

    return predict


def simulated_confusions(
    graph: IntegerGraph, data: Dataset, kernels: Applied = simulate.apply
) -> tuple[Confusion, ...]:
    """Of each image, by the integers of the deployed network."""
    predict, found = integer_predict(graph, TASKS[data.task], kernels), list[Confusion]()
    for start in range(0, len(data), AT_ONCE):
        samples = [data[index] for index in range(start, min(start + AT_ONCE, len(data)))]
        classes = predict(samples)
        found += [confusion(classes[i], sample.label, len(data.classes)) for i, sample in enumerate(samples)]
    return tuple(found)


def counted_on(data: Dataset, confusions: Sequence[Confusion]) -> Counted:
    """What the metric of a data set counts on images of these confusions."""
    return counted_cells(confusions, len(data.classes), dense=TASKS[data.task].dense)


def float_predict(model: Network, data: Dataset) -> Predict:
    model.eval()
    task = TASKS[data.task]

    def predict(samples: Sequence[Sample]) -> NDArray[np.int64]:
        with torch.no_grad():
            logits = model(normalize([sample.image for sample in samples]))
            return np.asarray(task.predictions(logits, data.size).numpy(), np.int64)

    return predict


def image_scores(
    model: EvaluatedModel,
    data: Dataset,
    devices: Mapping[str, JobSession],
    journal: Journal[ImageScore],
    *,
    canary: Job | None = None,
    retry_failed: bool = False,
) -> Iterator[ImageScore]:
    """Every image's score, those of the journal first; new ones are in it when they are yielded.

    `devices`: sessions that run the file, by name (BOARD, HOST). `retry_failed`: images that failed are run again.
    Raises what `outputs_of` raises, `DataError` naming the image whose file or label is wrong, and `ModelError` where a
    class is predicted that the data set has not.
    """
    kept = {i: s for i, s in _kept(journal, data).items() if s.failure is None or not retry_failed}
    yield from kept.values()
    todo = [index for index in range(len(data)) if index not in kept]
    waiting: deque[Sample] = deque()

    def inputs() -> Iterator[bytes]:
        for index in todo:
            sample = data[index]
            waiting.append(sample)
            yield model.input.encode(sample.image)

    runs = any(score.failure is None for score in kept.values())
    read, *given = tee(inputs(), 1 + len(devices))
    with ExitStack() as streams:
        answers = {
            name: streams.enter_context(closing(outputs_of(session, model.job, stream, canary=canary, runs=runs)))
            for (name, session), stream in zip(devices.items(), given, strict=True)
        }
        for start in range(0, len(todo), AT_ONCE):
            indices = todo[start : start + AT_ONCE]
            outputs = {name: list(islice(stream, len(indices))) for name, stream in answers.items()}
            for _ in islice(read, len(indices)):
                pass
            samples = [waiting.popleft() for _ in indices]
            scores = _scored(model, data, dict(zip(indices, samples, strict=True)), outputs)
            journal.append(*scores)
            yield from scores


def image_name(data: Dataset, index: int) -> str:
    """The file of a stored image, or its place in a generated data set."""
    match data:
        case Part():
            return image_name(data.data, data.indices[index])
        case Middle():
            return image_name(data.data, index)
        case PairedFiles():
            return str(data.pairs[index].image)
        case LabelledFiles():
            return str(data.files[index].image)
    return f"{data.name} {index}"


def _kept(journal: Journal[ImageScore], data: Dataset) -> dict[int, ImageScore]:
    """What the journal holds of images that are still the same, in their order."""
    latest = {score.index: score for score in journal.read() if 0 <= score.index < len(data)}
    same = (index for index in sorted(latest) if latest[index].digest == _digest(data[index]))
    return {index: latest[index] for index in same}


def _digest(sample: Sample) -> str:
    return hashlib.sha256(sample.image.tobytes() + sample.label.tobytes()).hexdigest()[:16]


def _scored(
    model: EvaluatedModel,
    data: Dataset,
    samples: Mapping[int, Sample],
    outputs: Mapping[str, Sequence[InputOutputs]],
) -> list[ImageScore]:
    """The scores of a few images; `outputs` of each device, in their order."""
    others = {name: predict(list(samples.values())) for name, predict in model.others.items()}
    scores = []
    for i, (index, sample) in enumerate(samples.items()):
        failures = [f"{name}: {found[i].failure}" for name, found in outputs.items() if found[i].failure is not None]
        if failures:
            scores.append(ImageScore(index, _digest(sample), {}, failure="; ".join(failures)))
            continue
        predicted = {name: model.output.classes(found[i].data) for name, found in outputs.items()}
        predicted |= {name: classes[i] for name, classes in others.items()}
        where = image_name(data, index)
        confusions = {
            name: _confusion(classes, sample, data, f"{where}, {name}") for name, classes in predicted.items()
        }
        first, *rest = predicted.values()
        differing = float(np.mean(first != rest[0])) if rest else None
        scores.append(ImageScore(index, _digest(sample), confusions, differing))
    return scores


def _confusion(predicted: NDArray[np.int64], sample: Sample, data: Dataset, where: str) -> Confusion:
    classes = len(data.classes)
    if not 0 <= predicted.min() <= predicted.max() < classes:
        raise ModelError(
            f"{where}: class {predicted.min() if predicted.min() < 0 else predicted.max()} is predicted, "
            f"but {data.name} names {classes} (0 to {classes - 1}); evaluate it on the data set of its classes"
        )
    try:
        return confusion(predicted, sample.label, classes)
    except DataError as error:
        raise DataError(f"{where.rpartition(', ')[0]}: {error}; fix the label, or store 255 where it is void") from None
