"""What `hilnas loop --explain` says of each stage of a finished run, and that the loop then does just that."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from deploy.pipeline.explain import Change, StageExplanation, explain
from deploy.pipeline.loop import is_done
from deploy.run import keys
from deploy.run.config import Experiment, Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.keys import STAGE_VERSIONS
from deploy.run.settings.deployment import Budget
from tests.deploy.tiny_experiment import REPOSITORY, STAGES, finished_run, write_experiment


@pytest.fixture
def finished(tmp_path, tmp_path_factory):
    """The folder of a finished run, its experiment and its space."""
    whole = finished_run(tmp_path_factory)
    return whole.copy(tmp_path), *load_experiment(whole.config, Overrides())


def explained(finished, experiment: Experiment | None = None) -> dict[str, StageExplanation]:
    folder, own, space = finished
    with Run(folder) as run:
        context = Context(experiment or own, space, run, REPOSITORY / "boards.toml")
        found = explain(context)
        assert [one.stage for one in found] == list(context.keys)
        first = next((i for i, one in enumerate(found) if one.runs), len(found))
        done = [is_done(context, one.stage) for one in found]
        assert all(done[:first]) and not any(done[first : first + 1]), "the loop would do otherwise"
        assert all(one.runs for one in found[first:])
    return {one.stage: one for one in found}


def running(found: dict[str, StageExplanation]) -> tuple[str, ...]:
    return tuple(stage for stage, one in found.items() if one.runs)


def test_of_a_finished_run_nothing_runs(finished):
    found = explained(finished)
    assert running(found) == () and str(found["ship"]) == "ship: done"


def test_a_changed_setting_is_named_with_both_values(finished):
    _, experiment, _ = finished
    retrain = replace(experiment.retrain, steps=12, weight_decay=0.0)
    found = explained(finished, replace(experiment, retrain=retrain))
    assert running(found) == ("retrain", "ship")
    assert found["retrain"].changes == (Change("retrain.steps", 30, 12), Change("retrain.weight_decay", 0.0005, 0.0))
    assert str(found["retrain"]) == "retrain: runs: retrain.steps: 30 -> 12; retrain.weight_decay: 0.0005 -> 0.0"
    assert str(found["ship"]) == "ship: runs: retrain runs again"


def test_a_setting_that_was_not_there(finished):
    _, experiment, _ = finished
    found = explained(finished, replace(experiment, distil=replace(experiment.distil, views=2)))
    assert running(found) == STAGES[1:]
    assert str(found["distil"]) == "distil: runs: distil.views: nothing -> 2"
    assert found["search"].changes == () and found["search"].after == "distil"


def test_missing_files(finished):
    folder, *_ = finished
    (folder / "students" / "fast.pt").unlink()
    shutil.rmtree(folder / "bundle")
    found = explained(finished)
    assert running(found) == ("retrain", "ship") and found["retrain"].missing == ("students/fast.pt",)
    assert str(found["retrain"]) == "retrain: runs: missing: students/fast.pt"
    assert "missing: bundle/manifest.json, bundle/model.tflite" in str(found["ship"])


def test_a_search_that_confirmed_has_its_table(finished):
    folder, experiment, _ = finished
    (folder / "tables" / "latency-confirmed.parquet").unlink()
    found = explained(finished)
    assert found["search"].missing == ("tables/latency-confirmed.parquet",)
    assert not replace(experiment, search=replace(experiment.search, measured=0)).confirms
    assert not replace(experiment, budgets=(Budget("small", size=0.5),)).confirms


def test_a_raised_version(finished, monkeypatch):
    monkeypatch.setattr(keys, "STAGE_VERSIONS", {**STAGE_VERSIONS, "search": STAGE_VERSIONS["search"] + 1})
    found = explained(finished)
    was = STAGE_VERSIONS["search"]
    assert found["search"].versions == (was, was + 1) and found["search"].changes == ()
    assert str(found["search"]) == f"search: runs: the stage's version was raised: {was} -> {was + 1}"


def test_other_schemes(finished):
    """A stage that the run had not: the later ones are built on it."""
    _, experiment, _ = finished
    quantization = replace(experiment.quantization, schemes=("tensor int8",))
    found = explained(finished, replace(experiment, quantization=quantization))
    assert running(found) == ("schemes", "search", "retrain", "ship")
    assert str(found["schemes"]) == "schemes: runs: never run yet"
    assert found["search"].after == "schemes"


def test_a_stage_that_was_killed(finished):
    folder, experiment, space = finished
    with Run(folder) as run:
        context = Context(experiment, space, run, REPOSITORY / "boards.toml")
        with pytest.raises(KeyboardInterrupt), run.stage("search", context.keys["search"]):
            raise KeyboardInterrupt
    found = explained(finished)
    assert running(found) == ("search", "retrain", "ship") and found["search"].interrupted
    assert "interrupted" in str(found["search"])


def test_a_new_run(tmp_path):
    experiment, space = load_experiment(write_experiment(tmp_path), Overrides())
    with Run(tmp_path / "run") as run:
        found = explain(Context(experiment, space, run, REPOSITORY / "boards.toml"))
    assert {str(one) for one in found} == {f"{stage}: runs: never run yet" for stage in STAGES}


def test_what_is_built_on_a_stage_that_ran_again_alone(finished):
    """As `--until` leaves it: the stage is done under its new settings, what comes after is of the former ones."""
    folder, experiment, space = finished
    changed = replace(experiment, retrain=replace(experiment.retrain, steps=12))
    with Run(folder) as run:
        identity = Context(changed, space, run, REPOSITORY / "boards.toml").identities["retrain"]
        with run.stage("retrain", identity.key, version=identity.version, settings=identity.values):
            pass
    found = explained(finished, changed)
    assert running(found) == ("ship",) and str(found["ship"]) == "ship: runs: retrain ran again since"
