"""The one display of long work on a terminal: every stage with its bar and the time left, every board at work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.cli.progress import StageView, Watch, counted, duration

if TYPE_CHECKING:
    from deploy.run.folder import Progress

BAR_WIDTH = 24
REFRESHES_PER_SECOND = 4


def has_display() -> bool:
    """Whether stderr can show lines that change."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def display(stages: Sequence[str]) -> Iterator[Callable[[Progress], None]]:
    """On stderr, while the work lasts; what else is printed stands above it. Yields what takes each step."""
    shown = Display(Watch(stages))
    console = Console(stderr=True)
    with Live(shown, console=console, refresh_per_second=REFRESHES_PER_SECOND, redirect_stdout=sys.stdout.isatty()):
        yield shown.take


class Display:
    """A `Watch` as rich renders it; its thread does so while the work goes on."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._lock = watch, Lock()

    def take(self, p: Progress) -> None:
        with self._lock:
            self._watch.take(p)

    def __rich__(self) -> Group:
        with self._lock:
            return Group(self._stages(), *self._boards())

    def _stages(self) -> Table:
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(justify="right", no_wrap=True)
        rows.add_column(width=BAR_WIDTH)
        for _ in ("count", "time"):
            rows.add_column(justify="right", no_wrap=True)
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for name in self._watch.names:
            stage = self._watch.stages.get(name)
            if stage is None:
                rows.add_row(Text(name, style="dim"))
            else:
                rows.add_row(name, *self._cells(stage))
        return rows

    def _cells(self, stage: StageView) -> tuple[ProgressBar, str, str, Text]:
        now, last = self._watch.clock(), stage.last
        if stage.ended_s is not None:
            took = duration(stage.ended_s - stage.started_s) if last else ""
            return ProgressBar(1, 1, width=BAR_WIDTH), "done", took, Text()
        if last is None:
            elapsed = duration(now - stage.started_s)
            return ProgressBar(None, width=BAR_WIDTH, animation_time=now), "", elapsed, Text()
        left_s, pace = stage.left_s(now), stage.pace.per_second
        left = duration(now - stage.started_s) if left_s is None else f"{duration(left_s)} left"
        words = ", ".join(filter(None, [f"{60 * pace:.3g}/min" if pace else "", last.text]))
        return ProgressBar(last.total, last.done, width=BAR_WIDTH), counted(last), left, Text(words)

    def _boards(self) -> Iterator[Text]:
        """The boards, and how many measurements wait for them."""
        boards = self._watch.boards.values()
        for board in boards:
            yield Text(f"board {board}", no_wrap=True, overflow="ellipsis")
        at_work = [s.last for s in self._watch.stages.values() if s.ended_s is None and s.last is not None]
        waiting = sum(last.total - last.done for last in at_work if last.measurements and not last.unit)
        if waiting:
            yield Text(f"queue {waiting:,}".replace(",", " "))
