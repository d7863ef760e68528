"""state.json: which stages of a run are done, under which keys and settings, and what they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from deploy.run.records.base import VERSION, Record
from nas.settings import STRICT


@dataclass(frozen=True)
class StageState:
    """A stage that was begun.

    Attributes:
        seconds, cpu_seconds: spent under this key, over all interruptions; the CPU's over all threads.
        version: the stage's (`deploy.run.keys.STAGE_VERSIONS`); 0 for work that has none.
        settings: what it was made with, by name, defaults too.
    """

    key: str
    done: bool
    seconds: float
    cpu_seconds: float
    version: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class RunState(Record):
    """The stages by name, in the order in which they were begun first."""

    stages: Mapping[str, StageState] = field(default_factory=dict)

    FILE: ClassVar[str] = "state.json"
    COMMAND: ClassVar[str] = "loop"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], where: str) -> RunState:
        """As every record; that of a hilnas whose stages had other keys is empty: none of them is done."""
        if raw and VERSION not in raw and all(isinstance(stage, dict) and "key" in stage for stage in raw.values()):
            return cls()
        return super().from_json(raw, where)
