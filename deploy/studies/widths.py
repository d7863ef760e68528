"""Final networks at one width everywhere: what blocks of different widths have to be better than.

Each starts from the retrained weights in float, is trained on as the integers that it becomes, as the run's models
are, and evaluated as deployed on the validation images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.networks import finish_path, finished_at, finishing, has_finish, student_path
from deploy.run.quantizing import quantize_network
from deploy.run.records import Record
from deploy.ship.evaluation import counted_on, simulated_confusions
from deploy.studies.final_networks import architectures_of, before_finish
from hil.errors import UsageError
from nas.networks.segmenter import Encoder
from nas.settings import STRICT
from nas.space import Architecture
from nas.tasks.confusion import Confusion
from nas.training.train import restore

WIDTHS = range(2, 9)
STAGE = "widths"


@dataclass(frozen=True)
class HomogeneousModel:
    """A final network with every block at `bits`; the score in percent, and the confusions that it is of."""

    name: str
    bits: int
    subnet: str
    score: float
    size_bits: int
    confusions: tuple[Confusion, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class WidthsRecord(Record):
    """Final networks at one width; `metric`: of the scores; `steps`: of training as integers."""

    metric: str
    steps: int
    models: tuple[HomogeneousModel, ...]

    FILE: ClassVar[str] = "widths.json"
    COMMAND: ClassVar[str] = "study widths"


def homogeneous(context: Context, names: Sequence[str], widths: Sequence[int]) -> Iterator[Progress]:
    """Every model at every width: widths.json in the folder of a finished run.

    Killed at any moment, it goes on. Raises `UsageError` for a name that the run has not, and a width that is none.
    """
    layers, found = architectures_of(context, names), list[HomogeneousModel]()
    if wrong := [bits for bits in widths if bits not in WIDTHS]:
        raise UsageError(f"--bits {wrong[0]}: weights have {WIDTHS.start} to {WIDTHS.stop - 1} bits")
    pairs = [(name, bits) for name in names for bits in widths]
    for i, (name, bits) in enumerate(pairs):
        architecture = at_width(layers[name], bits)
        model = before_finish(context, name, architecture)
        yield from _finish(context, model, name, architecture)
        graph = quantize_network(context, model.eval(), architecture)
        confusions = simulated_confusions(graph, context.val_data)
        score = counted_on(context.val_data, confusions).score
        found.append(HomogeneousModel(name, bits, str(architecture), score, graph.size_bits, confusions))
        yield Progress(STAGE, i + 1, len(pairs), f"{name} at {bits} bits: {score:.2f} %")
    WidthsRecord(context.task.metric, context.experiment.retrain.quantization_aware_steps, tuple(found)).write(
        context.path / WidthsRecord.FILE
    )


def at_width(architecture: Architecture, bits: int) -> Architecture:
    return Architecture(tuple(replace(subnet, bits=bits) for subnet in architecture.subnets))


def _finish(context: Context, model: Encoder, name: str, architecture: Architecture) -> Iterator[Progress]:
    """`model` with its weights of that width."""
    if not has_finish(context):
        return
    finish = finish_path(context, f"{name}-{architecture.subnets[0].bits}bits")
    key = digest(context.keys["retrain"], str(architecture))
    for step in finishing(context, model, architecture, finish, key):
        yield Progress(STAGE, step.step, step.steps, f"{finish.stem}: loss {step.loss:.3f}")
    restore(model.cpu(), student_path(context, name))
    finished_at(context, model, architecture, finish)
