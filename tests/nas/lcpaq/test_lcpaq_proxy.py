"""The proxy search: what it finds, what it costs, that it goes on after a kill; trials on deployed integers."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.data import open_data
from nas.errors import ConfigError
from nas.lcpaq.policy import Policy, policy_of
from nas.lcpaq.proxy import (
    Trial,
    _drawn,
    agreements,
    best,
    cost_s,
    grid,
    grid_size,
    ladder,
    rank_correlations,
    search,
    settings_of,
)
from nas.lcpaq.trial import SPACE, Evaluator, Fidelity, Settings, TrialInputs
from nas.lcpaq.tuning import fine_tuned
from nas.networks.classifier import PooledHead
from nas.quant.float_graph import Conv, FullyConnected
from nas.quant.scheme import FewBits, Granularity, Scheme
from nas.quant.weights import grid_of, quantize_weight, straight_through
from nas.space import Block, SearchSpace
from nas.tasks.task import fold, network, score_integer, training_loss
from nas.training.quantization_aware import FoldedNetwork
from nas.training.soft_targets import Forward, Loss
from nas.training.train import DivergedError, Schedule

SMALL = {"observer": ("minmax", "mse", "percentile 99"), "equalize": (False, True), "calibration_images": (4, 8)}
FULL = Fidelity(64, 16)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a study makes a thousand commits, and each waits for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def score(settings: Settings, fidelity: Fidelity) -> float:
    """A made-up task: cheap fidelities are off by a little, one setting is best."""
    value = 50.0 + 10 * settings.equalize + 5 * (settings.observer == "mse") + settings.calibration_images / 10
    return value - 8 / fidelity.images * (settings.observer == "minmax")


def test_the_ladder_quarters_steps_halves_images_and_ends_at_the_full_fidelity():
    rungs = ladder(FULL, rungs=3, smaller=True)
    assert rungs == (Fidelity(16, 1, 0.75), Fidelity(32, 4), FULL)
    with pytest.raises(ConfigError, match="too few"):
        ladder(Fidelity(3, 4), rungs=3)


def test_the_search_finds_the_grids_best_with_few_full_evaluations(folder: Path):
    calls: list[Fidelity] = []

    def counted(settings: Settings, fidelity: Fidelity) -> float:
        calls.append(fidelity)
        return score(settings, fidelity)

    space = {**SMALL, "bias_correction": (False, True), "rounding": ("nearest", "adaptive")}
    trials = list(search(counted, space, ladder(FULL, rungs=3), folder / "study.sqlite", trials=24, key="k"))
    assert best(trials).values[-1] == max(score(settings, FULL) for settings in grid(space))
    proposed = trials[:16]
    assert len({trial.settings for trial in proposed}) == 16
    assert sum(len(trial.values) == 1 for trial in proposed) >= 8
    assert calls.count(FULL) <= 6 + 8 and calls.count(ladder(FULL, rungs=3)[0]) == 24
    assert cost_s(trials) == pytest.approx(sum(sum(trial.cpu_s) for trial in trials))


def test_the_last_third_are_neighbours_of_the_best_that_climb_to_the_top(folder: Path):
    rungs = ladder(FULL, rungs=3)

    def late(settings: Settings, fidelity: Fidelity) -> float:
        """A learning rate that only shows at the top."""
        return score(settings, fidelity) + 20 * (fidelity == FULL) * (settings.learning_rate == 1e-3)

    space = {**SMALL, "learning_rate": (1e-4, 1e-3), "fold": ("trained", "recalibrated")}
    trials = list(search(late, space, rungs, folder / "study.sqlite", trials=36, key="k"))
    climbed = 0
    for i, trial in enumerate(trials[24:], start=24):
        top = asdict(best(trials[:i]).settings)
        if sum(top[name] != value for name, value in asdict(trial.settings).items()) == 1:
            assert (len(trial.values) == 3) or trial.values[0] < median(t.values[0] for t in trials[:i])
            climbed += len(trial.values) == 3
    assert climbed >= 2  # of its six some were evaluated; then the surrogate continues
    assert best(trials).values[-1] == max(late(settings, FULL) for settings in grid(space))


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_where_the_surrogate_repeats_itself_one_of_the_best_quarter_is_changed(count: int, seed: int):
    everything, rng = list(grid(SMALL)), random.Random(seed)
    done = [Trial(settings, (score(settings, FULL),), (0.0,)) for settings in rng.sample(everything, count)]
    drawn = _drawn(SMALL, done, rng)
    good = sorted(done, key=lambda trial: -trial.values[0])[: max(1, count // 4)]
    changes = [sum(asdict(t.settings)[name] != value for name, value in asdict(drawn).items()) for t in good]
    assert drawn not in {trial.settings for trial in done} and min(changes) <= 2


def test_a_finished_study_is_not_searched_again_and_a_small_space_is_exhausted(folder: Path):
    study = folder / "study.sqlite"
    first = list(search(score, SMALL, ladder(FULL, rungs=3), study, trials=100, key="k"))
    assert len(first) == grid_size(SMALL) == len(list(grid(SMALL)))

    def never(_: Settings, __: Fidelity) -> float:
        raise AssertionError

    assert list(search(never, SMALL, ladder(FULL, rungs=3), study, trials=12, key="k")) == first
    with pytest.raises(AssertionError):
        list(search(never, SMALL, ladder(FULL, rungs=3), study, trials=12, key="another network"))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_lcpaq_proxy import FULL, SMALL, score
from nas.lcpaq.proxy import ladder, search
evaluated = []
def dies(settings, fidelity):
    evaluated.append(1)
    if len(evaluated) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(settings, fidelity)
for trial in search(dies, SMALL, ladder(FULL, rungs=3), Path(sys.argv[1]), trials=12, key="k"):
    print(trial, flush=True)
"""


def test_a_killed_search_goes_on_and_loses_no_finished_trial(folder: Path):
    study = folder / "study.sqlite"
    command = [sys.executable, "-c", KILLED, str(study), str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    before = ended.stdout.splitlines()
    trials = list(search(score, SMALL, ladder(FULL, rungs=3), study, trials=12, key="k"))
    assert before and [str(trial) for trial in trials[: len(before)]] == before
    assert len({trial.settings for trial in trials}) == 12
    assert best(trials).values[-1] == max(score(settings, FULL) for settings in grid(SMALL))


def test_bad_studies_and_scores_are_refused_in_a_line(folder: Path):
    study = folder / "study.sqlite"
    study.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="delete it to search again"):
        next(search(score, SMALL, ladder(FULL, rungs=3), study, trials=2, key="k"))
    with pytest.raises(ConfigError, match="scored nan"):
        next(search(lambda *_: math.nan, SMALL, ladder(FULL, rungs=3), folder / "nan.sqlite", trials=2, key="k"))
    with pytest.raises(ConfigError, match="did you mean 'rounding'"):
        settings_of({"roundin": "nearest"})
    with pytest.raises(ConfigError, match="no trial"):
        best([])


def test_rank_correlation_is_with_the_full_evaluation_and_not_made_up():
    rising = [Trial(Settings(calibration_images=2 + i), (float(i), 2.0 * i), (1.0, 4.0)) for i in range(5)]
    (found,) = agreements(rising)
    assert (found.rung, found.trials) == (0, 5)
    assert (found.tau_b, found.spearman) == pytest.approx((1.0, 1.0))
    falling = {trial.settings: -trial.values[0] for trial in rising}
    assert [a.tau_b for a in agreements(rising, falling)] == [pytest.approx(-1), pytest.approx(-1)]
    assert all(math.isnan(value) for value in rank_correlations([(1, 2), (2, 3)]))


# Trials on a real network

TINY = SearchSpace("tiny", 8, 8, (Block(2, 12, 1, 1), Block(2, 16, 1, 2)), kernels=(3,), expansions=(2,))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrialInputs:
    data = {
        scale: (open_data("shapes", "train", size, count=64), open_data("shapes", "val", size, count=32))
        for scale, size in ((1.0, (32, 32)), (0.75, (24, 24)))
    }
    torch.manual_seed(0)
    model = network(data[1.0][0], TINY, TINY.teacher_layers, PooledHead(16)).eval()
    policy = Policy(dict.fromkeys(policy_of(fold(model, (32, 32))).bits, 4))
    schedule = Schedule(steps=0, optimizer="adamw", batch_size=8)
    return TrialInputs(model, policy, data, schedule, tmp_path_factory.mktemp("tuned"), "key")


@pytest.mark.parametrize(
    "settings",
    [
        Settings(calibration_images=8),
        Settings("tensor", "percentile 99.9", True, True, "recalibrated", "adaptive", 0.5, 1e-3, 8),
    ],
    ids=["plain", "everything"],
)
@pytest.mark.parametrize("fidelity", [Fidelity(32, 3), Fidelity(8, 1, 0.75)])
def test_a_trial_scores_the_deployed_integers_at_the_policys_bits(
    inputs: TrialInputs, settings: Settings, fidelity: Fidelity
):
    graph = Evaluator(inputs).graph(settings, fidelity)
    weighted = [op for op in graph.operators if hasattr(op, "bits")]
    assert {op.bits for op in weighted} == {4} and all(
        np.ptp(op.weight) <= 15 for op in weighted if op.weight_scale.size == 1
    )
    assert all(op.weight_scale.size == 1 for op in weighted) == (settings.granularity == "tensor")
    height = graph.tensors[graph.input].shape[0]
    assert height == 32 * fidelity.scale
    found = Evaluator(inputs)(settings, fidelity)
    val = inputs.data[fidelity.scale][1]
    assert 0 <= found <= 100
    if fidelity.images == len(val):
        assert found == score_integer(graph, val)


def test_every_hyperparameter_changes_the_deployed_network(inputs: TrialInputs):
    plain, evaluator = Settings(calibration_images=16), Evaluator(inputs)

    def deployed(settings: Settings) -> tuple[bytes, ...]:
        graph = evaluator.graph(settings, Fidelity(8, 2))
        arrays = [part.tobytes() for op in graph.operators if hasattr(op, "bits") for part in (op.weight, op.bias)]
        return (*arrays, str([(t.scale, t.zero_point) for t in graph.tensors.values()]).encode())

    before = deployed(plain)
    for name, values in SPACE.items():
        other = next(value for value in values if value != getattr(plain, name))
        assert deployed(settings_of({**plain.__dict__, name: other})) != before, name
    assert deployed(plain) == before


def test_a_network_that_was_tuned_before_is_not_trained_again(inputs: TrialInputs):
    settings, fidelity = Settings(learning_rate=3e-4), Fidelity(8, 2)
    first = Evaluator(inputs)(settings, fidelity)
    written = {path: path.stat().st_mtime_ns for path in inputs.folder.glob("*.pt")}
    assert Evaluator(inputs)(settings, fidelity) == first
    assert {path: path.stat().st_mtime_ns for path in inputs.folder.glob("*.pt")} == written


# Fine-tuning


@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_rounding_in_training_is_rounding_in_deployment_and_gradients_pass(granularity: Granularity, few_bits: FewBits):
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    conv = Conv("c", "x", weight, torch.zeros(6), bits=4)
    rounded = straight_through(weight, grid_of(conv, 1.0, granularity, few_bits))
    q = quantize_weight(conv, 1.0, granularity, few_bits)
    assert torch.allclose(rounded, torch.from_numpy(q.weight * q.scale.reshape(-1, 1, 1, 1)), atol=1e-6)
    (gradient,) = torch.autograd.grad((rounded * 3).sum(), weight)
    assert torch.equal(gradient, torch.full_like(gradient, 3.0))


def test_fine_tuning_lowers_the_rounded_networks_loss_and_refuses_a_nan(inputs: TrialInputs, tmp_path: Path):
    train = inputs.data[1.0][0]
    from nas.lcpaq.policy import applied

    nodes = applied(fold(inputs.model, (32, 32)), inputs.policy)

    def task(forward: Forward) -> Loss:
        return training_loss(forward, train, 16, 0)

    schedule = Schedule(steps=45, optimizer="adamw", learning_rate=1e-3, batch_size=16)
    tuned = fine_tuned(nodes, task, schedule, tmp_path / "a.pt", "k")
    assert [node.name for node in tuned] == [node.name for node in nodes]
    losses = []
    for version in (nodes, tuned):
        with torch.no_grad():
            losses.append(sum(float(task(FoldedNetwork(version, Scheme()))(step)) for step in range(4)))
    assert losses[1] < 0.97 * losses[0]
    assert fine_tuned(nodes, task, Schedule(steps=0), tmp_path / "b.pt", "k") == nodes
    broken = [
        type(node)(**{**node.__dict__, "bias": node.bias * math.nan}) if isinstance(node, FullyConnected) else node
        for node in nodes
    ]
    with pytest.raises(DivergedError, match="nan"):
        fine_tuned(broken, task, schedule, tmp_path / "c.pt", "k")
