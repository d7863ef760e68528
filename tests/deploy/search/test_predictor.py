"""The predictor of a real run: fine-tunings that survive a kill, honest ranks, options of retraining."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.formats.digest import digest
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.keys import settings_of
from deploy.run.networks import assembled, start_of_retraining, untrained_student
from deploy.run.settings.training import Retrain
from deploy.search import fine_tuning
from deploy.search.predictor import ORDERS, gain, plan_of, rank_agreement, rank_coefficients
from hil.errors import CheckFailed
from nas.errors import ConfigError
from nas.search.front import exact_front
from nas.space import Architecture
from nas.table import Table
from nas.training.threads import one_thread
from nas.training.train import Schedule, load
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    Finished,
    arguments,
    finished_run,
    record,
    run,
    start,
    write_experiment,
)

MODELS = 6
PREDICTOR = """
[predictor]
models = 6
schedule = { steps = 4, optimizer = "adamw", learning_rate = 1e-3, batch_size = 4 }
"""


# Rank statistics


def slow_tau_b(a: list[float], b: list[float]) -> float:
    """Kendall 1945: concordant less discordant pairs over those that are not tied in each."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    untied_a, untied_b = (sum(abs(pair[k]) for pair in signs) for k in range(2))
    return float(sum(x * y for x, y in signs) / math.sqrt(untied_a * untied_b))


def slow_spearman(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of mean ranks."""
    ranks = [[sum(w < v for w in x) + (sum(w == v for w in x) + 1) / 2 for v in x] for x in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=15))
def test_rank_coefficients_are_counted_pairs_and_correlated_ranks(pairs):
    a, b = ([float(pair[k]) for pair in pairs] for k in range(2))
    found = rank_coefficients(np.array(a), np.array(b))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert all(math.isnan(value) for value in found)
    else:
        assert found == pytest.approx((slow_tau_b(a, b), slow_spearman(a, b)), abs=1e-12)


def test_intervals_hold_the_coefficients_and_know_noise_from_order():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40)
    ordered, noise = scores + rng.normal(size=40) / 10, rng.normal(size=40)
    good, bad = (rank_agreement(x, scores, 0) for x in (ordered, noise))
    for found in (good, bad):
        assert found.tau_b_ci95[0] <= found.tau_b <= found.tau_b_ci95[1]
        assert found.spearman_ci95[0] <= found.spearman <= found.spearman_ci95[1]
    assert good.tau_b_ci95[0] > 0.7 and bad.tau_b_ci95[0] < 0 < bad.tau_b_ci95[1]
    low, high = gain(ordered, noise, scores, 0)
    assert 0.5 < low < good.tau_b - bad.tau_b < high
    assert gain(ordered, ordered, scores, 0) == (0.0, 0.0)


def test_equal_models_rank_nothing():
    with pytest.raises(CheckFailed, match="all 5 models are equally good"):
        rank_agreement(np.arange(5.0), np.full(5, 3.0), 0)


# The command, on a real run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def predicted(finished, tmp_path_factory) -> tuple[Path, Path]:
    """The configuration and the folder of a run with its predictor, made by two processes. Copy before changing."""
    base = tmp_path_factory.mktemp("predicted")
    folder = finished.copy(base / "runs")
    config = write_predicting(base)
    ended = run("predict", *arguments(config, base / "runs", "--workers", "2"))
    assert ended.returncode == 0, ended.stderr
    return config, folder


def write_predicting(folder: Path, more: str = "") -> Path:
    config = write_experiment(folder)
    config.write_text(config.read_text() + PREDICTOR + more)
    return config


def scores(folder: Path) -> dict[str, float]:
    return {model["subnet"]: model["score"] for model in record(folder / "predictor.json")["models"]}


def journal(folder: Path) -> list[str]:
    return (folder / "finetuned" / "scores.jsonl").read_text().splitlines()


def test_the_record_holds_what_it_promises(predicted):
    _, folder = predicted
    found = record(folder / "predictor.json")
    assert found["metric"] == "mIoU" and found["schedule"]["steps"] == 4
    assert len(found["models"]) == MODELS == len(journal(folder))
    assert set(found["rank"]) == {"nsr_sum", "order_1", "order_2"}
    actual = np.array([model["score"] for model in found["models"]])
    for way in ("order_1", "order_2"):
        held_out = np.array([model[f"held_out_{way[-1]}"] for model in found["models"]])
        assert found["rank"][way]["tau_b"] == pytest.approx(rank_coefficients(held_out, actual)[0])
    sums = np.array([model["nsr"] for model in found["models"]])
    assert found["rank"]["nsr_sum"]["tau_b"] == pytest.approx(rank_coefficients(-sums, actual)[0])
    (fast,) = found["selected"]
    assert (
        fast["name"] == "fast"
        and fast["least_nsr"]["subnet"] == record(folder / "search.json")["selected"][0]["subnet"]
    )
    assert fast["predicted"] >= fast["least_nsr"]["predicted"]
    assert not list((folder / "finetuned").glob("*.pt"))


def test_the_loss_table_is_searched_as_any_other(predicted):
    config, folder = predicted
    _, space = load_experiment(config, Overrides())
    loss = Table.load(folder / "tables" / "loss.parquet")
    best = exact_front(space, [loss]).architectures[0]
    additive = record(folder / "predictor.json")["predictors"][0]
    assert additive["order"] == 1 and loss.provenance["intercept"] == additive["intercept"]
    assert loss.total(best) == min(loss.total(Architecture.parse(subnet)) for subnet in [*scores(folder), str(best)])


def test_a_second_call_fine_tunes_nothing(predicted, tmp_path):
    config, source = predicted
    folder = Path(shutil.copytree(source, tmp_path / "tiny"))
    before = journal(folder), record(folder / "predictor.json")
    again = run("predict", *arguments(config, tmp_path, "--json"))
    assert again.returncode == 0, again.stderr
    assert (journal(folder), record(folder / "predictor.json"), json.loads(again.stdout)) == (*before, before[1])


def test_killed_while_fine_tuning_it_goes_on_and_ends_with_the_same_scores(predicted, tmp_path):
    config, source = predicted
    folder = Path(shutil.copytree(source, tmp_path / "tiny"))
    shutil.rmtree(folder / "finetuned")
    process = start(["predict", *arguments(config, tmp_path, "--workers", "1")], held=("predict", MODELS - 1))
    path, deadline = folder / "finetuned" / "scores.jsonl", time.monotonic() + 180
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline and process.process.poll() is None, process.said
        time.sleep(0.002)
    process.end(signal.SIGKILL)
    kept = journal(folder)
    assert 2 <= len(kept) < MODELS, "killed too late to show anything"
    with path.open("a") as file:
        file.write('{"key": "cut sho')  # what a kill in the middle of a line leaves
    ended = run("predict", *arguments(config, tmp_path, "--workers", "1"))
    assert ended.returncode == 0, ended.stderr
    assert journal(folder)[: len(kept)] == kept
    assert len(journal(folder)) == MODELS  # the cut line is gone
    assert scores(folder) == scores(source)  # also: one process or two, the same


def test_more_models_add_to_those_that_are_done_and_another_schedule_does_not(predicted, tmp_path):
    config, source = predicted
    experiment, space = load_experiment(config, Overrides())
    nsr, size = (Table.load(source / "tables" / f"{name}.parquet") for name in ("nsr", "size"))
    few, many = (fine_tuning.sampled(space, nsr, size, n, 0) for n in (MODELS, 20))
    assert few == many[:MODELS] and len(set(many)) == 20
    folder = Path(shutil.copytree(source, tmp_path / "tiny"))
    with Run(folder) as opened:
        context = Context(experiment, space, opened, REPOSITORY / "boards.toml")
        assert list(fine_tuning.finished(context, plan_of(experiment), many)) == few
    other = write_predicting(tmp_path / "other")
    other.write_text(other.read_text().replace("steps = 4,", "steps = 5,"))
    with Run(folder) as opened:
        context = Context(*load_experiment(other, Overrides()), opened, REPOSITORY / "boards.toml")
        assert not fine_tuning.finished(context, plan_of(context.experiment), few)


def test_a_fine_tuning_goes_on_from_its_checkpoint(predicted, tmp_path, monkeypatch):
    monkeypatch.setattr("nas.training.train.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    config, source = predicted
    folder = Path(shutil.copytree(source, tmp_path / "tiny"))
    subnet, score = next(iter(scores(source).items()))
    architecture = Architecture.parse(subnet)
    with Run(folder) as opened:
        context = Context(*load_experiment(config, Overrides()), opened, REPOSITORY / "boards.toml")
        plan = plan_of(context.experiment)
        steps = fine_tuning.retraining(
            context,
            assembled(context, architecture),
            plan.schedule,
            fine_tuning.checkpoint(context, plan, architecture),
            fine_tuning.key_of(context, plan),
        )
        with one_thread():  # as fine_tune has it: sums in another order would be another result
            assert next(steps).step == 1 and next(steps).step == 2
        steps.close()
        assert load(fine_tuning.checkpoint(context, plan, architecture))["step"] == 2
        assert fine_tuning.fine_tune(context, plan, architecture).score == score


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("models = 3", "models must be at least 5"),
        ("neighbors = 3", "neighbors'; did you mean 'neighbours'"),
        ("order = 3", "predictor.order"),
    ],
)
def test_bad_settings_are_refused(tmp_path, more, words):
    config = write_experiment(tmp_path)
    config.write_text(f"{config.read_text()}[predictor]\n{more}\n")
    with pytest.raises(ConfigError, match=words):
        load_experiment(config, Overrides())


# Options of retraining


def options(**given: object) -> Retrain:
    return Retrain(steps=7, **given)


def test_without_options_retraining_depends_on_its_schedule_alone():
    assert settings_of(options()) == settings_of(Schedule(steps=7))
    keys = [digest(settings_of(options(**given))) for given in ({}, {"start": "scratch"}, {"distillation": 0.5})]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_weight_is_from_0_to_1(value):
    with pytest.raises(Exception, match=r"retrain\.distillation .* from 0 to 1"):
        options(distillation=value)


def test_from_scratch_nothing_of_the_search_is_left(finished, tmp_path):
    folder = finished.copy(tmp_path / "runs")
    subnet = record(folder / "search.json")["selected"][0]["subnet"]
    architecture = Architecture.parse(subnet)
    more = 'start = "scratch"\ndistillation = 0.5\ntemperature = 2.0\n'
    config = write_experiment(tmp_path, {"[retrain]\n": f"[retrain]\n{more}"})
    with Run(folder) as opened:
        context = Context(*load_experiment(config, Overrides()), opened, REPOSITORY / "boards.toml")
        scratch, new = start_of_retraining(context, architecture), untrained_student(context, architecture)
        found = assembled(context, architecture)
        assert all(a.equal(b) for a, b in zip(scratch.parameters(), new.parameters(), strict=True))
        trained = [(a, b) for a, b in zip(scratch.parameters(), found.parameters(), strict=True) if a.dim() > 1]
        assert len(trained) > 10 and not any(a.equal(b) for a, b in trained)
    before = load(folder / "students" / "fast.pt")["model"]
    ended = run("loop", *arguments(config, tmp_path / "runs"))
    assert ended.returncode == 0, ended.stderr
    after = load(folder / "students" / "fast.pt")["model"]
    assert before.keys() == after.keys()
    assert not any(before[name].equal(after[name]) for name in before if name.endswith("weight"))
    model = record(folder / "summary.json")["models"][0]
    assert model["subnet"] == subnet
    assert set(model["requested_bits"]) == {8, *(s.bits for s in architecture.subnets)}


def test_the_loop_can_search_by_the_predictor(predicted, tmp_path):
    config, source = predicted
    folder = Path(shutil.copytree(source, tmp_path / "runs" / "tiny"))
    before = journal(folder)
    searching = write_predicting(tmp_path, "objective = true\norder = 1\n")
    ended = run("search", *arguments(searching, tmp_path / "runs"))
    assert ended.returncode == 0, ended.stderr
    assert journal(folder) == before  # the fine-tunings are those that were there
    _, space = load_experiment(config, Overrides())
    loss = Table.load(folder / "tables" / "loss.parquet")
    found = record(folder / "search.json")["selected"][0]["subnet"]
    everything = itertools.product(*(list(space.subnets(i + 1)) for i in range(len(space.blocks))))
    assert found == str(min(map(Architecture, everything), key=lambda a: (loss.total(a), str(a))))
    assert ORDERS == (1, 2)
