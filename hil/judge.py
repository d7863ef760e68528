"""What an answer of the board is worth: the right model, the right output, delegated as asked, or a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hil.answer import TEXTS, require_well_formed
from hil.benchmark_model import answer_of
from hil.boards.config import BoardConfig
from hil.errors import BoardError, ModelError
from hil.job import Task
from hil.measurement import Conditions, Failure, Measurement, Parity, Readings
from hil.trust import flags


def judge(
    answer: dict[str, Any], task: Task, conditions: Conditions, config: BoardConfig, started_at: str
) -> Measurement:
    """The record of an answer.

    Raises BoardError for one that is malformed, not about this model under these conditions, or says nothing of
    the outputs that were to be compared.
    """
    who = f"board {config.name}: the answer to {task.job.name}"
    by_program = config.driver == "benchmark_model"
    if by_program and "texts" in answer:
        require_well_formed(answer, who, TEXTS)
        answer = _told(answer, config)
    require_well_formed(answer, who)
    failure = answer.get("failure")
    about = (answer.get("model_sha256", task.model_sha256), answer.get("conditions"))
    if about != (task.model_sha256, conditions.key()) or (failure is None and "model_sha256" not in answer):
        raise BoardError(
            f"{who} is about another model or other conditions: "
            "the file there or the answer was changed; clean the board's workdir and measure again"
        )
    if failure is None and task.job.expected is not None and not answer.get("parity") and not by_program:
        raise BoardError(
            f"{who} compares no outputs, though it was given expected ones: "
            "it was changed; clean the board's workdir and measure again"
        )
    raw_parity = answer.get("parity")
    parity = Parity.from_json(raw_parity) if raw_parity else None
    reason = failure["reason"] if failure is not None else _refusal(answer, parity, config)
    latencies_us = tuple(answer["latencies_us"]) if reason is None else ()
    before, after = (_readings(answer.get(name)) for name in ("before", "after"))
    return Measurement(
        job_id=task.job_id,
        model=task.job.name,
        model_sha256=task.model_sha256,
        round=task.round,
        status="ok" if reason is None else "failed",
        load_us=answer.get("load_us", 0),
        first_us=answer.get("first_us", 0),
        latencies_us=latencies_us,
        conditions=conditions,
        parity=parity,
        operators=tuple(answer.get("operators", ())),
        delegated_nodes=answer.get("delegated_nodes", 0),
        failure=None if reason is None else Failure("model", reason),
        started_at=started_at,
        warmup_us=answer.get("warmup_us", 0),
        warmup_runs=answer.get("warmup_runs", 0),
        cache=answer.get("cache", "none"),
        before=before,
        after=after,
        others_busy=answer.get("others_busy", 0.0),
        cpu_operators=tuple(answer.get("cpu_operators", ())),
        flags=_flags(answer, latencies_us, before, after) if reason is None else (),
        attempt=task.attempt,
    )


def failed(task: Task, conditions: Conditions, reason: str, started_at: str) -> Measurement:
    """The record of a model that is to blame without an answer of its own."""
    return Measurement(
        job_id=task.job_id,
        model=task.job.name,
        model_sha256=task.model_sha256,
        round=task.round,
        status="failed",
        load_us=0,
        first_us=0,
        latencies_us=(),
        conditions=conditions,
        parity=None,
        operators=(),
        delegated_nodes=0,
        failure=Failure("model", reason),
        started_at=started_at,
        attempt=task.attempt,
    )


def _told(answer: dict[str, Any], config: BoardConfig) -> dict[str, Any]:
    """benchmark_model's texts as the fields that the Python driver answers with."""
    rest = {name: value for name, value in answer.items() if name != "texts"}
    try:
        return {**rest, **answer_of(answer["texts"], external=bool(config.delegate))}
    except ModelError as error:
        return {**rest, "failure": {"kind": "model", "reason": str(error)}}
    except BoardError as error:
        raise BoardError(f"board {config.name}: {error}") from error


def _readings(raw: dict[str, Any] | None) -> Readings:
    return Readings.from_json(raw) if raw else Readings()


def _flags(answer: dict[str, Any], latencies_us: tuple[int, ...], before: Readings, after: Readings) -> tuple[str, ...]:
    return flags(
        latencies_us,
        steady=bool(answer.get("steady", True)),
        before=before,
        after=after,
        others_busy=answer.get("others_busy", 0.0),
        checked=bool(answer.get("parity")),
        averaged=bool(answer.get("averaged")),
    )


def _refusal(answer: dict[str, Any], parity: Parity | None, config: BoardConfig) -> str | None:
    """Why a model that ran still does not count; None when it does."""
    if config.delegate and not answer["delegated_nodes"] and not config.allow_fallback:
        said = f" (it said: {answer['delegate_said']})" if answer.get("delegate_said") else ""
        return (
            f"{Path(config.delegate).name} took no part of the model, it ran on the CPU{said}: "
            "see the operators, or set allow_fallback"
        )
    if parity is None:
        return None
    close = parity.max_abs_diff <= config.parity_max_abs_diff
    few = parity.mismatched <= config.parity_max_mismatch * parity.elements
    if close or few:
        return None
    return (
        f"outputs differ from the expected ones: {parity.mismatched} of {parity.elements} elements, "
        f"by {parity.max_abs_diff:g} at most; allowed: by {config.parity_max_abs_diff:g}, "
        f"or {config.parity_max_mismatch:g} of the elements"
    )
