"""Distillation: blocks trained together equal blocks trained separately; precision changes only numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nas.data import open_data
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.errors import ConfigError
from nas.networks.segmenter import Head, teacher
from nas.noise import channel_variance, nsr
from nas.space import Block, SearchSpace
from nas.training import device
from nas.training import train as train_module
from nas.training.device import Compute
from nas.training.distil import block_losses, parameter_groups, paths, supernets
from nas.training.features import fresh
from nas.training.train import Schedule, load, train

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 1, 1), Block(1, 16, 2, 1), Block(1, 16, 1, 1)), (3, 5), (2, 6))
SIZE, SEED, BATCH_SIZE = (48, 64), 3, 4
SCHEDULES = [Schedule(6, "adamw", batch_size=BATCH_SIZE), Schedule(6, "sgd", batch_size=BATCH_SIZE)]
RATES = (2e-3, 3e-3, 4e-3)
CPU = Compute("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    data = open_data("scenes", "train", SIZE, count=6)
    augment = training_augment(data)
    return lambda step: training_batch(data, step, batch_size=BATCH_SIZE, augment=augment, seed=SEED)[0]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return teacher(SPACE, 11, Head(8, (2,))).eval()


def untrained() -> nn.ModuleList:
    torch.manual_seed(1)
    return supernets(SPACE)


def trained(path, students, features, schedule, *, rates=RATES, compute=CPU, steps=None):
    loop = train(
        students, block_losses(students, features, SEED), schedule, path, "k",
        groups=parameter_groups(students, rates), compute=compute,
    )  # fmt: skip
    losses = [step.loss for step in itertools.islice(loop, steps)]
    loop.close()
    return losses


def obvious(students, teacher_model, images, schedule, rates):
    """As in the paper: the sum of the losses, no parts, no precision, no channels last, no checkpoint."""
    groups = parameter_groups(students, rates)
    optimizer = train_module.OPTIMIZERS[schedule.optimizer](groups, schedule)
    peaks = [rate for rate in rates for _ in ("weights", "norms")]
    for step in range(schedule.steps):
        for group, rate in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = rate * max((1 - step / schedule.steps) ** schedule.power, schedule.floor)
        with torch.no_grad():
            maps = teacher_model.boundaries(images(step).contiguous(memory_format=torch.channels_last))
        total = torch.zeros(())
        drawn = paths(SPACE, step, SEED)
        for supernet, choices, x, target in zip(students, drawn, maps, maps[1:], strict=False):
            total = total + nsr(target, supernet(x, choices), channel_variance(target))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert not [name for name, tensor in mine.items() if not torch.equal(tensor, other[name])]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.optimizer)
def test_blocks_in_parts_are_the_sum_of_the_losses(tmp_path, model, images, schedule):
    students, expected = untrained(), untrained().to(memory_format=torch.channels_last).train()
    trained(tmp_path / "m.pt", students, fresh(model, images, CPU), schedule)
    obvious(expected, model, images, schedule, RATES)
    assert_same(students, expected)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.optimizer)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_block_trained_separately_equals_one_trained_with_others(tmp_path, model, images, schedule, precision):
    compute = Compute("cpu", precision)
    features = fresh(model, images, compute)
    together = untrained()
    trained(tmp_path / "all.pt", together, features, schedule, compute=compute)
    for i, rate in enumerate(RATES):
        alone = nn.ModuleList([untrained()[i]])
        trained(tmp_path / f"{i}.pt", alone, features, schedule, rates=(rate,), compute=compute)
        assert_same(alone[0], together[i])


def test_every_choice_of_every_layer_is_trained_equally_often():
    count = len(SPACE.choices)
    for turn in range(50):
        drawn = [paths(SPACE, step, SEED) for step in range(turn * count, (turn + 1) * count)]
        for b, block in enumerate(SPACE.blocks):
            for layer in range(block.layers):
                assert sorted(path[b][layer] for path in drawn) == sorted(SPACE.choices)


def test_a_path_is_uniform_and_the_steps_own():
    drawn = [tuple(paths(SPACE, step, SEED)[1]) for step in range(4000)]
    counts = Counter(drawn)
    assert len(counts) == 4**2
    expected = len(drawn) / len(counts)
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 37.7  # chi-square, 15 degrees, p = 0.001
    assert paths(SPACE, 7, SEED) == paths(SPACE, 7, SEED) != paths(SPACE, 7, SEED + 1)


@pytest.mark.parametrize(("precision", "like"), [("bfloat16", (10, 0.02)), ("float16", (1, 0.001))])
def test_low_precision_follows_float32_and_keeps_its_weights(tmp_path, model, images, precision, like):
    """`like`: for how many steps, how closely. float16 skips its first ones, until the loss's scale fits."""
    steps, apart = like
    compute, schedule = Compute("cpu", precision), Schedule(10, "sgd", batch_size=BATCH_SIZE)
    plain, students = untrained(), untrained()
    seen: set[torch.dtype] = set()
    students[0].layer(0, SPACE.choices[0]).expand.bn.register_forward_pre_hook(lambda _, x: seen.add(x[0].dtype))
    expected = trained(tmp_path / "plain.pt", plain, fresh(model, images, CPU), schedule)
    losses = trained(tmp_path / "m.pt", students, fresh(model, images, compute), schedule, compute=compute)
    assert losses[:steps] == pytest.approx(expected[:steps], rel=apart) and losses[0] != expected[0]
    assert seen == {getattr(torch, precision)}, "the convolutions ran in another precision"
    assert {p.dtype for p in students.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_resumes_exactly(tmp_path, monkeypatch, model, images, precision):
    monkeypatch.setattr(train_module, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    compute, schedule = Compute("cpu", precision), Schedule(8, "adamw", batch_size=BATCH_SIZE)
    features = fresh(model, images, compute)
    whole, part, again = untrained(), untrained(), supernets(SPACE)
    trained(tmp_path / "whole.pt", whole, features, schedule, compute=compute)
    trained(tmp_path / "part.pt", part, features, schedule, compute=compute, steps=3)
    trained(tmp_path / "part.pt", again, features, schedule, compute=compute)
    assert_same(whole, again)
    assert load(tmp_path / "part.pt")["scaler"] == load(tmp_path / "whole.pt")["scaler"]


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Compute("auto").place() == torch.device("cpu")
    with pytest.raises(ConfigError, match="sees no GPU"):
        Compute("cuda").place()


def test_processes_take_turns_among_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Compute("auto").place(i).index for i in range(3)] == [0, 1, 0]
    assert Compute("cpu").place(1) == torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_where_the_device_computes_in_it(tmp_path, monkeypatch, model, images, native):
    monkeypatch.setattr(device, "computes_bfloat16", lambda _: native)
    alike, plain, chosen = Compute("cpu", "bfloat16" if native else "float32"), untrained(), untrained()
    trained(tmp_path / "plain.pt", plain, fresh(model, images, alike), SCHEDULES[1], compute=alike)
    auto = Compute("cpu", "auto")
    trained(tmp_path / "auto.pt", chosen, fresh(model, images, auto), SCHEDULES[1], compute=auto)
    assert_same(plain, chosen)
