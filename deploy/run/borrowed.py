"""A run as it travels to the engine's workers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from nas.space import SearchSpace


@dataclass(frozen=True)
class BorrowedRun:
    """A run for a worker, who sees its folder too; whoever sends it has locked that."""

    experiment: Experiment
    space: SearchSpace
    folder: Path
    boards_file: Path | None

    @classmethod
    def of(cls, context: Context) -> BorrowedRun:
        return cls(context.experiment, context.space, context.path, context.boards_file)

    def context(self) -> Context:
        """One for all tasks of a worker, so that data and networks are loaded once."""
        return _opened(self)


@functools.lru_cache(maxsize=1)
def _opened(run: BorrowedRun) -> Context:
    return Context(run.experiment, run.space, Run.borrowed(run.folder), run.boards_file)
