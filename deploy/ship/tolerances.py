"""How far a board's outputs may be from the golden ones: measured on every golden image, not on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploy.compile.kernel_spread import each_kernel_spread
from deploy.ship.manifest import GoldenPair
from deploy.ship.task_output import TaskOutput


def with_tolerance(
    model: Path, bundle: Path, golden: Sequence[GoldenPair], output: TaskOutput
) -> tuple[TaskOutput, tuple[GoldenPair, ...]]:
    """The task's tolerance, or what two kernel sets differ by on the golden images where that is more, and the pairs.

    One tolerance holds for all of them: what a third kernel set differs by on an image need not be what these two do
    there. Each pair keeps what they differ by on it. A file that this runtime cannot run has the task's.
    """
    measured = each_kernel_spread(model, tuple(bundle / pair.input for pair in golden))
    for spread in measured:
        output = output.within(spread)
    allowed = [replace(pair, max_mismatch=output.max_mismatch, max_abs_diff=output.max_abs_diff) for pair in golden]
    if not measured:
        return output, tuple(allowed)
    return output, tuple(replace(pair, kernel_spread=spread) for pair, spread in zip(allowed, measured, strict=True))


def spread_text(golden: Sequence[GoldenPair]) -> str:
    """What the two kernel sets differ by at most, in a sentence; "" where that is not known."""
    measured = [pair.kernel_spread for pair in golden if pair.kernel_spread]
    if not measured:
        return ""
    by = [spread.max_abs_diff for spread in measured if spread.max_abs_diff is not None]
    most = (
        f"by at most {max(by):g} steps"
        if by
        else f"on at most {max(spread.share for spread in measured):.2%} of the pixels"
    )
    return f"Over these {len(measured)} inputs XNNPACK and the reference kernels differ {most}.\n"
