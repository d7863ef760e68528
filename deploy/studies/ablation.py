"""Parts of the recipe left out one at a time: what each is worth to a final model, all else as in the run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from deploy.formats.digest import digest
from deploy.pipeline.explain import changed_settings
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.networks import has_finish, retrained_beside, start_of_retraining
from deploy.run.records import FinalRecord, Record, RunState
from deploy.run.settings.deployment import TEACHER_PLUS
from deploy.ship.evaluation import counted_on
from deploy.studies.final_networks import architectures_of, before_finish, final_names
from deploy.studies.finish import evaluated, finished_beside
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.settings import STRICT
from nas.space import Architecture
from nas.tasks.confusion import Confusion
from nas.tasks.counted import paired_difference

STAGE = "ablation"
NOTHING = "nothing"
START = "the supernets' weights"


def _retrain(**changes: object) -> Callable[[Experiment], Experiment]:
    return lambda experiment: replace(experiment, retrain=replace(experiment.retrain, **changes))  # type: ignore[arg-type]


WITHOUT: Mapping[str, Callable[[Experiment], Experiment]] = {
    NOTHING: lambda experiment: experiment,
    START: _retrain(start="scratch"),
    "soft targets": _retrain(distillation=0.0),
    "the teacher's maps": _retrain(boundaries=0.0),
    "averaged weights": _retrain(average=0.0),
    "quantization-aware steps": _retrain(quantization_aware_steps=0),
    "crops": lambda experiment: replace(experiment, data=replace(experiment.data, crop=None)),
}
"""By what is left out: the experiment without it. Without crops, whole images are trained on at the deployed size."""

PARTS = tuple(part for part in WITHOUT if part != NOTHING)


@dataclass(frozen=True)
class Ablated:
    """A final model retrained without a part of the recipe.

    Attributes:
        without: a key of `WITHOUT`.
        score: of the deployed integers on the validation images, in percent, which `confusions` are of.
        change: in points, from the model with the whole recipe, over the images.
    """

    model: str
    without: str
    score: float
    change: Estimate
    confusions: tuple[Confusion, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class AblationRecord(Record):
    """`metric`: of the scores."""

    metric: str
    rows: tuple[Ablated, ...]

    FILE: ClassVar[str] = "ablation.json"
    COMMAND: ClassVar[str] = "study ablation"


@dataclass(frozen=True)
class RetrainedWithout(Record):
    """One row while the others are still trained."""

    subnet: str
    score: float
    confusions: tuple[Confusion, ...]

    FILE: ClassVar[str] = "ablation/KEY.json"
    COMMAND: ClassVar[str] = "study ablation"


def check_parts(parts: Sequence[str]) -> None:
    """Raises `UsageError` for what is no part of a recipe."""
    if unknown := [part for part in parts if part not in WITHOUT]:
        raise UsageError(f"--without {unknown[0]}: no part of a recipe; there are {', '.join(PARTS)}")


def ablation(context: Context, names: Sequence[str], parts: Sequence[str] = PARTS) -> Iterator[Progress]:
    """ablation.json in the folder of a finished run, with what earlier commands left out of the same recipe.

    What the recipe does not have is not left out; the teacher trained on starts as the teacher, so it has no `START` to
    lose. Killed at any moment, it goes on. Raises `UsageError` for a name that the run has not.
    """
    FinalRecord.read(context.path / FinalRecord.FILE)  # what is selected is final
    check_parts(parts)
    known = architectures_of(context, final_names(context))
    for name, architecture in architectures_of(context, names).items():
        for without, changed in _recipes(context, name):
            if without in (NOTHING, *parts):
                yield Progress(STAGE, 0, 1, f"{name} without {without}")
                found = yield from _retrained(changed, name, without, architecture)
                yield Progress(STAGE, 1, 1, f"{name} without {without}: {found.score:.2f} %")
    rows = [row for name, architecture in known.items() for row in _made(context, name, architecture)]
    AblationRecord(context.task.metric, tuple(rows)).write(context.path / AblationRecord.FILE)


def _recipes(context: Context, name: str) -> Iterator[tuple[str, Context]]:
    """What a final model's recipe may lose, each with the run as it is then; the whole recipe first."""
    for without, change in WITHOUT.items():
        experiment = change(context.experiment)
        if without == NOTHING or not (experiment == context.experiment or (name == TEACHER_PLUS and without == START)):
            yield without, _with(context, experiment)


def _made(context: Context, name: str, architecture: Architecture) -> Iterator[Ablated]:
    """All rows that there are of a model."""
    whole = None
    for without, changed in _recipes(context, name):
        if (path := _path(changed, name, architecture)).exists():
            found = RetrainedWithout.read(path)
            counted = counted_on(context.val_data, found.confusions)
            whole = whole or counted
            difference = paired_difference([counted], [whole])
            yield Ablated(name, without, found.score, difference, found.confusions)


def _with(context: Context, experiment: Experiment) -> Context:
    """The run's networks and calibration under another recipe."""
    _ = context.val_data, context.calibration, context.teacher, context.supernets
    other = copy.copy(context)
    if experiment.data != context.experiment.data:
        for cached in ("training_split", "_training_parts"):
            other.__dict__.pop(cached, None)
    other.experiment = experiment
    return other


def _path(context: Context, name: str, architecture: Architecture) -> Path:
    e = context.experiment
    recipe = settings_of(e.retrain), settings_of(e.data), settings_of(e.quantization), e.seed
    start = (TEACHER_PLUS,) if name == TEACHER_PLUS else ()
    return context.path / STAGE / f"{digest(context.keys['distil'], str(architecture), *start, *recipe)}.json"


def _retrained(
    context: Context, name: str, without: str, architecture: Architecture
) -> Generator[Progress, None, RetrainedWithout]:
    path = _path(context, name, architecture)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        if without == NOTHING and _is_of_this_recipe(context):
            model = before_finish(context, name, architecture)
            if has_finish(context):
                yield from finished_beside(context, model, name, architecture)
        else:
            of_teacher = name == TEACHER_PLUS
            model = copy.deepcopy(context.teacher) if of_teacher else start_of_retraining(context, architecture)
            for step in retrained_beside(context, model, architecture, path.with_suffix(".pt"), path.stem):
                yield Progress(STAGE, step.step, step.steps, f"{name} without {without}: loss {step.loss:.3f}")
        confusions = evaluated(context, model, architecture)
        score = counted_on(context.val_data, confusions).score
        RetrainedWithout(str(architecture), score, confusions).write(path)
    return RetrainedWithout.read(path)


def _is_of_this_recipe(context: Context) -> bool:
    """Whether the run's own students are: then none is retrained again."""
    made = RunState.read(context.path / RunState.FILE).stages["retrain"].settings
    return not changed_settings(made, context.identities["retrain"])
