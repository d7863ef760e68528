"""What a stage's result depends on: its key, and the settings behind it by name.

A stage is done as long as its key is the same. The key is a digest of the stage's version, of the settings that count
for it and are not at their defaults, and of the key of the stage before. So an option that is added with a default
changes no key. A default that is changed, or a stage that comes to do something else, raises the stage's number in
`STAGE_VERSIONS`, so that no old result passes for a new one.

Every field of a settings class counts, but those in the class's `NOT_IN_KEY`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from deploy.formats.digest import digest, file_digest
from deploy.run.config import Experiment
from deploy.run.settings.deployment import Deploy
from hil.boards.config import BoardConfig
from hil.errors import UsageError
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.space import SearchSpace

STAGE_VERSIONS: Mapping[str, int] = {
    "teacher": 2,
    "distil": 2,
    "tables": 2,
    "tail": 1,
    "profile": 3,
    "agree": 2,
    "schemes": 2,
    "search": 2,
    "retrain": 3,
    "ship": 3,
}
"""Of all stages in their order. Raise a stage's number when it does something else or one of its defaults changes."""


@dataclass(frozen=True)
class Setting:
    """One value that counts, by its name in the configuration; `given`: it is not the default."""

    name: str
    value: Any
    given: bool


@dataclass(frozen=True)
class StageIdentity:
    """What a stage is to be done under."""

    stage: str
    key: str
    version: int
    settings: tuple[Setting, ...]

    @property
    def values(self) -> dict[str, Any]:
        return {setting.name: setting.value for setting in self.settings}


def settings_in(value: object, name: str, default: object = MISSING) -> Iterator[Setting]:
    """The settings of one section or value, by dotted names; `default`: what it is if nobody says otherwise.

    `TypeError` for a value that JSON has not.
    """
    if is_dataclass(value) and not isinstance(value, type):
        if default is None:  # that it is there at all is a setting
            yield Setting(name, {}, given=True)
        alike = default if isinstance(value, type(default)) else None
        excluded: frozenset[str] = getattr(value, "NOT_IN_KEY", frozenset())
        for f in fields(value):
            if f.name not in excluded:
                inherited = _default(f) if alike is None else getattr(alike, f.name, _default(f))
                yield from settings_in(getattr(value, f.name), f"{name}.{f.name}", inherited)
    elif isinstance(value, Sequence) and value and all(is_dataclass(entry) for entry in value):
        yield Setting(f"{name}.count", len(value), given=True)
        for i, entry in enumerate(value):
            yield from settings_in(entry, f"{name}.{i}")
    else:
        yield Setting(name, _plain(value), given=default is MISSING or value != default)


def _default(f: Field[Any]) -> object:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _plain(value: object) -> Any:
    """As JSON reads it back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} {value!r} is no plain data: it cannot be in a key")


def settings_of(value: object) -> Any:
    """Settings, or a sequence of them, as plain data for `digest`: what counts and is not at its default."""
    return {setting.name: setting.value for setting in settings_in(value, "") if setting.given}


def encoder_digest(experiment: Experiment) -> str | None:
    """The sha256 of the file that the teacher's encoder starts from; `UsageError` if it is not there."""
    if not experiment.teacher.encoder_from:
        return None
    path = Path(experiment.teacher.encoder_from)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give --encoder-from a MobileNetV2 .tflite")
    return file_digest(path)


def _sections(
    experiment: Experiment,
    space: SearchSpace,
    boards: Sequence[BoardConfig],
    resize_factors: Sequence[int],
    arithmetic: Arithmetic,
) -> dict[str, dict[str, tuple[object, object]]]:
    """By stage and name what counts for it, each with its default.

    Sections of the experiment have those of `Experiment`; the rest is what the configuration stands for.
    """
    e, required = experiment, MISSING
    tail = {"deploy.tail": (e.deploy.tail or "classes", "classes")}
    defaults = {f.name: _default(f) for f in fields(Experiment)}

    def of(*names: str) -> dict[str, tuple[object, object]]:
        return {name: (getattr(e, name), defaults[name]) for name in names}

    found: dict[str, dict[str, tuple[object, object]]] = {
        "teacher": of("seed", "data", "teacher", "compute")
        | {"space": (space.digest, required), "teacher.encoder": (encoder_digest(e), None)},
        "distil": of("distil"),
        "tables": of("quantization") | {"space.bits": (space.bits, required)},
        "tail": tail | of("deploy"),
        "profile": of("profile") | tail | {f"boards.{board.name}": (board, required) for board in boards},
        "agree": of("agreement") | {"target.safe_resize_factors": (tuple(resize_factors), ())},
        "schemes": {
            "quantization.schemes": (e.quantization.schemes, ()),
            "target.arithmetic": (arithmetic, LITERT),  # int8, the main scheme's type, is the same under all
        },
        "search": of("budgets", "search") | (of("predictor") if e.predictor.objective else {}),
        "retrain": of("retrain"),
        "ship": {"deploy.golden_images": (e.deploy.golden_images, Deploy.golden_images)},
    }
    if not e.quantization.schemes:
        del found["schemes"]  # no such stage, and the others' keys are those of a run without one
    if e.deploy.tail != "auto":
        del found["tail"]
    return found


def stage_identities(
    experiment: Experiment,
    space: SearchSpace,
    boards: Sequence[BoardConfig],
    resize_factors: Sequence[int] = (),
    arithmetic: Arithmetic = LITERT,
) -> dict[str, StageIdentity]:
    """The identity of each stage that the experiment has, in their order."""
    identities, previous = {}, ""
    for stage, sections in _sections(experiment, space, boards, resize_factors, arithmetic).items():
        found = [settings_in(value, name, default) for name, (value, default) in sections.items()]
        settings = tuple(setting for section in found for setting in section)
        version, given = STAGE_VERSIONS[stage], {s.name: s.value for s in settings if s.given}
        previous = digest(previous, stage, version, given)
        identities[stage] = StageIdentity(stage, previous, version, settings)
    return identities
