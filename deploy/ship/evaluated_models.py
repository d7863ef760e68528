"""What can be evaluated: any .tflite file of an image, and a run's models with their integers and floats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.compile.artifact import Artifact, arithmetic_of, kernels_of
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.tflite.input_shapes import resized
from deploy.formats.tflite.normalization import Normalization
from deploy.formats.tflite.read import ModelInfo, parse, read
from deploy.formats.tflite.writer import write
from deploy.run.context import Context
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import FinalRecord, ModelRecord
from deploy.run.settings.deployment import TEACHER
from deploy.ship.evaluation import FLOAT, INTEGER, EvaluatedModel, float_predict, integer_predict
from deploy.ship.model_ends import input_of, output_of
from hil.boards.config import BoardConfig
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape
from nas.data import Dataset, open_data
from nas.data.middle import Middle
from nas.networks.segmenter import Encoder
from nas.quant.tails import in_file
from nas.space import Architecture
from nas.tasks.task import TASKS
from nas.training.train import restore


@dataclass(frozen=True)
class ImagesAsked:
    """Which images: spec and split of a data set, the seed of generated ones, and how many (None: all)."""

    spec: str
    split: str
    seed: int = 0
    count: int | None = None

    def open(self, size: tuple[int, int]) -> Dataset:
        """At (H, W). Raises ConfigError, DataError."""
        return open_data(self.spec, self.split, size, seed=self.seed, count=self.count)


def file_model(
    path: Path,
    images: ImagesAsked,
    given: Normalization | None = None,
    name: str | None = None,
    input_shapes: tuple[InputShape, ...] = (),
) -> tuple[EvaluatedModel, Dataset]:
    """The model of a file, and the images at its size.

    `given`: how pixels become numbers, before what the file says. `input_shapes`: as of a job. Raises `ModelError`
    naming the file and what of it cannot be evaluated, `UsageError`, `ConfigError`, `DataError`.
    """
    with _naming(path):
        source = input_of(_sized(path, input_shapes), given)
    data = Middle(images.open(source.resized), source.size) if source.resized else images.open(source.size)
    return model_on(path, data, name or path.stem, given, input_shapes), data


def model_on(
    path: Path,
    data: Dataset,
    name: str,
    given: Normalization | None = None,
    input_shapes: tuple[InputShape, ...] = (),
) -> EvaluatedModel:
    """The model of a file for images that have its size; other arguments and errors as of `file_model`."""
    model = _sized(path, input_shapes)
    with _naming(path):
        source = input_of(model, given)
        output = output_of(model, TASKS[data.task], data.classes, data.size)
    return EvaluatedModel(name, path, source, output, input_shapes=input_shapes)


def run_model(
    context: Context, name: str | None, images: ImagesAsked, board: BoardConfig | None = None
) -> tuple[EvaluatedModel, Dataset]:
    """A finished run's model by name (None: the bundle's), with the integers and floats behind its file.

    The integers are simulated as `board` (None: the run's) computes them. Raises `UsageError` for a name that the run
    has not, and where the file is not what the configuration's network quantizes to: then it is of another one.
    """
    final = FinalRecord.read(context.path / FinalRecord.FILE)
    record = model_record(final, name or final.bundle.model, context.path)
    path = Artifact.at(context.path / "models", record.name).model
    model, data = file_model(path, images, name=record.name)
    settings, task = context.experiment.quantization, TASKS[data.task]
    architecture = None if record.subnet == TEACHER else Architecture.parse(record.subnet)
    scheme = QuantizationScheme.parse(record.scheme) if record.scheme else settings.main_scheme
    network = _teacher(context) if record.name == TEACHER else retrained(context, record.name, architecture)
    graph = quantize_network(context, network, architecture, scheme=scheme.scheme(settings.scheme))
    written = write(in_file(graph, context.tail)[0], form=scheme.form)
    if _network(parse(written, record.name)) != _network(read(path)):
        raise UsageError(
            f"{path}: not the file that configuration '{context.experiment.name}' gives; name the one of the run "
            f"(--config, --data), or evaluate the file alone: hilnas evaluate {path} --data {images.spec}"
        )
    arithmetic = arithmetic_of(context.target_of(board) if board else context.target)
    others = {
        INTEGER: integer_predict(graph, task, kernels_of(scheme.form, arithmetic)),
        FLOAT: float_predict(network, data),
    }
    return replace(model, others=others, arithmetic=arithmetic), data


def model_record(final: FinalRecord, name: str, where: Path) -> ModelRecord:
    """`UsageError` naming the models that there are."""
    models = {model.name: model for model in (*final.models, final.teacher_plus)}
    if name not in models:
        raise UsageError(f"{where}: no model '{name}'; there are {', '.join(models)}")
    return models[name]


def _teacher(context: Context) -> Encoder:
    """By whatever settings it was trained: the file has to be the same."""
    teacher = context.untrained_teacher()
    restore(teacher, context.path / "teacher.pt")
    return teacher.eval()


def _network(model: ModelInfo) -> object:
    """All that a file computes with; its metadata names the run."""
    tensors = [
        (t.name, t.shape, t.dtype, t.scale.tobytes(), t.zero_point.tobytes(), bytes(t.data)) for t in model.tensors
    ]
    operators = [(op.name, op.inputs, op.outputs, op.options) for op in model.operators]
    return tensors, operators, model.inputs, model.outputs


def _sized(path: Path, shapes: Sequence[InputShape]) -> ModelInfo:
    """The model in a file, at these sizes of its inputs."""
    model = read(path)
    return resized(model, path.read_bytes(), shapes, str(path)) if shapes else model


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
