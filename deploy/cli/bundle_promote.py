"""`hilnas bundle promote`: may a bundle take the place of the one in use?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import console
from deploy.cli.options import Commands, add_board, add_json, add_protocol, add_targets, bind

RUNS, ROUNDS = 20, 10  # as `hilnas regress` has them


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """See the help of each option.

    Attributes:
        bundle, against: folders or packed ones: the candidate, and what it would replace.
        images: how many; None: all.
        threshold: a share of latency and size; `points`: of the metric.
        report, junit: to write.
    """

    bundle: Path
    against: Path
    data: str
    split: str = "val"
    images: int | None = None
    seed: int = 0
    threshold: float = 0.05
    points: float = 0.0
    report: Path | None = None
    junit: Path | None = None
    targets: Path
    out: Path
    json: bool = False
    board: str
    boards: Path | None = None
    warmup_runs: int
    runs: int
    rounds: int


def add(actions: Commands) -> None:
    promote = actions.add_parser(
        "promote",
        help="may a bundle replace another one? metric, latency, size, placement, budgets in one verdict",
        description="Evaluates both on a board and measures them in turns. The metric is worse if its paired interval "
        "lies below what may be lost, latency if two comparisons agree, the rest exactly.",
        epilog="exit codes: 0 well, 1 something is worse, 2 usage, 3 board, 4 a model fails, 5 something does not "
        "compare",
    )
    promote.add_argument("bundle", type=Path, metavar="DIR|FILE", help="the candidate: a folder, or what `pack` wrote")
    promote.add_argument("--against", type=Path, required=True, metavar="DIR|FILE", help="the one in use")
    promote.add_argument(
        "--data", required=True, metavar="SPEC", help="images: scenes, camvid:FOLDER, cityscapes:FOLDER, folders:FOLDER"
    )
    promote.add_argument("--split", default="val", metavar="NAME", help="train, val or test (default %(default)s)")
    promote.add_argument("--images", type=int, metavar="N", help="so many, evenly spaced (default: all)")
    promote.add_argument("--seed", type=int, default=0, metavar="N", help="of generated images (default %(default)s)")
    promote.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="slower or larger by more than this share fails (default %(default)s)",
    )
    promote.add_argument(
        "--points",
        type=float,
        default=0.0,
        metavar="N",
        help="of the metric that may be lost (default %(default)s)",
    )
    promote.add_argument(
        "--report", type=Path, metavar="FILE", help="write the verdict: .md for a pull request's comment, or .html"
    )
    promote.add_argument("--junit", type=Path, metavar="FILE.xml", help="write it as JUnit XML, for CI")
    promote.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("HILNAS_RUNS", "runs")) / "promotions",
        metavar="DIR",
        help="the folder of evaluations and measurements (default %(default)s)",
    )
    add_json(promote)
    add_targets(promote)
    add_board(promote)
    add_protocol(promote, runs=RUNS, rounds=ROUNDS)
    bind(promote, PromoteOptions, run)


def run(options: PromoteOptions) -> int:
    """Errors as of `deploy.ship.promotion.promote` and `conclude`; what is wrong with files comes before the board."""
    from deploy.formats import verdicts
    from deploy.ship.archive import unpacked
    from deploy.ship.evaluated_models import ImagesAsked
    from deploy.ship.promotion import Allowed, PromotionTrial, ShippedModel, conclude, promote
    from deploy.targets.placement import load_target
    from hil.boards.catalog import find_board
    from hil.job import MeasureProtocol
    from hil.measurement import now

    verdicts.check_paths(options.report, options.junit)
    config = find_board(options.boards, options.board)
    options.out.mkdir(parents=True, exist_ok=True)
    trial = PromotionTrial(
        config,
        load_target(options.targets, config.target) if config.target else None,
        ImagesAsked(options.data, options.split, options.seed, options.images),
        MeasureProtocol(
            warmup_runs=options.warmup_runs, runs=options.runs, rounds=options.rounds, series=f"promote {now()}"
        ),
        Allowed(options.threshold, options.points),
        options.out,
    )
    with unpacked(options.bundle) as ours, unpacked(options.against) as theirs:
        candidate, baseline = ShippedModel.of(ours, options.bundle), ShippedModel.of(theirs, options.against)
        promotion = console.followed(promote(candidate, baseline, trial))
    report = promotion.report()
    verdicts.write(report, options.report, options.junit)
    if options.json:
        checks = [
            {"check": check.name, "status": check.status, "detail": check.text, "cells": list(check.cells[2:])}
            for check in promotion.checks
        ]
        console.say_json({"title": report.title, "conditions": promotion.conditions.to_json(), "checks": checks})
    else:
        console.say(report.title)
        console.table(report.head, [check.cells for check in promotion.checks], left=("",))
    conclude(promotion)
    return 0
