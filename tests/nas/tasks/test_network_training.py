"""A network's loss: the task's, the soft targets and the boundaries, each as written out; groups of parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import open_data
from nas.errors import ConfigError
from nas.networks.segmenter import Auxiliary, Head, Segmenter, upsampled
from nas.noise import channel_variance, nsr
from nas.space import Block, SearchSpace
from nas.tasks.network_training import TeacherLosses, boundary_nsr, network_groups, network_loss
from nas.tasks.task import training_batches
from nas.training.train import Schedule

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 16, 1, 1)), (3,), (2,))
SIZE = (48, 64)
HEAD = Head(8, (2,))
TEACHER_LOSSES = [
    TeacherLosses(),
    TeacherLosses(0.5),
    TeacherLosses(1.0, 2.0),
    TeacherLosses(0.0, 1.0, 0.7),
    TeacherLosses(0.3, 4.0, 1.0),
]


def made(seed: int, head: Head = HEAD) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(SPACE, SPACE.teacher_layers, 11, head)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(upsampled(logits, SIZE), labels, ignore_index=255)


@pytest.mark.parametrize("teacher_losses", TEACHER_LOSSES)
def test_the_loss_is_the_sum_of_what_is_asked_for(teacher_losses: TeacherLosses) -> None:
    data = open_data("scenes", "train", SIZE, count=8)
    model, teacher = made(0), made(1).eval()
    loss = network_loss(model, data, 4, 3, teacher=teacher, teacher_losses=teacher_losses)
    images, labels = training_batches(data, 4, 3)(2)
    maps, taught = model.boundaries(images), teacher.boundaries(images)
    logits, targets = model(images), teacher(images).detach()
    t = teacher_losses.temperature
    soft = F.softmax(targets / t, 1) * (F.log_softmax(targets / t, 1) - F.log_softmax(logits / t, 1))
    noise = sum(nsr(y, x, channel_variance(y)) for x, y in zip(maps[1:], taught[1:], strict=True)) / 2
    expected = (1 - teacher_losses.soft_targets) * cross_entropy(logits, labels)
    expected = expected + teacher_losses.soft_targets * t**2 * soft.sum(1).mean() + teacher_losses.boundaries * noise
    torch.testing.assert_close(loss(2), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_is_its_teacher_has_no_noise_at_the_boundaries() -> None:
    model = made(0).eval()
    images = torch.randn(2, 3, *SIZE)
    assert float(boundary_nsr(model.outputs(images), model.outputs(images))) == 0.0


def test_the_auxiliary_head_is_trained_beside_and_not_deployed() -> None:
    data = open_data("scenes", "train", SIZE, count=8)
    model = made(0, Head(8, (2,), dropout=0.0, auxiliary=Auxiliary(1, 8, 0.4)))
    images, labels = training_batches(data, 4, 3)(0)
    outputs = model.outputs(images)
    assert outputs.auxiliary is not None and outputs.auxiliary.shape == outputs.logits.shape
    expected = cross_entropy(model(images), labels) + 0.4 * cross_entropy(outputs.auxiliary, labels)
    value = network_loss(model, data, 4, 3)(0)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    value.backward()
    assert model.auxiliary is not None and all(p.grad is not None for p in model.auxiliary.parameters())


def test_dropout_is_of_training_only() -> None:
    model, images = made(0, Head(8, (2,), dropout=0.5)), torch.randn(2, 3, *SIZE)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_every_parameter_is_in_one_group_at_its_multiple() -> None:
    torch.manual_seed(0)
    model = Segmenter(
        SPACE, [[c, c] if i == 0 else [c] for i, (c,) in enumerate(SPACE.teacher_layers)], 11, Head(8, (2,))
    )
    groups = network_groups(model, Schedule(5, learning_rate=0.1, head_multiplier=2.0, new_multiplier=3.0))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rates) == len(list(model.parameters()))
    named = dict(model.named_parameters())
    assert rates[id(named["stem.weight"])] == rates[id(named["blocks.0.0.expand.weight"])] == pytest.approx(0.1)
    assert rates[id(named["blocks.0.1.expand.weight"])] == pytest.approx(0.3)  # beyond the teacher's depth
    assert rates[id(named["head.classifier.bias"])] == pytest.approx(0.2)
    decaying = [group for group in groups if "weight_decay" not in group]
    assert all(p.ndim > 1 for group in decaying for p in group["params"])


@pytest.mark.parametrize(
    ("wrong", "says"), [((1.5,), "0 to 1"), ((0.5, 0.0), "positive"), ((0.5, 1.0, -1.0), "0 or more")]
)
def test_a_lesson_that_cannot_be_is_refused(wrong: tuple[float, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TeacherLosses(*wrong)


@pytest.mark.parametrize(("block", "says"), [(0, "blocks 1 to 2"), (3, "blocks 1 to 2")])
def test_an_auxiliary_head_of_no_block_is_refused(block: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made(0, Head(8, (2,), auxiliary=Auxiliary(block)))
