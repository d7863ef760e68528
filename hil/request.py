"""What the host writes to the runner on a board (board_scripts/runner.py), one JSON object per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hil.input_shape import InputShape

Pass = Literal["time", "memory", "layers", "outputs"]


@dataclass(frozen=True)
class Request:
    """One job. Paths are the board's.

    Attributes:
        id: the answer carries the same; letters, digits, "_", "." and "-".
        name: the model's name in messages of the host; it is not sent.
        conditions: the conditions' key; the answer repeats it.
        warmup_runs_most: the warm-up ends here even if it is not steady; None: after `warmup_runs`.
        graph_cache: name of the folder for the NPU's compiled graph; None: no cache.
        max_temperature_c: the runs begin only below it; None: at any temperature.
        cool_down_s: how long cooling down may take.
        input_shapes: the sizes of all inputs in the model's order; empty: those of its file.
        class_map: of `Job`.
        measured: what the pass measures; each pass has its own answer (hil/answer.py). For "outputs" the file `input`
            holds `runs` inputs, one after the other.
    """

    id: str
    name: str
    model: str
    warmup_runs: int
    runs: int
    threads: int
    kernels: str
    compile_deadline_s: float
    run_deadline_s: float
    warmup_runs_most: int | None = None
    attempt: int = 0
    round: int = 0
    conditions: str | None = None
    graph_cache: str | None = None
    input: str | None = None
    expected: str | None = None
    delegate: str | None = None
    delegate_options: Mapping[str, str] = field(default_factory=dict)
    max_temperature_c: float | None = None
    cool_down_s: float | None = None
    input_shapes: Sequence[InputShape] = ()
    class_map: Sequence[tuple[int, int]] | None = None
    measured: Pass = "time"

    def to_json(self) -> dict[str, Any]:
        """What is None is left out."""
        raw: dict[str, Any] = {
            "id": self.id,
            "attempt": self.attempt,
            "round": self.round,
            "conditions": self.conditions,
            "model": self.model,
            "threads": self.threads,
            "kernels": self.kernels,
            "warmup_runs": self.warmup_runs,
            "warmup_runs_most": self.warmup_runs_most,
            "runs": self.runs,
            "compile_deadline_s": self.compile_deadline_s,
            "run_deadline_s": self.run_deadline_s,
            "graph_cache": self.graph_cache,
            "input": self.input,
            "expected": self.expected,
            "delegate": self.delegate,
            "delegate_options": dict(self.delegate_options) if self.delegate is not None else None,
            "max_temperature_c": self.max_temperature_c,
            "cool_down_s": self.cool_down_s,
            "input_shapes": [[entry.name, list(entry.shape)] for entry in self.input_shapes] or None,
            "class_map": None if self.class_map is None else [list(size) for size in self.class_map],
            "pass": None if self.measured == "time" else self.measured,
        }
        return {name: value for name, value in raw.items() if value is not None}


@dataclass(frozen=True)
class Acknowledgement:
    """The answers to these jobs are stored here: the board may delete them."""

    job_ids: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return {"ack": list(self.job_ids)}
