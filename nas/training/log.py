"""The log of a training: one CSV row per step and, on request, TensorBoard event files.

After a kill and a resumption the rows are those of an uninterrupted training, except for the seconds: rows are on disk
before the checkpoint that covers them, and rows beyond the resumed step are dropped.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from nas.errors import ConfigError

COLUMNS = ("step", "loss", "learning_rate", "seconds")


def log_path(checkpoint: Path) -> Path:
    """Where a training logs by default: `supernets.training.csv` beside `supernets.pt`."""
    return checkpoint.with_name(f"{checkpoint.stem}.training.csv")


@dataclass(eq=False)
class TrainingLog:
    """Rows (step from 1, loss, learning rate of the first parameter group, seconds of the step).

    Attributes:
        path: of the CSV file.
        events: folder of TensorBoard's event files; None: none are written. They need the package tensorboard.
    """

    path: Path
    events: Path | None = None
    _file: TextIO | None = field(default=None, init=False)
    _writer: Any = field(default=None, init=False)

    def begin(self, step: int) -> None:
        """Open the log of a training of which `step` steps are done; later rows are dropped.

        Raises `ConfigError` where event files are requested and tensorboard is not installed.
        """
        if self.events is not None:
            self._writer = _summary_writer(self.events, step + 1)
        rows = [row for row in _rows(self.path) if int(row[0]) <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with part.open("w", encoding="utf8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        part.replace(self.path)
        self._file = self.path.open("a", encoding="utf8", newline="")

    def add(self, step: int, loss: float, learning_rate: float, seconds: float) -> None:
        """The row of a finished step."""
        assert self._file is not None  # noqa: S101 (for the type checker; begin() opened it)
        csv.writer(self._file, lineterminator="\n").writerow([step, loss, learning_rate, f"{seconds:.4f}"])
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, step)
            self._writer.add_scalar("learning_rate", learning_rate, step)
            self._writer.add_scalar("seconds", seconds, step)

    def flush(self) -> None:
        """Bring all rows to the disk; to be called before the checkpoint that covers them is written."""
        if self._file is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                error.filename = error.filename or str(self.path)
                raise
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()
        self._file = self._writer = None


def _rows(path: Path) -> list[list[str]]:
    """The complete rows of a log, up to the first that is not: a kill may leave a part of one at the end."""
    if not path.exists():
        return []
    rows: list[list[str]] = []
    for line in path.read_text(encoding="utf8", errors="replace").splitlines(keepends=True)[1:]:
        row = line.rstrip("\n").split(",")
        if not line.endswith("\n") or len(row) != len(COLUMNS) or not row[0].isdecimal():
            break
        rows.append(row)
    return rows


def _summary_writer(folder: Path, first_step: int) -> Any:
    """TensorBoard's writer; events from `first_step` on that a killed training left are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "TensorBoard's event files: the package tensorboard is not installed; install it, or leave them out"
        ) from None
    return SummaryWriter(str(folder), purge_step=first_step)
