"""data.json: the files that a run trains on, as they were when they were checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deploy.run.records.base import Record


@dataclass(frozen=True)
class DataRecord(Record):
    """Images on disk that were checked before the first training step.

    Attributes:
        stamp: digest of the names, sizes and times of all files.
        train, val: how many images of the splits.
        train_sha256, val_sha256: of the sha256s of the splits' image files, in order.
        in_both: image files of val that are in train too, byte for byte.
    """

    stamp: str
    train: int
    val: int
    train_sha256: str
    val_sha256: str
    in_both: tuple[str, ...] = ()

    FILE: ClassVar[str] = "data.json"
    COMMAND: ClassVar[str] = "loop"

    @property
    def warning(self) -> str | None:
        """Of validation images that are trained on; None where there are none."""
        if not self.in_both:
            return None
        return (
            f"{len(self.in_both)} of {self.val} validation images are in the training split too, as {self.in_both[0]}: "
            "a score on what was trained on says nothing; remove them from one split"
        )
