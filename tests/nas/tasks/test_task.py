"""The interface between the loop and its tasks: networks, losses and metrics of segmentation and classification."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.data import DATASETS, IGNORE, Dataset, open_data
from nas.data.augment import training_augment
from nas.data.batches import batches, images_of, load, training_batch
from nas.errors import ConfigError
from nas.networks.blocks import recalibrate
from nas.networks.classifier import Classifier, PooledHead
from nas.networks.segmenter import Encoder, Head, Segmenter, upsampled
from nas.quant import post_training, simulate
from nas.quant.float_graph import INPUT, run
from nas.space import Block, SearchSpace
from nas.tasks.classification import counted
from nas.tasks.task import TASKS, fold, network, score_float, score_integer, training_loss

SIZE = (32, 40)
SPACE = SearchSpace(
    name="two",
    stem_channels=8,
    first_channels=8,
    kernels=(3,),
    expansions=(2, 6),
    bits=(8,),
    blocks=(Block(2, 12, 1, 1), Block(2, 16, 1, 1)),
)
HEADS = {"segmentation": Head(8, (2,)), "classification": PooledHead(24)}
DATA = {"segmentation": "scenes", "classification": "shapes"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(task: str, count: int = 12) -> tuple[Dataset, Encoder]:
    data = open_data(DATA[task], "train", SIZE, count=count)
    torch.manual_seed(0)
    model = network(data, SPACE, SPACE.teacher_layers, HEADS[task])
    recalibrate(model, next(images_of(data, 8)))
    return data, model.eval()


def test_each_task_has_its_network_and_every_data_set_a_task() -> None:
    assert isinstance(case("segmentation")[1], Segmenter) and isinstance(case("classification")[1], Classifier)
    assert set(TASKS) == set(HEADS) and {"scenes", "shapes"} <= DATASETS.keys()
    assert len({task.key for task in TASKS.values()}) == len(TASKS)


@pytest.mark.parametrize(
    ("task", "head", "says"),
    [
        ("segmentation", PooledHead(8), "data 'scenes' is for segmentation, whose head is written { channels = "),
        ("classification", Head(8, (2,)), "data 'shapes' is for classification, whose head is written { features = "),
    ],
)
def test_another_tasks_head_is_refused(task: str, head: Head | PooledHead, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network(open_data(DATA[task], "train", SIZE), SPACE, SPACE.teacher_layers, head)
    assert says in str(caught.value) and f"configs/demo-{DATA[task]}.toml" in str(caught.value)


def slow_segmentation_loss(model: Callable[[Tensor], Tensor], data: Dataset, step: int) -> Tensor:
    images, labels = training_batch(data, step, batch_size=4, augment=training_augment(data), seed=3)
    logits = upsampled(model(images), data.size)
    known = labels != IGNORE
    return -logits.log_softmax(1).permute(0, 2, 3, 1)[known].gather(1, labels[known][:, None]).mean()


def slow_classification_loss(model: Callable[[Tensor], Tensor], data: Dataset, step: int) -> Tensor:
    images, labels = training_batch(data, step, batch_size=4, augment=training_augment(data), seed=3)
    probabilities = model(images).softmax(1)
    return -torch.stack([p[int(label)].log() for p, label in zip(probabilities, labels, strict=True)]).mean()


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_loss_is_cross_entropy_over_what_is_labelled(task: str) -> None:
    data, model = case(task)
    slow = slow_segmentation_loss if task == "segmentation" else slow_classification_loss
    with torch.no_grad():
        for step in (0, 5):
            torch.testing.assert_close(training_loss(model, data, 4, 3)(step), slow(model, data, step))


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_folded_nodes_answer_as_the_network(task: str) -> None:
    data, model = case(task)
    images = next(images_of(data, 6))
    with torch.no_grad():
        expected = TASKS[data.task].predictions(model(images), data.size)
        folded = run(fold(model, data.size), {INPUT: images})
    found = TASKS[data.task].integer_predictions(folded)
    assert found.shape == expected.shape
    assert float((found == expected).double().mean()) > 0.99


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_integer_score_is_that_of_the_graph_image_by_image(task: str) -> None:
    data, model = case(task)
    graph = post_training.quantize(fold(model, data.size), [next(images_of(data, 8))], (*data.size, 3))
    found = [TASKS[data.task].integer_predictions(output(graph, data, i)) for i in range(len(data))]
    by_image = iter(torch.cat(found).split(1))
    expected = TASKS[data.task].counted(lambda images: torch.cat([next(by_image) for _ in images]), data).score
    assert score_integer(graph, data) == expected
    assert abs(score_float(model, data) - expected) < 30


def output(graph, data: Dataset, index: int) -> Tensor:
    images, _ = load(data, [index])
    return simulate.run(graph, simulate.quantize(images, graph.tensors[graph.input]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=37, max_size=37))
def test_top1_counts_images(guesses: list[int]) -> None:
    data = open_data("shapes", "val", (24, 24), count=37)
    labels = [int(sample.label) for sample in data]
    said = iter(np.array(guesses))
    expected = 100 * sum(a == b for a, b in zip(guesses, labels, strict=True)) / 37
    found = counted(lambda images: torch.tensor([int(next(said)) for _ in images]), data)
    assert found.score == pytest.approx(expected)


def test_equal_scores_mean_the_first_class() -> None:
    """As a board's argmax does."""
    q = torch.tensor([[3.0, 7.0, 7.0], [5.0, 5.0, 5.0]])[:, :, None, None]
    assert TASKS["classification"].integer_predictions(q).tolist() == [1, 0]


def test_batches_are_all_samples_in_order() -> None:
    data = open_data("shapes", "val", (24, 24), count=21)
    sizes = [len(labels) for _, labels in batches(data)]
    assert sizes == [16, 5]
    assert torch.cat([labels for _, labels in batches(data)]).tolist() == [int(s.label) for s in data]
