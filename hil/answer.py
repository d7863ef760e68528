"""The form of what a runner answers: a board, or somebody in between, may say anything at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from hil.errors import BoardError
from hil.measurement import Cache, FailureKind

LONGEST_US = 7 * 86400 * 10**6
"""No deadline is longer, so no time is."""

Check = Callable[[Any], bool]


def _whole(most: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= most


def _number(least: float, most: float) -> Check:
    # NaN is in no interval
    return lambda value: type(value) in (int, float) and least <= value <= most


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _record(**checks: Check) -> Check:
    """An object with exactly these fields."""
    return lambda value: (
        isinstance(value, Mapping)
        and set(value) == set(checks)
        and all(check(value[name]) for name, check in checks.items())
    )


def _list_of(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, (list, tuple)) and len(value) >= least and all(map(check, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


_time_us = _whole(LONGEST_US)
_readings = _optional(
    _record(
        temperature_c=_optional(_number(-300.0, 1000.0)),
        frequency_khz=_optional(_whole(10**9)),
    )
)

TIMES = ("model_sha256", "load_us", "first_us", "latencies_us", "delegated_nodes")
"""What the Python driver answers."""

TEXTS = ("model_sha256", "texts")
"""What benchmark_model's does."""

FIELDS: Mapping[str, Check] = {
    "model_sha256": _text,
    "conditions": _optional(_text),
    "texts": _list_of(_text, least=1),
    "load_us": _time_us,
    "first_us": _time_us,
    "latencies_us": _list_of(_time_us, least=1),
    "delegated_nodes": _whole(10**9),
    "warmup_us": _time_us,
    "warmup_runs": _whole(10**9),
    "steady": _truth,
    "averaged": _truth,
    "delegate_said": _text,
    "operators": _list_of(_text),
    "cpu_operators": _list_of(_text),
    "parity": _optional(
        _record(
            elements=_whole(10**12),
            mismatched=_whole(10**12),
            max_abs_diff=_number(0.0, sys.float_info.max),
        )
    ),
    "cache": lambda value: value in get_args(Cache),
    "before": _readings,
    "after": _readings,
    "others_busy": _number(0.0, 1.0),
}


def blamed(answer: Mapping[str, Any], who: str) -> str | None:
    """The kind of the answer's failure, None where it has none. Raises BoardError for a malformed one."""
    failure = answer.get("failure")
    if failure is None:
        return None
    if not isinstance(failure, Mapping) or not _text(failure.get("reason")):
        raise _malformed(answer, "failure", who)
    if failure.get("kind") not in get_args(FailureKind):
        raise _malformed(answer, "failure", who)
    return str(failure["kind"])


def require_well_formed(answer: Mapping[str, Any], who: str, wanted: Sequence[str] = TIMES) -> None:
    """Raises BoardError naming the first field that is missing or not what the runner's protocol says.

    `wanted`: what an answer without a failure has.
    """
    if blamed(answer, who) is None:
        for name in wanted:
            if name not in answer:
                raise _malformed(answer, name, who)
    for name, check in FIELDS.items():
        if name in answer and not check(answer[name]):
            raise _malformed(answer, name, who)
    parity = answer.get("parity")
    if parity is not None:
        elements, mismatched, largest = (parity[name] for name in ("elements", "mismatched", "max_abs_diff"))
        if not 0 < elements >= mismatched or (mismatched == 0) != (largest == 0):
            raise _malformed(answer, "parity", who)


def _malformed(answer: Mapping[str, Any], name: str, who: str) -> BoardError:
    said = f"is {str(answer[name])[:100]!r}" if name in answer else "is missing"
    return BoardError(
        f"{who} is malformed: {name} {said}: it was changed, or the runner is not ours; "
        "clean the board's workdir and measure again"
    )
