"""Final models with and without quantization-aware steps: what these are worth, to each by the same recipe.

Every model is evaluated as deployed on the validation images both ways. What the run did not train, as its recipe had
no such steps, is trained from the retrained weights and on the images that the run would have taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.networks import finish_path, finished_at, finishing, student_path
from deploy.run.quantizing import quantize_network
from deploy.run.records import FinalRecord, Record
from deploy.ship.evaluation import counted_on, simulated_confusions
from deploy.studies.final_networks import architectures_of, before_finish
from hil.errors import UsageError
from nas.networks.segmenter import Encoder
from nas.settings import STRICT
from nas.space import Architecture
from nas.tasks.confusion import Confusion
from nas.training.train import restore

STAGE = "finish"
BESIDE = "-also"  # in the names of checkpoints that no run makes


@dataclass(frozen=True)
class BothWays:
    """A final network: its score in percent without and with quantization-aware steps, and what they are of."""

    name: str
    plain_score: float
    finished_score: float
    plain: tuple[Confusion, ...]
    finished: tuple[Confusion, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class FinishRecord(Record):
    """Final networks both ways; `metric`: of the scores; `steps`: quantization-aware ones."""

    metric: str
    steps: int
    models: tuple[BothWays, ...]

    FILE: ClassVar[str] = "finish.json"
    COMMAND: ClassVar[str] = "study finish"


def both_ways(context: Context, names: Sequence[str]) -> Iterator[Progress]:
    """Every model both ways: finish.json in the folder of a finished run.

    Killed at any moment, it goes on. Raises `UsageError` for a name that the run has not, and for an experiment without
    such steps.
    """
    FinalRecord.read(context.path / FinalRecord.FILE)  # the students are final
    steps, architectures = check_steps(context), architectures_of(context, names)
    found = list[BothWays]()
    for number, (name, architecture) in enumerate(architectures.items(), start=1):
        model = before_finish(context, name, architecture)
        plain = evaluated(context, model, architecture)
        yield from finished_beside(context, model, name, architecture)
        finished = evaluated(context, model, architecture)
        without, with_them = (counted_on(context.val_data, confusions).score for confusions in (plain, finished))
        found.append(BothWays(name, without, with_them, plain, finished))
        yield Progress(STAGE, number, len(names), f"{name}: {without:.2f} % without, {with_them:.2f} % with")
    FinishRecord(context.task.metric, steps, tuple(found)).write(context.path / FinishRecord.FILE)


def check_steps(context: Context) -> int:
    """How many quantization-aware steps the recipe has; `UsageError` where it has none."""
    if not (steps := context.experiment.retrain.quantization_aware_steps):
        raise UsageError(
            f"{context.path}: its recipe has no quantization-aware steps (retrain.quantization_aware_steps)"
        )
    return steps


def evaluated(context: Context, model: Encoder, architecture: Architecture) -> tuple[Confusion, ...]:
    """The deployed integers of a trained network on the validation images."""
    return simulated_confusions(quantize_network(context, model.eval(), architecture), context.val_data)


def finished_beside(context: Context, model: Encoder, name: str, architecture: Architecture) -> Iterator[Progress]:
    """A retrained model with the finish of the run, or with one beside it, which is trained first."""
    if (made := finish_path(context, name)).exists():
        finished_at(context, model, architecture, made)
        return
    beside, key = finish_path(context, name + BESIDE), digest(context.keys["retrain"], str(architecture), STAGE)
    for step in finishing(context, model, architecture, beside, key):
        yield Progress(STAGE, step.step, step.steps, f"{beside.stem}: loss {step.loss:.3f}")
    restore(model.cpu(), student_path(context, name))
    finished_at(context, model, architecture, beside)
