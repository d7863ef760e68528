"""Draws what a store may hold."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from hil.measurement import Failure, Measurement
from tests.hil.stored_measurements import CONDITIONS, ONE, OTHER


@st.composite
def stores(draw: st.DrawFn) -> list[Measurement]:
    """Few models, conditions, rounds and attempts, so that they meet."""
    kept: dict[tuple[str, int], Measurement] = {}
    for _ in range(draw(st.integers(1, 25))):
        model, board, number, attempt = (draw(st.integers(0, 2)) for _ in range(4))
        job_id = f"{model} {board} {number}"
        latencies = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
        reason = None if latencies else Failure("model", f"{job_id} {attempt}")
        conditions = replace(OTHER if board else CONDITIONS, temperature_c=float(number))
        kept[job_id, attempt] = replace(
            ONE, job_id=job_id, attempt=attempt, model=f"m{model}", model_sha256=str(model) * 64, round=number,
            status="failed" if reason else "ok", failure=reason, latencies_us=latencies, conditions=conditions,
        )  # fmt: skip
    return draw(st.permutations(list(kept.values())))
