"""What all commands print with: lines, JSON, tables, progress. Importing it imports nothing heavy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

    from deploy.run.folder import Progress

Ended = TypeVar("Ended")
WIDTH_OF_A_FILE = 180  # columns, where no terminal says how many there are


def say(line: str) -> None:
    """One plain line on stdout."""
    print(line, flush=True)


def warn(line: str) -> None:
    """One plain line on stderr."""
    print(f"warning: {line}", file=sys.stderr)


def show_warnings() -> None:
    """What the rooms below have to say beside their results (a board that is lost) goes to stderr, a line each."""
    import logging

    class Warned(logging.Handler):
        """Looks up stderr for every line: while a live display is shown it is another one, which keeps it whole."""

        def emit(self, record: logging.LogRecord) -> None:
            warn(record.getMessage())

    logging.basicConfig(handlers=[Warned()], level=logging.WARNING)


def say_json(record: object) -> None:
    """A record on stdout, for other programs."""
    print(json.dumps(record, indent=1))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> None:
    """A table on stdout. The first column and those named in `left` are aligned left, the others right."""
    from rich.markup import escape
    from rich.table import Table

    drawn = Table()
    for column in columns:
        justify = "left" if column == columns[0] or column in left else "right"
        drawn.add_column(escape(column), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*map(escape, row))
    show(drawn)


def show(drawn: Table) -> None:
    """A table on stdout, as wide as the terminal."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE).print(drawn)


def follow(steps: Iterable[Progress], stages: Sequence[str] = ()) -> None:
    """Take all steps and show how far they are; `stages`: those that will come, where that is known."""
    with progress(stages) as show:
        for step in steps:
            show(step)


def followed(steps: Generator[Progress, None, Ended]) -> Ended:
    """As `follow`; what the steps end with."""
    with progress() as show:
        while True:
            try:
                show(next(steps))
            except StopIteration as end:
                ended: Ended = end.value
                return ended


@contextmanager
def progress(stages: Sequence[str] = ()) -> Iterator[Callable[[Progress], None]]:
    """A live display on a terminal; elsewhere lines on stderr: when a stage starts and ends, and one a minute."""
    from deploy.cli.live import display, has_display
    from deploy.cli.progress import log_of

    if not has_display():
        yield log_of(stages)
        return
    with display(stages) as show:
        yield show
