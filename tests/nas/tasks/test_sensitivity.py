"""Weights of channels and blocks: what a channel's noise does to the loss, and what uniform weights come to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.networks.segmenter import Head, Segmenter, teacher
from nas.noise import NsrReference
from nas.space import Block, SearchSpace
from nas.tasks.segmentation import pixel_cross_entropy
from nas.tasks.sensitivity import channel_weights

SPACE = SearchSpace("small", 8, 8, (Block(2, 12, 1, 1), Block(2, 16, 1, 1)), kernels=(3,), expansions=(2,))


def network() -> Segmenter:
    torch.manual_seed(0)
    return teacher(SPACE, 4, Head(8, (2,))).eval()


def samples(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 48, generator=generator), torch.randint(4, (count, 32, 48), generator=generator)


def test_weights_are_the_squared_gradients_of_the_loss_times_the_variance():
    model, (images, labels) = network(), samples(3)
    found = channel_weights(model, "segmentation", [(images, labels)])
    powers = []
    for block in (1, 2):
        squares = []
        for image, label in zip(images, labels, strict=True):
            maps = model.boundaries(image[None])
            y = maps[block].detach().requires_grad_()
            rest = y
            for later in model.blocks[block:]:
                rest = later(rest)
            pixel_cross_entropy(model.head(rest), label[None]).backward()
            squares.append(y.grad.double().square().sum((0, 2, 3)))
        variance = model.boundaries(images)[block].detach().double().var((0, 2, 3), unbiased=False)
        powers.append(torch.stack(squares).mean(0) * variance)
    mean = (powers[0].sum() + powers[1].sum()) / 2
    for weights, power in zip(found, powers, strict=True):
        assert weights.numpy() == pytest.approx((power * len(power) / mean).numpy(), rel=1e-4)
    assert sum(float(weights.mean()) for weights in found) / 2 == pytest.approx(1)


def test_batches_change_nothing_and_nothing_is_left_on_the_network():
    model, (images, labels) = network(), samples(4)
    once = channel_weights(model, "segmentation", [(images, labels)])
    twice = channel_weights(model, "segmentation", [(images[:1], labels[:1]), (images[1:], labels[1:])])
    for a, b in zip(once, twice, strict=True):
        assert a.numpy() == pytest.approx(b.numpy(), rel=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(block._forward_hooks for block in model.blocks)


def test_uniform_weights_give_the_plain_nsr_and_halves_its_parts():
    generator = torch.Generator().manual_seed(3)
    maps, output = (torch.randn(6, 5, 4, 4, generator=generator) for _ in range(2))
    plain = NsrReference(maps).noise([output])
    uniform = NsrReference(maps, torch.ones(5, dtype=torch.float64)).noise([output])
    assert uniform == plain and plain.weighted == plain.nsr == NsrReference(maps).nsr([output])
    assert sum(plain.halves) / 2 == pytest.approx(plain.nsr)
    assert plain.halves[0] != plain.halves[1]
    one = NsrReference(maps, torch.tensor([5.0, 0, 0, 0, 0])).noise([output])
    error = (maps[:, 0] - output[:, 0]).double().square().mean() / maps[:, 0].double().var(unbiased=False)
    assert one.weighted == pytest.approx(float(error), rel=1e-5)
