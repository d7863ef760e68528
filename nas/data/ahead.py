"""Batches made by threads before they are requested: a GPU would wait longer for its images than it computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
MOST_THREADS = 8


class Ahead(Generic[T]):
    """`make(step)`, a pure function, for steps requested mostly in order; as many ahead as there are threads.

    Raises what `make` raises, when the step is requested.
    """

    def __init__(self, make: Callable[[int], T], threads: int) -> None:
        self._make, self._threads = make, threads
        self._pool = ThreadPoolExecutor(threads, "ahead")
        self._coming: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        wanted = range(step, step + self._threads + 1)
        self._coming = {s: self._coming.get(s) or self._pool.submit(self._make, s) for s in wanted}
        return self._coming[step].result()


def made_ahead(make: Callable[[int], T], device: torch.device) -> Callable[[int], T]:
    """`make` itself for a CPU, whose cores are busy anyway; ahead of time for a GPU."""
    return make if device.type == "cpu" else Ahead(make, min(MOST_THREADS, os.cpu_count() or 1))
