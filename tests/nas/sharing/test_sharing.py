"""Full-network weight sharing: how often choices are trained, what a candidate is, and search under budgets."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas.data import Dataset, open_data
from nas.data.augment import training_augment
from nas.data.batches import images_of, training_batch
from nas.data.part import held_out
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.networks.blocks import MBConv
from nas.networks.segmenter import Head, upsampled
from nas.networks.start import start_network
from nas.search.candidates import candidates
from nas.sharing import fairnas, spos
from nas.sharing.affordable import Affordable
from nas.sharing.evolution import Evaluated, Evolution, crossed, evolve, mutated, random_search
from nas.sharing.supernet import Path, Supernet
from nas.sharing.training import SAMPLERS, shared_losses
from nas.space import Architecture, Block, Choice, SearchSpace
from nas.table import Table, size_table
from nas.tasks.task import network
from nas.training.train import Schedule, train

SPACE = SearchSpace(
    "tiny",
    8,
    8,
    (Block(2, 8, 1, 1), Block(1, 16, 2, 1)),
    kernels=(3, 5),
    expansions=(1, 3),
    bits=(4, 8),
)
HEAD = Head(8, (2,))
ARCHITECTURES = [Architecture(pair) for pair in itertools.product(SPACE.subnets(1), SPACE.subnets(2))]


def layers(path: Path) -> Iterator[tuple[tuple[int, int], object]]:
    for block, choices in enumerate(path):
        for layer, choice in enumerate(choices):
            yield (block, layer), choice


def random_table(seed: int, quantity: str = "latency", space: SearchSpace = SPACE) -> Table:
    rng = np.random.default_rng(seed)
    entries = {subnet: Estimate.exact(float(rng.uniform(1, 9))) for subnet in space.all_subnets()}
    return Table(quantity, "us", entries, {"space": space.digest})


def affordable_within(space: SearchSpace, limits: Mapping[str, float], *tables: Table) -> Affordable:
    return Affordable(space, candidates(space, tables), limits)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_data("scenes", "train", (48, 64), seed=0, count=10)


@pytest.fixture
def supernet(data) -> Supernet:
    torch.manual_seed(0)
    return Supernet(network(data, SPACE, [], HEAD))


def test_fairnas_trains_every_choice_of_every_layer_once_per_step():
    for step in range(20):
        paths = fairnas.paths(SPACE, 3, step)
        counts = Counter(place for path in paths for place in layers(path))
        assert set(counts.values()) == {1} and len(counts) == 3 * len(SPACE.choices)


def test_fairnas_draws_independently_in_each_layer():
    pairs = Counter((path[1][0], path[1][1]) for step in range(400) for path in fairnas.paths(SPACE, 0, step))
    assert len(pairs) == 16 and chisquare(list(pairs.values())).pvalue > 0.001


def test_spos_draws_one_path_uniformly():
    drawn = [spos.paths(SPACE, 0, step) for step in range(3200)]
    assert {len(paths) for paths in drawn} == {1}
    counts = Counter(path for (path,) in drawn)
    assert len(counts) == 4**3 and chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize("name", SAMPLERS)
def test_paths_depend_on_seed_and_step_alone(name):
    sample = SAMPLERS[name]
    assert sample(SPACE, 1, 5) == sample(SPACE, 1, 5)
    others = [[sample(SPACE, seed, step) for step in range(20)] for seed in (1, 2)]
    assert others[0] != others[1] and len({str(paths) for paths in others[0]}) > 10


def test_a_fairnas_step_moves_every_choice_by_the_sum_of_its_paths_gradients(supernet, data, tmp_path):
    start = copy.deepcopy(supernet)
    schedule = Schedule(1, learning_rate=0.5, momentum=0.0, weight_decay=0.0)
    losses = shared_losses(supernet, data, fairnas.paths, batch_size=4, seed=7)
    list(train(supernet, losses, schedule, tmp_path / "f.pt", "k"))

    images, labels = training_batch(data, 0, batch_size=4, augment=training_augment(data), seed=7)
    images = images.contiguous(memory_format=torch.channels_last)  # as training has them
    plain = start.train()
    total = torch.stack(
        [
            F.cross_entropy(upsampled(plain(images, path), data.size), labels, ignore_index=255)
            for path in fairnas.paths(SPACE, 7, 0)
        ]
    ).sum()
    total.backward()
    moved = dict(supernet.named_parameters())
    for name, parameter in start.named_parameters():
        step = 0.5 * parameter.grad  # summed in another order, through batch norms of few values
        assert torch.norm(parameter - step - moved[name]) <= 1e-3 * torch.norm(step) + 1e-6, name
    projections = [m.project.weight for m in start.network.blocks.modules() if isinstance(m, MBConv)]
    assert len(projections) == 3 * 4 and all(weight.grad.abs().sum() > 0 for weight in projections)


def test_a_spos_step_trains_stem_head_and_one_choice_per_layer(supernet, data):
    (loss,) = shared_losses(supernet.train(), data, spos.paths, batch_size=2, seed=7)(0)
    loss.backward()
    shared = supernet.network
    assert shared.stem.weight.grad is not None and shared.head.classifier.weight.grad is not None
    trained = {
        (block.block - 1, i, choice)
        for block in supernet.blocks
        for i in range(len(block.layers))
        for choice in SPACE.choices
        if block.layer(i, choice).project.weight.grad is not None
    }
    (path,) = spos.paths(SPACE, 7, 0)
    assert trained == {(*place, choice) for place, choice in layers(path)}


def test_a_candidate_is_its_path_with_statistics_of_its_own(supernet, data):
    images, architecture = next(images_of(data, 4)), ARCHITECTURES[37]
    choices = tuple(subnet.choices for subnet in architecture.subnets)
    model = supernet.extract(network(data, SPACE, choices, HEAD), architecture, images)
    supernet.train()
    with torch.no_grad():  # in training mode a batch is normalised by itself, as after recalibration on it
        # but for the variance, which running statistics take unbiased: over 4 values in the pooled branch
        for name in ("pointwise", "bottleneck", "pooled"):
            getattr(model.head, name).train()
        torch.testing.assert_close(model(images), supernet(images, choices), rtol=1e-2, atol=1e-2)
    model.stem.weight.data.zero_()
    assert supernet.network.stem.weight.abs().sum() > 0, "a candidate is a copy"


def test_a_supernet_that_starts_from_the_teacher_has_its_layers_between_its_stem_and_head(supernet, data):
    """A path is the network of its layers started from the teacher, where all layers expand as the teacher's do."""
    torch.manual_seed(1)
    teacher = network(data, SPACE, [[Choice(3, 3)], [Choice(5, 3)]], HEAD).eval()
    supernet.start(teacher)
    images = next(images_of(data, 4))
    for choices in itertools.product([Choice(3, 3), Choice(5, 3)], repeat=3):
        path = (choices[:1], choices[1:])
        model = network(data, SPACE, path, HEAD)
        start_network(model, teacher)
        torch.testing.assert_close(supernet.eval()(images, path), model.eval()(images))
    for name in ("stem", "first", "head"):
        started, own = (getattr(part, name).state_dict() for part in (supernet.network, teacher))
        assert all(torch.equal(started[key], own[key]) for key in own)


def test_held_out_images_are_apart(data):
    rest, apart = held_out(data, 3)
    assert sorted((*rest.indices, *apart.indices)) == list(range(10)) and len(apart) == 3
    assert np.array_equal(apart[1].image, data[apart.indices[1]].image)
    assert (rest.size, rest.classes, rest.name, rest.task) == (data.size, data.classes, data.name, data.task)
    with pytest.raises(IndexError):
        rest[7]
    for count in (0, 10):
        with pytest.raises(ConfigError, match="hold out"):
            held_out(data, count)


SMALL = SearchSpace("small", 8, 8, (Block(2, 8, 1, 1),) * 2, kernels=(3, 5), expansions=(1, 3), bits=(4, 8))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.02, 0.98))
def test_search_stays_within_budgets_and_ends_at_the_brute_force_optimum(seed, share):
    latency, size, nsr = random_table(seed, space=SMALL), size_table(SMALL), random_table(seed + 1, "nsr", SMALL)
    everything = [Architecture(pair) for pair in itertools.product(SMALL.subnets(1), SMALL.subnets(2))]
    limits = {
        table.quantity: float(np.quantile([table.total(a) for a in everything], share)) for table in (latency, size)
    }
    fitting = [a for a in everything if latency.total(a) <= limits["latency"] and size.total(a) <= limits["size"]]
    affordable = affordable_within(SMALL, limits, latency, size)
    if not fitting:
        with pytest.raises(ConfigError, match="loosen"):
            affordable.sample(random.Random(0))
        return
    exhaustive = Evolution(len(everything), population=20, parents=5)
    for searched in (
        list(evolve(affordable, lambda a: -nsr.total(a), exhaustive, seed)),
        list(random_search(affordable, lambda a: -nsr.total(a), len(everything), seed)),
    ):
        found = [e.architecture for e in searched]
        assert set(found) <= set(fitting) and len(set(found)) == len(found)
        assert max(e.fitness for e in searched) == max(-nsr.total(a) for a in fitting)


def fewer(seed: int, evaluations: int, search: str) -> list[Evaluated]:
    nsr, affordable = random_table(1, "nsr"), affordable_within(SPACE, {"latency": 12.0}, random_table(0))
    fitness = lambda a: -nsr.total(a)  # noqa: E731
    if search == "random":
        return list(random_search(affordable, fitness, evaluations, seed))
    return list(evolve(affordable, fitness, Evolution(evaluations, population=10, parents=3), seed))


@pytest.mark.parametrize("search", ["evolution", "random"])
def test_search_is_a_function_of_its_seed_and_evaluates_as_many_as_requested(search):
    one, again, other = (fewer(seed, 35, search) for seed in (4, 4, 5))
    assert one == again and one != other
    assert len(one) == len({e.architecture for e in one}) == 35
    assert fewer(4, 12, search) == one[:12], "more evaluations go on where fewer end"


def test_evolution_beats_random_search_with_as_many_evaluations():
    best = {s: [max(e.fitness for e in fewer(seed, 60, s)) for seed in range(20)] for s in ("evolution", "random")}
    assert np.mean(best["evolution"]) > np.mean(best["random"])


def test_children_come_from_their_parents():
    rng = random.Random(0)
    one, other = ARCHITECTURES[0], ARCHITECTURES[-1]
    for _ in range(50):
        child = crossed(one, other, rng)
        for a, b, c in zip(one.subnets, other.subnets, child.subnets, strict=True):
            assert c.bits in (a.bits, b.bits)
            assert all(got in pair for got, *pair in zip(c.choices, a.choices, b.choices, strict=True))
        SPACE.check(mutated(one, SPACE, 0.5, rng))
    assert mutated(one, SPACE, 1e-12, rng) == one
    assert len({mutated(one, SPACE, 1.0, rng) for _ in range(200)}) > 50


def test_a_tight_budget_is_met_where_uniform_draws_never_are():
    blocks = tuple(Block(1, 16, 3, 1) for _ in range(6))
    wide = SearchSpace("wide", 8, 16, blocks, kernels=(3, 5, 7), expansions=(3, 6))
    size = size_table(wide)
    least = sum(min(size[s] for s in wide.subnets(b)) for b in range(1, 7))
    affordable = affordable_within(wide, {"size": least * 1.02}, size)
    drawn = {affordable.sample(random.Random(seed)) for seed in range(5)}
    assert len(drawn) > 1 and all(size.total(a) <= least * 1.02 for a in drawn)


def test_a_budget_below_the_smallest_names_the_smallest():
    size = size_table(SPACE)
    least = min(size.total(a) for a in ARCHITECTURES)
    with pytest.raises(ConfigError, match=f"the smallest reachable are size {least:g}"):
        affordable_within(SPACE, {"size": least - 1}, size)
    assert affordable_within(SPACE, {"size": least}, size).sample(random.Random(0)) in ARCHITECTURES


@pytest.mark.parametrize("wrong", [{"evaluations": 0}, {"population": 0}, {"parents": -1}, {"mutation": 0.0}])
def test_evolution_refuses_settings_that_never_end(wrong):
    with pytest.raises(ConfigError, match="positive"):
        Evolution(**wrong)


@pytest.mark.parametrize("bits", SPACE.bits)
def test_where_some_widths_are_allowed_no_other_is_drawn(bits):
    latency = random_table(0)
    of = candidates(SPACE, [latency], lambda subnet: subnet.bits == bits)
    affordable = Affordable(SPACE, of, {"latency": 14.0})
    search = evolve(affordable, lambda a: -latency.total(a), Evolution(30, population=10, parents=3), 0)
    widths = {s.bits for found in search for s in found.architecture.subnets}
    assert widths == {bits} and affordable.space.bits == (bits,)
