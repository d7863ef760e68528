"""A model's score against that of the teacher trained on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from deploy.run.records import BoardScore, ModelRecord
from hil.results import moment
from nas.estimate import Estimate

CONTROL = "the teacher trained on"


def difference_text(difference: Estimate, other: str = CONTROL) -> str:
    """The difference with its interval, and what these images show."""
    d = difference
    points = f"{d.value:+.2f} points [{d.low:+.2f}, {d.high:+.2f}]"
    return f"{points} against {other}, over {d.n} images: {shown_text(d)}"


def shown_text(difference: Estimate) -> str:
    """What its interval shows."""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "no difference shown"


def measured_text(models: Sequence[ModelRecord]) -> str:
    """When the models' latencies were measured, which a run that goes on takes from its store."""
    times = sorted(model.latency_us.measured_at or "" for model in models)
    if not times[0]:
        return "latencies: when they were measured is not recorded"
    first, last = (f"{moment(time).astimezone(UTC):%Y-%m-%d %H:%M}" for time in (times[0], times[-1]))
    return f"latencies: measured {first if first == last else f'{first} to {last}'} UTC"


def on_board_text(score: BoardScore, board: str) -> str:
    """What a board scored by its own answers, beside the integer simulation."""
    failed = f"; {len(score.failed)} images failed there" if score.failed else ""
    difference = difference_text(score.against_int8, "the integer simulation")
    return f"on {board} {score.score.value:.2f} %, {difference}{failed}"


def board_text(model: ModelRecord) -> str:
    """The metric from the board's own answers; '-' where it gives none."""
    return f"{model.board.score.value:.2f}" if model.board else "-"
