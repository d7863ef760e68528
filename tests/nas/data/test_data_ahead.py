"""Batches ahead of time are the batches."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import open_data
from nas.data.ahead import Ahead, made_ahead
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.errors import DataError


@given(steps=st.lists(st.integers(0, 20), max_size=12), threads=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_any_order_of_steps_gives_what_each_gives(steps, threads):
    ahead = Ahead(lambda step: step**2, threads)
    assert [ahead(step) for step in steps] == [step**2 for step in steps]


def test_in_order_every_step_is_made_once_and_by_other_threads():
    made: list[int] = []
    makers: set[str] = set()

    def make(step: int) -> int:
        made.append(step)
        makers.add(threading.current_thread().name)
        return step

    ahead = Ahead(make, 2)
    assert [ahead(step) for step in range(5, 15)] == list(range(5, 15))
    assert len(made) == len(set(made)) and threading.main_thread().name not in makers


def test_batches_are_the_same():
    data = open_data("scenes", "train", (32, 48), count=4)

    def make(step: int) -> torch.Tensor:
        return training_batch(data, step, batch_size=2, augment=training_augment(data), seed=0)[0]

    ahead = Ahead(make, 3)
    assert all(torch.equal(ahead(step), make(step)) for step in range(8))


def test_an_error_comes_with_its_step():
    def make(step: int) -> int:
        if step == 2:
            raise DataError("broken.png")
        return step

    ahead = Ahead(make, 3)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(DataError, match=r"broken\.png"):
        ahead(2)


def test_a_cpu_trains_alone():
    assert made_ahead(abs, torch.device("cpu")) is abs
    assert isinstance(made_ahead(abs, torch.device("cuda", 0)), Ahead)
