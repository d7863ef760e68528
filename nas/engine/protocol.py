"""What an engine is: it runs independent tasks, in this process, in others or on other machines.

A task is one call of a function that can be pickled. Its result depends on the task alone, so every engine gives the
same results, and the task of a lost worker is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
ATTEMPTS = 3  # a task that costs three workers their lives is the cause, not the victim
THREADS = "OMP_NUM_THREADS"


class Engine(Protocol):
    """Runs tasks, several at a time where it can, in any order."""

    def each(self, function: Callable[[T], R], tasks: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        """Yields each task with `function(task)`, as they end.

        What a task raises is raised here. When the generator ends, however it ends, the workers are killed, perhaps
        while they write. Raises `EngineError` for a task whose workers were lost `ATTEMPTS` times.
        """
        ...
