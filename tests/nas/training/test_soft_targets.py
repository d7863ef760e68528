"""Soft targets: the gradient is the textbook's, the weight weighs, the teacher stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.errors import ConfigError
from nas.training.soft_targets import distilled, soft_target_loss


def logits(seed: int, shape: tuple[int, ...] = (2, 5, 3, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 7.0])
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3, 4)])
def test_the_gradient_is_the_difference_of_the_softmaxes(temperature, shape):
    student, teacher = logits(0, shape).requires_grad_(), logits(1, shape)
    soft_target_loss(student, teacher, temperature).backward()
    difference = F.softmax(student / temperature, 1) - F.softmax(teacher / temperature, 1)
    expected = temperature * difference / (student.numel() / shape[1])  # Hinton et al., equation 2, times T^2
    torch.testing.assert_close(student.grad, expected.detach())


def test_at_temperature_one_it_is_cross_entropy_less_the_teachers_entropy():
    student, teacher = logits(0, (6, 5)), logits(1, (6, 5))
    p = F.softmax(teacher, 1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(soft_target_loss(student, teacher, 1.0), F.cross_entropy(student, p) - entropy)
    assert soft_target_loss(teacher, teacher, 3.0).abs() < 1e-6


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"the teacher's logits are \(2, 4\), the student's \(2, 5\)"):
        soft_target_loss(logits(0, (2, 5)), logits(1, (2, 4)), 1.0)


def problem():
    torch.manual_seed(0)
    model, teacher = nn.Linear(3, 4), nn.Linear(3, 4)
    asked = []

    def task(forward):
        def loss(step: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(step)
            x, y = torch.randn(8, 3, generator=generator), torch.randint(4, (8,), generator=generator)
            return F.cross_entropy(forward(x), y)

        return loss

    def asked_teacher(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return teacher(x)

    return model, teacher, asked_teacher, task, asked


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_both_losses_are_weighed_on_one_batch(weight):
    model, teacher, asked_teacher, task, asked = problem()
    both = distilled(task, model, asked_teacher, weight=weight, temperature=2.0)
    for step in range(3):
        total = both(step)
        assert len(asked) == step + 1
        soft = soft_target_loss(model(asked[-1]), teacher(asked[-1]), 2.0)
        torch.testing.assert_close(total, (1 - weight) * task(model)(step) + weight * soft)
    total.backward()
    assert all(p.grad is None for p in teacher.parameters()) and model.weight.grad.abs().sum() > 0


def test_weight_zero_is_the_task_alone():
    model, _, asked_teacher, task, asked = problem()
    loss = distilled(task, model, asked_teacher, weight=0.0)
    assert loss(5).equal(task(model)(5)) and not asked


def test_soft_targets_alone_make_the_student_the_teacher():
    model, teacher, _, task, _ = problem()
    loss = distilled(task, model, teacher, weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    for step in range(300):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    x = torch.randn(20, 3)
    torch.testing.assert_close(F.softmax(model(x), 1), F.softmax(teacher(x), 1), atol=0.02, rtol=0)
