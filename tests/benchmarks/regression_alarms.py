"""How often `hilnas regress` cries without a reason, and how often it finds a slowdown that is there.

    python -m tests.benchmarks.regression_alarms --comparisons 200 --json docs/results/regression-alarms.json

A/A: two files of the same 400 convolutions that differ in their description only. Planted: 420 of them against 400.
Each comparison is the command's own: base and head take turns, and what looks slower is measured once more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.regression.baselines import save
from deploy.regression.regress import Bench, Outcome, regress
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.measure import MeasureProtocol, measure
from hil.regression import compare
from hil.session import Session
from hil.store import Store
from tests.chain_model import SHAPE, conv_chain

LENGTH, SLOWER_LENGTH = 400, 420
THRESHOLD = 0.02
ROUNDS, RUNS = 10, 20
QUICK = MeasureProtocol(warmup_runs=3, warmup_runs_most=20, runs=RUNS, rounds=ROUNDS)


@dataclass(frozen=True)
class Experiment:
    """All comparisons of one kind; `seconds` of them all."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def ratios(self) -> list[float]:
        return [o.first.ratio for o in self.outcomes if o.first is not None]

    @property
    def suspected(self) -> int:
        return sum(o.first is not None and o.first.slower for o in self.outcomes)

    @property
    def cried(self) -> int:
        return sum(o.regressed for o in self.outcomes)

    def to_json(self) -> dict[str, object]:
        n = len(self.outcomes)
        return {
            "comparisons": n,
            "suspected_by_the_first_measuring": self.suspected,
            "confirmed": self.cried,
            "rate": self.cried / n,
            "rate_at_most_95": upper_limit(self.cried, n),
            "rounds_of_the_first_measuring_mean": round(
                statistics.mean(o.first.rounds for o in self.outcomes if o.first is not None), 1
            ),
            "ratio_median": round(statistics.median(self.ratios), 4),
            "ratio_5_and_95_percent": [round(v, 4) for v in percentiles(self.ratios)],
            "seconds": round(self.seconds, 1),
        }


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]


def upper_limit(found: int, n: int) -> float:
    """One-sided 95 % limit of a share (Clopper and Pearson)."""
    from scipy.stats import beta

    return 1.0 if found == n else round(float(beta.ppf(0.95, found + 1, n - found)), 4)


def run_experiment(
    session: Session, store: Store, length: int, comparisons: int, threshold: float = THRESHOLD
) -> Experiment:
    """Base of `LENGTH` convolutions against a head of `length`, `comparisons` times, nothing old answering."""
    with tempfile.TemporaryDirectory(prefix="hilnas-alarms-") as folder:
        base, head = (make_model(Path(folder) / name, many) for name, many in (("base", LENGTH), ("head", length)))
        suite = base.model.parent
        save(suite, base, list(measure(session, [base.job()], QUICK, store)))
        outcomes: list[Outcome] = []
        begin = time.perf_counter()
        for number in range(comparisons):
            bench = Bench(session, store, replace(QUICK, series=f"{length} {number}"))
            outcomes += regress(bench, {"chain": head}, suite, threshold)
        return Experiment(tuple(outcomes), time.perf_counter() - begin)


def make_model(folder: Path, length: int) -> Artifact:
    """A chain with its golden pair: zeros in, and without a bias zeros out."""
    folder.mkdir()
    artifact = Artifact.at(folder, "chain")
    conv_chain(artifact.model, length, description=folder.name)
    for path in (artifact.input, artifact.expected):
        path.write_bytes(bytes(math.prod(SHAPE)))
    return artifact


def other_thresholds(experiment: Experiment) -> dict[str, int]:
    """How many of the first measurings alone would have cried at other thresholds: their intervals' lower ends."""
    lows = [o.first.ci95[0] for o in experiment.outcomes if o.first is not None]
    return {f"{share:g}": sum(low > 1 + share for low in lows) for share in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)}


def stored_alarms(store: Store, threshold: float) -> dict[str, int]:
    """The same samples once more, each head held against the base of half the experiment away, as if stored then."""
    sides: dict[str, list[list[tuple[int, ...]]]] = {"chain": [], "chain (base)": []}
    for m in store.all():
        if m.round == 0:
            sides[m.model].append([])
        if m.round < ROUNDS:
            sides[m.model][-1].append(m.latencies_us)
    bases, heads = sides["chain (base)"], sides["chain"][1:]  # the first is the suite's own
    away = len(bases) // 2
    pairs = zip(bases, heads[away:] + heads[:away], strict=True)
    suspected = sum(compare(base, head, threshold, interleaved=False).slower for base, head in pairs)
    return {"comparisons": len(bases), "suspected_by_the_first_measuring": suspected}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="false alarms and found slowdowns of `hilnas regress`")
    parser.add_argument("--comparisons", type=int, default=200, help="A/A ones")
    parser.add_argument("--planted", type=int, default=100, help="ones with a planted slowdown")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    board = BoardConfig("loopback", "loopback")
    with (
        tempfile.TemporaryDirectory(prefix="hilnas-alarms-") as folder,
        open_board(board) as opened,
        Session(opened) as session,
        Store(Path(folder) / "s.sqlite") as store,
    ):
        same = run_experiment(session, store, LENGTH, options.comparisons, options.threshold)
        stored = stored_alarms(store, options.threshold)
        slower = run_experiment(session, store, SLOWER_LENGTH, options.planted, options.threshold)
        conditions = session.conditions
        others = statistics.median(m.others_busy for m in store.all())
    result = {
        "board": f"{conditions.kind}, {conditions.soc}, {os.cpu_count()} cores",
        "runtime": conditions.runtime,
        "threshold": options.threshold,
        "rounds": ROUNDS,
        "runs": RUNS,
        "load_average_before": round(load[0], 2),
        "load_average_after": round(os.getloadavg()[0], 2),
        "others_busy_median": others,
        "same_work": {**same.to_json(), "first_alone_by_threshold": other_thresholds(same)},
        "same_work_against_stored_samples": stored,
        "planted": {
            "work": f"{SLOWER_LENGTH} convolutions against {LENGTH}",
            **slower.to_json(),
            "first_alone_by_threshold": other_thresholds(slower),
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    holds = same.cried <= math.floor(0.01 * options.comparisons) and slower.cried >= 0.95 * options.planted
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
