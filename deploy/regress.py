"""Latency against a baseline: today's samples of a run's models and the stored ones, compared as samples.

A model is slower if the bootstrap interval of the ratio of medians lies above the threshold and the
Mann-Whitney test agrees. Numbers under different conditions are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.compile import Artifact
from deploy.config import Measuring
from deploy.context import protocol
from deploy.latency import summaries
from deploy.run import SUMMARY, read_json, write_json
from hil.boards.inventory import BoardConfig, open_board
from hil.errors import Incomparable, UsageError
from hil.measure import measure
from hil.measurement import Conditions, Measurement
from hil.session import Session
from hil.stats import bootstrap_ci
from hil.store import Store

FORMAT = "hilnas-baseline/1"
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Verdict:
    """One model: medians in microseconds, ratio head / base with its 95 % interval."""

    model: str
    base_us: float
    head_us: float
    ratio: float
    ci95: tuple[float, float]
    p_value: float
    regressed: bool


def compare(model: str, base: Sequence[int], head: Sequence[int], threshold: float) -> Verdict:
    """Is `head` slower than `base` by more than `threshold` (a share)?"""
    from scipy.stats import mannwhitneyu

    b, h = np.asarray(base, float), np.asarray(head, float)
    rng = np.random.default_rng(0)

    def ratio(index: NDArray[np.int64]) -> float:
        return float(np.median(h[index]) / np.median(rng.choice(b, len(b))))

    low, high = bootstrap_ci(ratio, len(h), seed=1)
    p_value = float(mannwhitneyu(h, b, alternative="greater").pvalue)
    return Verdict(
        model,
        float(np.median(b)),
        float(np.median(h)),
        float(np.median(h) / np.median(b)),
        (low, high),
        p_value,
        low > 1 + threshold and p_value < SIGNIFICANT,
    )


def regress(
    run: Path, baselines: Path, board: BoardConfig, settings: Measuring, *, threshold: float, update: bool
) -> list[Verdict]:
    """Measure a finished run's models anew and compare with `baselines/BOARD.json`; `update` writes it instead.

    Raises `Incomparable` without a baseline or when its conditions differ from today's.
    """
    path = baselines / f"{board.name}.json"
    if not update and not path.exists():
        raise Incomparable(f"{path}: no baseline of board {board.name}; make one with `hilnas regress --update`")
    base: dict[str, Any] = {} if update else read_json(path, ("format", "conditions", "latencies_us"))
    summary: dict[str, Any] = read_json(run / "summary.json", SUMMARY)
    artifacts = [Artifact.at(run / "models", m["name"]) for m in (summary["teacher"], *summary["models"])]
    missing = [a.model for a in artifacts if not a.exists]
    if missing:
        raise UsageError(f"{missing[0]}: missing; run the loop again, it makes what is missing")
    measurements, conditions = _measure(run, artifacts, board, settings)
    summaries(measurements)  # raises if a model failed
    samples: dict[str, list[int]] = {}
    for m in measurements:
        samples.setdefault(m.model, []).extend(m.latencies_us)
    if update:
        write_json(path, {"format": FORMAT, "conditions": conditions.to_json(), "latencies_us": samples})
        return [compare(name, values, values, threshold) for name, values in samples.items()]
    return _compare_all(path, base, samples, conditions, threshold)


def _measure(
    run: Path, artifacts: Sequence[Artifact], board: BoardConfig, settings: Measuring
) -> tuple[list[Measurement], Conditions]:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    with open_board(board) as opened, Session(opened) as session:
        store = Store(run / f"regress-{stamp}.sqlite")  # a store of its own: nothing old may answer
        try:
            done = list(measure(session, [a.job() for a in artifacts], protocol(settings), store))
        finally:
            store.close()
        return done, session.conditions


def _compare_all(
    path: Path, base: dict[str, Any], samples: dict[str, list[int]], conditions: Conditions, threshold: float
) -> list[Verdict]:
    if base.get("format") != FORMAT:
        raise UsageError(f"{path}: no baseline of this version; make one with `hilnas regress --update`")
    before = Conditions.from_json(base["conditions"])
    if before.key() != conditions.key():
        differ = [k for k, v in before.to_json().items() if v != conditions.to_json()[k]]
        raise Incomparable(
            f"{path}: taken under other conditions ({', '.join(differ)}); "
            "measure there, or make a new baseline with --update"
        )
    common = [name for name in samples if name in base["latencies_us"]]
    if not common:
        raise Incomparable(f"{path}: holds none of {', '.join(samples)}; make a new baseline with --update")
    return [compare(name, base["latencies_us"][name], samples[name], threshold) for name in common]
