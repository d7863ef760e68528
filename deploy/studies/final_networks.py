"""The final networks of a finished run by their names: the selected ones, and the teacher trained on."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.run.context import Context
from deploy.run.networks import student_path
from deploy.run.records import SearchRecord
from deploy.run.settings.deployment import TEACHER_PLUS
from hil.errors import UsageError
from nas.networks.segmenter import Encoder
from nas.space import Architecture, Subnet
from nas.training.train import restore


def final_names(context: Context) -> list[str]:
    """The teacher trained on, and the selected models."""
    return [TEACHER_PLUS, *(entry.name for entry in SearchRecord.read(context.path / SearchRecord.FILE).selected)]


def architectures_of(context: Context, names: Sequence[str]) -> dict[str, Architecture]:
    """By name; the teacher's has 8 bits. Raises `UsageError` for a name that the run has not."""
    selected = SearchRecord.read(context.path / SearchRecord.FILE).selected
    teacher = tuple(Subnet(i, tuple(choices), 8) for i, choices in enumerate(context.space.teacher_layers, start=1))
    known = {TEACHER_PLUS: Architecture(teacher), **{entry.name: entry.architecture for entry in selected}}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--models {unknown[0]}: {context.path} has no such model; there are {', '.join(known)}")
    return {name: known[name] for name in names}


def before_finish(context: Context, name: str, architecture: Architecture) -> Encoder:
    """The network as it was retrained, without quantization-aware steps."""
    model = context.untrained_teacher() if name == TEACHER_PLUS else context.student(architecture)
    restore(model, student_path(context, name))
    return model
