"""Distillation with a cache, in processes, killed at any moment: the weights of one loop that nothing interrupted."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch

from deploy.cli import main
from deploy.pipeline.distillation import _features
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.keys import settings_of
from nas.errors import ConfigError
from nas.training.features import ViewFeatures
from nas.training.train import load
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    Finished,
    Started,
    arguments,
    finished_run,
    one_line,
    record,
    run,
    start,
    write_experiment,
)

RATES = "learning_rates = [3e-3]"
VIEWS = "views = 2"
CACHED = "views = 2\ncache_gb = 0.003"  # some of the 28 views fit
ALL_CACHED = "views = 2\ncache_gb = 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def views(finished, tmp_path_factory) -> Path:
    """A run with fixed views and nothing else, from the finished run's teacher."""
    folder = tmp_path_factory.mktemp("views")
    ended = run("distil", *arguments(experiment(folder, VIEWS), runs_of(finished, folder)))
    assert ended.returncode == 0, ended.stderr
    return folder / "runs" / "tiny"


def experiment(folder: Path, *settings: str) -> Path:
    return write_experiment(folder, {RATES: "\n".join((RATES, *settings))})


def command(folder: Path, runs: Path, settings: str, *more: str) -> list[str]:
    return ["distil", *arguments(experiment(folder, settings), runs, *more)]


def runs_of(finished: Finished, folder: Path) -> Path:
    """A --runs-dir in `folder` whose run is the finished one."""
    finished.copy(folder / "runs")
    (folder / "runs" / "tiny" / "supernets.pt").unlink()
    return folder / "runs"


def assert_same_weights(ours: Path, theirs: Path) -> None:
    mine, other = (load(folder / "supernets.pt")["model"] for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    assert not [name for name, tensor in other.items() if not torch.equal(tensor, mine[name])]


def children(process: Started) -> list[psutil.Process]:
    try:
        return psutil.Process(process.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize(
    ("settings", "engine"),
    [(CACHED, ()), (CACHED, ("--workers", "2")), (ALL_CACHED, ("--engine", "ray"))],
    ids=["cache", "both", "ray"],
)
def test_a_cache_and_processes_change_no_weight(finished, views, tmp_path, settings, engine):
    if "ray" in engine:
        pytest.importorskip("ray")
    runs = runs_of(finished, tmp_path)
    ended = run(*command(tmp_path, runs, settings, *engine))
    assert ended.returncode == 0, ended.stderr
    assert_same_weights(runs / "tiny", views)
    kept = sum(path.stat().st_size for path in (runs / "tiny" / "features").rglob("*.maps"))
    assert 0 < kept <= (3e6 if settings == CACHED else 1e9)
    assert not (runs / "tiny" / "blocks").exists()


def test_processes_change_no_weight_of_fresh_augmentations(finished, tmp_path):
    runs = runs_of(finished, tmp_path)
    ended = run(*command(tmp_path, runs, "", "--workers", "2"))
    assert ended.returncode == 0, ended.stderr
    assert_same_weights(runs / "tiny", finished.folder)


@pytest.mark.parametrize(
    ("settings", "engine"),
    [(CACHED, ()), (ALL_CACHED, ("--workers", "2"))],
    ids=["cache", "both"],
)
def test_killed_at_any_moment_it_ends_with_the_same_weights(finished, views, tmp_path, settings, engine):
    runs = runs_of(finished, tmp_path)
    distil = command(tmp_path, runs, settings, *engine)
    rng = random.Random(len(engine))
    in_the_middle = 0
    most_s = 4.0 if engine else 1.0
    for delay_s in (0.0, rng.uniform(0, most_s), rng.uniform(0, most_s)):
        process = start(distil, eager=True)
        process.wait_for("distil: ")
        time.sleep(delay_s)
        working = children(process)
        process.end(signal.SIGKILL)
        _, alive = psutil.wait_procs(working, timeout=10)
        assert not alive, "a worker outlived its parent"
        in_the_middle += not record(runs / "tiny" / "state.json")["stages"]["distil"]["done"]
    assert in_the_middle, "never killed in the middle"
    ended = run(*distil)
    assert ended.returncode == 0, ended.stderr
    assert_same_weights(runs / "tiny", views)
    assert not list((runs / "tiny").rglob("*.part"))


def test_a_worker_that_is_killed_is_replaced(finished, views, tmp_path):
    runs = runs_of(finished, tmp_path)
    process = start(command(tmp_path, runs, CACHED, "--workers", "2"), eager=True)
    blocks = runs / "tiny" / "blocks"
    deadline = time.monotonic() + 120
    while not (working := children(process)) or not list(blocks.glob("*.pt")):
        assert process.process.poll() is None and time.monotonic() < deadline, process.said
        time.sleep(0.01)
    next(p for p in working if "multiprocessing.spawn" in " ".join(p.cmdline())).kill()
    assert process.finish() == 0, process.said
    assert_same_weights(runs / "tiny", views)


def test_a_finished_distillation_is_not_done_again_by_workers(finished, tmp_path):
    runs = finished.copy(tmp_path / "runs").parent
    before = (runs / "tiny" / "supernets.pt").stat().st_mtime_ns
    state = (runs / "tiny" / "state.json").read_text()
    key = record(runs / "tiny" / "state.json")["stages"]["distil"]["key"]
    (runs / "tiny" / "state.json").write_text(state.replace(key, "?"))
    ended = run(*command(tmp_path, runs, "", "--workers", "2"))
    assert ended.returncode == 0 and "distil: starts" in ended.stderr, ended.stderr
    assert (runs / "tiny" / "supernets.pt").stat().st_mtime_ns == before


# Bad input


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("cache_gb = 1", r"distil\.cache_gb: .* set distil\.views"),
        ("views = -1", r"distil\.views -1"),
        ("views = 1\ncache_gb = -1", r"distil\.cache_gb -1"),
        ("[compute]\ndevice = 'tpu'", r"'compute\.device'"),
        ("[compute]\nprecison = 'bfloat16'", r"unknown key 'compute\.precison'; did you mean 'precision'"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        load_experiment(experiment(tmp_path, settings), Overrides())


def test_what_is_cached_is_of_the_crops(tmp_path, monkeypatch):
    config = experiment(tmp_path, ALL_CACHED)
    config.write_text(config.read_text().replace("size = [64, 96]", "size = [64, 96]\ncrop = [40, 64]"))
    monkeypatch.setattr(Context, "teacher", property(lambda context: context.untrained_teacher().eval()))
    with Run(tmp_path / "runs" / "tiny") as opened:
        context = Context(*load_experiment(config, Overrides()), opened, REPOSITORY / "boards.toml")
        features = _features(context, torch.device("cpu"), 2)
        assert isinstance(features, ViewFeatures) and features.cache is not None
        features(0)
        kept = features.cache.read(features.views.position(features.views.of_step(0, 4)[0]))
    assert kept is not None and kept[0].shape == (20, 32, 16)


def test_what_changes_no_weight_changes_no_key(tmp_path):
    plain, bounded, viewed, low = (
        load_experiment(experiment(tmp_path, settings), Overrides(device="cpu"))[0]
        for settings in ("views = 2", "views = 2\ncache_gb = 3", "views = 1", "[compute]\nprecision = 'bfloat16'")
    )
    assert settings_of(plain.distil) == settings_of(bounded.distil) != settings_of(viewed.distil)
    assert settings_of(plain.compute) == {} != settings_of(low.compute)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there(finished, tmp_path, capsys):
    assert main(command(tmp_path, runs_of(finished, tmp_path), VIEWS, "--device", "cuda")) == 2
    one_line(capsys.readouterr().err, "device cuda", "sees no GPU")


def test_checkpoints_cut_short_or_of_another_run(finished, tmp_path, capsys):
    runs = runs_of(finished, tmp_path)
    distil, teacher = command(tmp_path, runs, VIEWS), runs / "tiny" / "teacher.pt"
    whole, record = teacher.read_bytes(), load(teacher)

    def refused(*words: str) -> None:
        capsys.readouterr()
        assert main(distil) == 2
        one_line(capsys.readouterr().err, *words)

    teacher.write_bytes(whole[: len(whole) // 2])
    refused(str(teacher), "not a complete checkpoint", "delete it")
    torch.save({**record, "key": "another"}, teacher)
    refused(str(teacher), "trained under other settings", "delete it")
    torch.save({**record, "model": {"stem.weight": torch.ones(1)}}, teacher)
    refused(str(teacher), "does not fit this network")
    teacher.write_bytes(whole)
    (runs / "tiny" / "supernets.pt").write_bytes(b"PK cut short")
    refused("supernets.pt", "not a complete checkpoint")
