"""Turns an answer into a measurement: is it about the right model, are its outputs right, was it delegated?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hil.answer import Answer, ProgramRuns, TimedRuns
from hil.benchmark_model import runs_of
from hil.boards.config import BoardConfig
from hil.errors import BoardError, ModelError
from hil.job import Job, RoundTask
from hil.measurement import Conditions, Failure, Measurement, Parity
from hil.spread import KernelSpread
from hil.trust import Timer, flags


def evaluate(
    answer: Answer, task: RoundTask, conditions: Conditions, config: BoardConfig, started_at: str
) -> Measurement:
    """The record of an answer to a timed task; `conditions` are the session's.

    Raises BoardError for an answer that is not about this model under these conditions, or does not compare the
    outputs that were to be compared.
    """
    conditions = task.job.under(conditions)
    who = f"board {config.name}: the answer to {task.job.name}"
    if answer.model_sha256 not in (None, task.model_sha256) or answer.conditions != conditions.key():
        raise BoardError(
            f"{who} is about another model or other conditions: "
            "the file there or the answer was changed; clean the board's workdir and measure again"
        )
    runs, reason = _timed_runs(answer, config, who)
    if answer.failure is not None:
        reason = answer.failure.reason
    if reason is None:
        _check_asked(runs, task.job, config, who)
    spread = _spread(runs.parity, task.job, config)
    reason = reason or _refusal(runs, task.job, config, spread)
    return Measurement(
        job_id=task.job_id,
        model=task.job.name,
        model_sha256=task.model_sha256,
        round=task.round,
        status="ok" if reason is None else "failed",
        load_us=runs.load_us,
        first_us=runs.first_us,
        latencies_us=runs.latencies_us if reason is None else (),
        conditions=conditions,
        parity=runs.parity,
        operators=runs.operators,
        delegated_nodes=runs.delegated_nodes,
        failure=None if reason is None else Failure("model", reason),
        started_at=answer.taken_at or started_at,
        warmup_us=runs.warmup_us,
        warmup_runs=runs.warmup_runs,
        cache=runs.cache,
        before=runs.before,
        after=runs.after,
        others_busy=runs.others_busy,
        cpu_operators=runs.cpu_operators,
        flags=_flags(runs, conditions, config, spread) if reason is None else (),
        attempt=task.attempt,
        cores=runs.cores,
        calls=runs.calls,
        clock_ns=runs.clock_ns,
        path=str(task.job.model.absolute()),
        class_map_us=runs.class_map_us,
    )


def _check_asked(runs: TimedRuns, job: Job, config: BoardConfig, who: str) -> None:
    """BoardError for an answer that compares nothing where it had to, or times something else than was asked for."""
    if job.expected is not None and runs.parity is None and config.driver != "benchmark_model":
        raise BoardError(
            f"{who} compares no outputs, though it was given expected ones: "
            "it was changed; clean the board's workdir and measure again"
        )
    if (job.class_map is None) != (runs.class_map_us is None):
        raise BoardError(
            f"{who} is of {'the inference alone' if runs.class_map_us is None else 'more than the inference'}, which "
            "was not asked for: it was changed; clean the board's workdir and measure again"
        )


def failed(task: RoundTask, conditions: Conditions, reason: str, started_at: str) -> Measurement:
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
        conditions=task.job.under(conditions),
        parity=None,
        operators=(),
        delegated_nodes=0,
        failure=Failure("model", reason),
        started_at=started_at,
        attempt=task.attempt,
        path=str(task.job.model.absolute()),
    )


def _timed_runs(answer: Answer, config: BoardConfig, who: str) -> tuple[TimedRuns, str | None]:
    """(runs, why benchmark_model gave up on the model or None); the runs of a failure are empty."""
    match answer.outcome:
        case None:
            return TimedRuns(), None
        case TimedRuns() as runs:
            return runs, None
        case ProgramRuns() as printed if config.driver == "benchmark_model":
            try:
                runs, reason = runs_of(printed.texts, external=bool(config.delegate)), None
            except ModelError as error:
                runs, reason = TimedRuns(), str(error)
            except BoardError as error:
                raise BoardError(f"board {config.name}: {error}") from error
            runs = replace(
                runs,
                cache=printed.cache,
                before=printed.before,
                after=printed.after,
                others_busy=printed.others_busy,
                cores=printed.cores,
            )
            return runs, reason
        case other:
            raise BoardError(
                f"{who} holds {type(other).__name__}, no runs of driver {config.driver!r}: "
                "it was changed; clean the board's workdir and measure again"
            )


def _flags(
    runs: TimedRuns, conditions: Conditions, config: BoardConfig, spread: KernelSpread | None
) -> tuple[str, ...]:
    return flags(
        runs.latencies_us,
        steady=runs.steady,
        before=runs.before,
        after=runs.after,
        others_busy=runs.others_busy,
        checked=runs.parity is not None,
        as_kernels_differ=runs.parity is not None and not _within_tolerance(runs.parity, config, spread),
        averaged=runs.averaged,
        oversubscribed=runs.cores is not None and conditions.threads > runs.cores,
        timer=Timer(runs.calls, runs.clock_ns),
    )


def _spread(parity: Parity | None, job: Job, config: BoardConfig) -> KernelSpread | None:
    """Of a full network of which more elements differ than the board's tolerance has; None on a board without one."""
    exact = not (config.parity_max_abs_diff or config.parity_max_mismatch)
    if parity is None or job.spread is None or exact or _few(parity, config):
        return None
    return job.spread()


def _few(parity: Parity, config: BoardConfig) -> bool:
    return parity.mismatched <= config.parity_max_mismatch * parity.elements


def _within_tolerance(parity: Parity, config: BoardConfig, spread: KernelSpread | None) -> bool:
    """Of a class map the share alone counts: a distance between classes means nothing."""
    close = parity.max_abs_diff <= config.parity_max_abs_diff
    return _few(parity, config) or (close and not (spread and spread.of_classes))


def _refusal(runs: TimedRuns, job: Job, config: BoardConfig, spread: KernelSpread | None) -> str | None:
    """Why a model that ran still does not count; None when it does."""
    if config.delegate and not runs.delegated_nodes and not config.allow_fallback:
        said = f" (its output: {runs.delegate_said})" if runs.delegate_said else ""
        return (
            f"{Path(config.delegate).name} took no part of the model, it ran on the CPU{said}: "
            "see the operators, or set allow_fallback"
        )
    parity = runs.parity
    if parity is None or _within_tolerance(parity, config, spread) or (spread and spread.allows(parity)):
        return None
    near = "" if spread and spread.of_classes else f"by {config.parity_max_abs_diff:g}, or "
    as_kernels_differ = f", or {spread}" if spread else ""
    hint = job.hint(config) if job.hint else ""
    return (
        f"outputs differ from the expected ones: {parity.mismatched} of {parity.elements} elements, "
        f"by {parity.max_abs_diff:g} at most; allowed: {near}{config.parity_max_mismatch:g} of the elements"
        f"{as_kernels_differ}{'; ' if hint else ''}{hint}"
    )
