"""Starting from the teacher: what contains the teacher's layer computes what it computes, bit for bit or nearly."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas.networks.blocks import MBConv, SuperBlock
from nas.networks.segmenter import Encoder, Head, Segmenter, teacher
from nas.networks.start import centred, hidden_channels, importance, kept_layers, start_layer, start_network
from nas.networks.start import start_supernets as start
from nas.noise import channel_variance, nsr
from nas.space import Block, Choice, SearchSpace
from nas.training.distil import supernets

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 12, 2), Block(1, 16, 3, dilation=2)), (3, 5, 7), (3, 6), teacher="b1_k5e3-k3e6+b2_k3e6-k3e3"
)  # fmt: skip


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """With batch norms as training leaves them: no scale of 1, no shift of 0."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for name, low in (("weight", 0.3), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.4)):
                tensor = getattr(norm, name).data
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module.eval()


@pytest.fixture(scope="module")
def model() -> Encoder:
    torch.manual_seed(0)
    made = settled(teacher(SPACE, 5, Head(8, (2,))))
    assert isinstance(made, Segmenter)
    return made


@pytest.fixture(scope="module")
def started(model: Encoder) -> list[SuperBlock]:
    torch.manual_seed(1)
    blocks = [block for block in supernets(SPACE).eval() if isinstance(block, SuperBlock)]
    start(blocks, model)
    return blocks


IMAGES = torch.randn(2, 3, 34, 46, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_the_student_that_equals_the_teacher_has_no_noise(model: Encoder, started: list[SuperBlock]) -> None:
    maps = model.boundaries(IMAGES)
    for block, x, target in zip(started, maps, maps[1:], strict=False):
        taught = SPACE.teacher_layers[block.block - 1]
        path = [*taught, *[Choice(7, 3)] * (len(block.layers) - len(taught))]  # a layer beyond adds nothing
        assert float(nsr(target, block(x, path), channel_variance(target))) == 0.0


@torch.no_grad()
def test_larger_kernels_change_nothing(model: Encoder, started: list[SuperBlock]) -> None:
    maps = model.boundaries(IMAGES)
    for block, x, target in zip(started, maps, maps[1:], strict=False):
        taught = SPACE.teacher_layers[block.block - 1]
        path = [Choice(7, choice.expansion) for choice in taught] + [Choice(3, 6)] * (len(block.layers) - len(taught))
        torch.testing.assert_close(block(x, path), target, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_left_out_is_noise_and_less_than_of_new_weights(model: Encoder, started: list[SuperBlock]) -> None:
    torch.manual_seed(2)
    new = [block for block in supernets(SPACE).eval() if isinstance(block, SuperBlock)]
    maps = model.boundaries(IMAGES)
    for block, other, x, target in zip(started, new, maps, maps[1:], strict=False):
        path, variance = [Choice(3, 3)] * len(block.layers), channel_variance(target)
        assert 0 < float(nsr(target, block(x, path), variance)) < 0.5 * float(nsr(target, other(x, path), variance))


@settings(max_examples=40, deadline=None)
@given(
    kernels=st.tuples(st.sampled_from([3, 5]), st.sampled_from([0, 2, 4])),
    expansions=st.tuples(st.integers(2, 4), st.integers(0, 5)),
    moved=st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    seed=st.integers(0, 99),
)
def test_a_layer_that_can_hold_the_teachers_computes_the_same(
    kernels: tuple[int, int], expansions: tuple[int, int], moved: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    """`kernels` and `expansions`: the teacher's, and how much larger the student's is; `moved`: stride, dilation."""
    torch.manual_seed(seed)
    geometry = (4, 6, *moved)
    source = settled(MBConv(geometry, Choice(kernels[0], expansions[0])), seed)
    layer = MBConv(geometry, Choice(sum(kernels), sum(expansions))).eval()
    assert isinstance(source, MBConv)
    with torch.no_grad():
        start_layer(layer, source)
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(layer(x), source(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_smaller_expansion_keeps_the_channels_that_matter_most() -> None:
    torch.manual_seed(4)
    geometry = (4, 4, 1, 1)
    source = settled(MBConv(geometry, Choice(3, 6)))
    assert isinstance(source, MBConv)
    layer = MBConv(geometry, Choice(3, 3)).eval()
    start_layer(layer, source)
    kept = importance(source).topk(12).indices
    silenced = copy.deepcopy(source)
    others = [i for i in range(24) if i not in kept.tolist()]
    silenced.project.weight[:, others] = 0
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(layer(x), silenced(x), rtol=1e-4, atol=1e-5)
    assert importance(source)[kept].min() >= importance(source)[others].max()


def test_the_parts_of_a_channel_sum_to_it_and_differ() -> None:
    torch.manual_seed(5)
    source = settled(MBConv((4, 4, 1, 1), Choice(3, 3)))
    assert isinstance(source, MBConv)
    channels, shares = hidden_channels(source, 30)
    sums = torch.zeros(12).index_add(0, channels, shares)
    torch.testing.assert_close(sums, torch.ones(12))
    pairs = list(zip(channels.tolist(), shares.tolist(), strict=True))
    assert len(set(pairs)) == 30
    most = importance(source).topk(6).indices.tolist()
    assert sorted({i for i in range(12) if channels.tolist().count(i) == 3}) == sorted(most)


def test_of_a_deeper_teacher_the_residuals_that_add_most_are_kept() -> None:
    layers = [MBConv((4, 4, 1, 1), Choice(3, 3)) for _ in range(4)]
    for layer, scale in zip(layers, (0.1, 0.2, 3.0, 1.0), strict=True):
        nn.init.constant_(layer.project.bn.weight, scale)
    assert kept_layers(layers, 3) == [0, 2, 3]
    assert kept_layers(layers, 1) == [0]
    assert kept_layers(layers, 9) == [0, 1, 2, 3]


@torch.no_grad()
def test_a_network_of_the_teachers_layers_is_the_teacher(model: Encoder) -> None:
    torch.manual_seed(6)
    other = Segmenter(SPACE, SPACE.teacher_layers, 5, Head(8, (2,))).eval()
    start_network(other, model)
    assert torch.equal(other(IMAGES), model(IMAGES))


@torch.no_grad()
def test_layers_of_other_kinds_keep_their_own_weights() -> None:
    torch.manual_seed(7)
    source = settled(MBConv((4, 4, 1, 1), Choice(3, 3)))
    assert isinstance(source, MBConv)
    others = [((4, 4), Choice(3, 1)), ((6, 4), Choice(3, 3)), ((4, 6), Choice(3, 3))]
    for layer in (MBConv((*channels, 1, 1), choice) for channels, choice in others):
        before = copy.deepcopy(layer.state_dict())
        start_layer(layer, source)
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_smaller_kernel_is_the_middle() -> None:
    weight = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert torch.equal(centred(weight, 3), weight[:, :, 1:4, 1:4])
    assert torch.equal(centred(centred(weight, 7), 5), weight)
