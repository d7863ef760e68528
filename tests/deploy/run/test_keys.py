"""A stage's key: what counts and what does not, options that are added, defaults that change."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from deploy.formats.digest import digest
from deploy.run import keys
from deploy.run.config import Experiment, Overrides, load_experiment
from deploy.run.keys import STAGE_VERSIONS, encoder_digest, settings_in, settings_of, stage_identities
from deploy.run.settings.deployment import Agreement, Budget, Deploy, Measuring, Profile, Quantization
from deploy.run.settings.search import Predictor, Search
from deploy.run.settings.training import Data, Distil, Retrain, Teacher
from hil.boards.config import BoardConfig
from nas.space import SearchSpace
from nas.training.device import Compute
from nas.training.train import Schedule
from tests.deploy.tiny_experiment import write_experiment

BOARD = BoardConfig("pi", "ssh", host="10.0.0.1", user="root")
SECTIONS: dict[str, tuple[type, ...]] = {
    "teacher": (Experiment, Data, Teacher, Schedule, Compute, *get_args(get_type_hints(Teacher)["head"])),
    "distil": (Distil, Schedule),
    "tables": (Quantization,),
    "tail": (Deploy,),
    "profile": (Profile, BoardConfig),
    "agree": (Agreement, Measuring),
    "schemes": (),
    "search": (Budget, Search, Predictor, Schedule),
    "retrain": (Retrain,),
    "ship": (),
}
"""The settings classes that count for each stage."""


def defaults(classes: tuple[type, ...]) -> dict[str, Any]:
    """Of every option that counts, by class and name."""
    found: dict[str, Any] = {}
    for cls in classes:
        for f in fields(cls):
            default = keys._default(f)
            required = repr(default) == repr(field().default)
            if required or f.name in getattr(cls, "NOT_IN_KEY", ()) or (cls is Experiment and is_dataclass(default)):
                continue
            for setting in settings_in(default, f"{cls.__name__}.{f.name}"):
                found[setting.name] = setting.value
    return found


PINNED = Path(__file__).with_name("defaults.json")
"""By stage its version and its defaults: `python -m tests.deploy.run.test_keys` writes it anew."""


def now() -> dict[str, dict[str, Any]]:
    return {stage: {"version": STAGE_VERSIONS[stage], "defaults": defaults(SECTIONS[stage])} for stage in SECTIONS}


def unraised(stage: str) -> list[str]:
    """The stage's defaults that are other ones, or gone, while its version is the pinned one."""
    pinned = json.loads(PINNED.read_text())[stage] if PINNED.exists() else {"version": 0, "defaults": {}}
    old, new = pinned["defaults"], now()[stage]["defaults"]
    return [name for name in old if old[name] != new.get(name)] if pinned["version"] == STAGE_VERSIONS[stage] else []


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Experiment, SearchSpace]:
    return load_experiment(write_experiment(tmp_path), Overrides())


def keys_of(experiment: Experiment, space: SearchSpace, board: BoardConfig = BOARD, factors=()) -> dict[str, str]:
    return {name: one.key for name, one in stage_identities(experiment, space, [board], factors).items()}


def first_change(before: dict[str, str], after: dict[str, str]) -> str | None:
    """The first stage with another key; all later ones must have other keys too."""
    names = list(before)
    different = [name for name in names if before[name] != after[name]]
    assert different == names[len(names) - len(different) :]
    return different[0] if different else None


def with_more(value: Any, given: object = None) -> Any:
    """A settings object, and all those in it, of a later version: each has one more option, which is at its default."""
    if not is_dataclass(value):
        return tuple(map(with_more, value)) if isinstance(value, tuple) else value
    cls = make_dataclass(type(value).__name__, [("added", int, field(default=7))], bases=(type(value),), frozen=True)
    return cls(**{f.name: with_more(getattr(value, f.name)) for f in fields(value)})


def test_an_option_that_is_added_changes_no_key(tiny):
    """In every section, nested ones and the board's too."""
    experiment, space = tiny
    experiment = replace(experiment, predictor=Predictor(objective=True, schedule=Schedule(3)))
    later = with_more(experiment)
    assert type(later.agreement.measuring) is not Measuring and type(later.budgets[0]) is not Budget
    assert keys_of(later, space, with_more(BOARD)) == keys_of(experiment, space)
    names = {s.name for one in stage_identities(later, space, [with_more(BOARD)]).values() for s in one.settings}
    for name in ("data", "teacher", "teacher.head", "teacher.schedule", "compute", "distil", "quantization", "profile",
                 "boards.pi", "agreement", "agreement.measuring", "budgets.0", "search", "predictor",
                 "predictor.schedule", "retrain"):  # fmt: skip
        assert f"{name}.added" in names


CHANGES: list[tuple[str, Any]] = [
    ("teacher", lambda e: replace(e, seed=1)),
    ("teacher", lambda e: replace(e, data=replace(e.data, val=5))),
    ("teacher", lambda e: replace(e, compute=replace(e.compute, precision="bfloat16"))),
    ("teacher", lambda e: replace(e, teacher=replace(e.teacher, head=replace(e.teacher.head, rates=(2, 4))))),
    ("distil", lambda e: replace(e, distil=replace(e.distil, views=0))),
    ("tables", lambda e: replace(e, quantization=replace(e.quantization, equalize=True))),
    ("profile", lambda e: replace(e, profile=replace(e.profile, runs=4))),
    ("agree", lambda e: replace(e, agreement=replace(e.agreement, top=3))),
    ("agree", lambda e: replace(e, agreement=replace(e.agreement, measuring=Measuring(rounds=9)))),
    ("search", lambda e: replace(e, budgets=(*e.budgets, Budget("small", size=0.5)))),
    ("search", lambda e: replace(e, predictor=Predictor(objective=True))),
    ("search", lambda e: replace(e, search=replace(e.search, measured=6))),
    ("retrain", lambda e: replace(e, retrain=replace(e.retrain, start="scratch"))),
    ("profile", lambda e: replace(e, deploy=Deploy("logits"))),
    ("ship", lambda e: replace(e, deploy=Deploy(golden_images=2))),
    (None, lambda e: replace(e, deploy=Deploy("classes", tolerance=9.0))),
    (None, lambda e: replace(e, distil=replace(e.distil, views=None, cache_gb=0.0))),
    (None, lambda e: replace(e, agreement=replace(e.agreement, tau=0.5))),
    (None, lambda e: replace(e, name="another", space="elsewhere.toml", board="other")),
    (None, lambda e: replace(e, compare=replace(e.compare, evaluations=3))),
    (None, lambda e: replace(e, compute=replace(e.compute, device="cpu"))),
    (None, lambda e: replace(e, predictor=Predictor(models=9))),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "change"), CHANGES)
def test_what_counts_for_which_stage(tiny, stage, change):
    experiment, space = tiny
    assert first_change(keys_of(experiment, space), keys_of(change(experiment), space)) == stage


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("profile", {"threads": 2}),
        ("profile", {"governor": "performance"}),
        ("profile", {"delegate": "/usr/lib/libvx_delegate.so"}),
        ("profile", {"env": {"A": "1"}}),
        (None, {"host": "10.0.0.2", "port": 23, "user": "me", "key": "id", "known_hosts": "k"}),
        (None, {"connect_timeout_s": 3.0, "power": ("plug",), "labels": {"desk": "3"}, "quota_mb": 9, "workdir": "/w"}),
    ],
)
def test_of_a_board_counts_what_changes_results(tiny, stage, change):
    experiment, space = tiny
    assert first_change(keys_of(experiment, space), keys_of(experiment, space, replace(BOARD, **change))) == stage


def test_what_the_configuration_stands_for_counts(tiny, tmp_path):
    experiment, space = tiny
    before = keys_of(experiment, space)
    assert first_change(before, keys_of(experiment, replace(space, stem_channels=8))) == "teacher"
    assert first_change(before, keys_of(experiment, replace(space, name="other"))) is None
    assert first_change(before, keys_of(experiment, space, factors=(2, 4))) == "agree"
    encoders = [tmp_path / name for name in "ab"]
    for path in encoders:
        path.write_bytes(b"the same")
    a, b = (replace(experiment, teacher=replace(experiment.teacher, encoder_from=str(path))) for path in encoders)
    assert encoder_digest(a) == encoder_digest(b) is not None
    assert first_change(before, keys_of(a, space)) == "teacher"
    assert keys_of(a, space) == keys_of(b, space)
    encoders[1].write_bytes(b"another")
    assert first_change(keys_of(a, space), keys_of(b, space)) == "teacher"


def test_a_tail_that_is_measured_is_a_stage_of_its_own(tiny):
    experiment, space = tiny
    before, measured, wide = (
        keys_of(replace(experiment, deploy=deploy), space) for deploy in (Deploy(), Deploy("auto"), Deploy("auto", 1.0))
    )
    assert [name for name in measured if name not in before] == ["tail"]
    assert first_change(before, {name: measured[name] for name in before}) == "profile"
    assert first_change(measured, wide) == "tail"


def test_a_raised_version_changes_the_keys_from_there_on(tiny, monkeypatch):
    experiment, space = tiny
    before = keys_of(experiment, space)
    monkeypatch.setattr(keys, "STAGE_VERSIONS", {**STAGE_VERSIONS, "agree": STAGE_VERSIONS["agree"] + 1})
    assert first_change(before, keys_of(experiment, space)) == "agree"


def test_an_optional_section_is_not_the_same_as_none():
    """Even where all of it is at its defaults."""

    @dataclass(frozen=True)
    class Inner:
        a: int = 1

    @dataclass(frozen=True)
    class Outer:
        inner: Inner | None = None

    assert settings_of(Outer()) == {} != settings_of(Outer(Inner()))
    assert settings_of((Inner(), Inner())) != settings_of((Inner(),))


@pytest.mark.parametrize("stage", STAGE_VERSIONS)
def test_a_changed_default_raises_the_version(stage):
    assert not unraised(stage), (
        f"these defaults changed: raise STAGE_VERSIONS[{stage!r}] in deploy/run/keys.py, so that no old result passes "
        f"for a new one, then run `python -m tests.deploy.run.test_keys`"
    )
    assert now()[stage] == json.loads(PINNED.read_text())[stage], (
        "an option was added or a version raised: run `python -m tests.deploy.run.test_keys`"
    )


def test_every_section_is_of_a_stage_or_declared_not_to_count(tiny):
    experiment, space = tiny
    chosen = (Quantization(schemes=("tensor int8",)), Predictor()), (Quantization(), Predictor(objective=True))
    schemes, identities = (
        stage_identities(replace(experiment, quantization=q, predictor=p, deploy=Deploy("auto")), space, [BOARD])
        for q, p in chosen
    )
    assert list(schemes) == list(STAGE_VERSIONS) == list(SECTIONS) and "schemes" not in identities
    first = {s.name.split(".")[0] for one in identities.values() for s in one.settings}
    first -= {"space"}  # its digest, in place of the path
    assert {f.name for f in fields(Experiment)} - first == Experiment.NOT_IN_KEY
    for cls in (Experiment, BoardConfig, *(c for classes in SECTIONS.values() for c in classes)):
        excluded = getattr(cls, "NOT_IN_KEY", frozenset())
        assert excluded <= {f.name for f in fields(cls)}, f"{cls.__name__}.NOT_IN_KEY names no field"


def test_digests_are_of_plain_data():
    assert digest(1, "a", None, [1.5, {"b": True}]) == digest(1, "a", None, (1.5, {"b": True}))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": "2"})
    for value in (Measuring(), Path("a"), {1, 2}, object()):
        with pytest.raises(TypeError):
            digest(value)
    with pytest.raises(TypeError, match="no plain data"):
        settings_of([Path("a")])


if __name__ == "__main__":
    if missed := [name for stage in SECTIONS for name in unraised(stage)]:
        raise SystemExit(f"raise the versions of the stages of these defaults first: {', '.join(missed)}")
    PINNED.write_text(json.dumps(now(), indent=1) + "\n")
