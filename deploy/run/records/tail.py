"""tail.json: where full networks end in their files, and what each way costs on the board."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.base import OMITTED, Record
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.quant.tails import Tail
from nas.settings import STRICT


@dataclass(frozen=True)
class MeasuredTail:
    """The teacher with one tail.

    Attributes:
        score: the metric on held-out training images, in percent.
        latency_us: median from the input's bytes to the class map; None where it failed on the board.
        class_map_us: the CPU's part of it after the inference; None where the file leaves it nothing to time.
        share: of the latency with the class map in the file, with its 95 % interval; None where one of them failed.
        failure: why it has no latency.
    """

    tail: Tail
    score: float
    latency_us: float | None = None
    class_map_us: float | None = field(default=None, metadata=OMITTED)
    share: Estimate | None = field(default=None, metadata=OMITTED)
    failure: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class TailRecord(Record):
    """What `[deploy] tail = "auto"` chose; nothing was measured where a task has no class map.

    Attributes:
        metric: its name.
        tolerance: by how many points of it a tail may be below the class map's.
    """

    chosen: Tail
    metric: str
    tolerance: float
    tails: tuple[MeasuredTail, ...] = ()

    FILE: ClassVar[str] = "tail.json"
    COMMAND: ClassVar[str] = "loop"

    def __post_init__(self) -> None:
        if self.tails and self.chosen not in {one.tail for one in self.tails if one.latency_us is not None}:
            raise ConfigError(f"the chosen tail '{self.chosen}' was not measured")

    def of(self, tail: Tail) -> MeasuredTail | None:
        return next((one for one in self.tails if one.tail == tail), None)
