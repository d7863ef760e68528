"""`hilnas regress`: are a run's models slower than the baseline of this kind of board?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.model_files import add_input_shapes, check_golden_pair, measurable
from deploy.cli.options import Commands, add_board, add_json, add_protocol, bind
from hil.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.regression.baselines import Baseline
    from deploy.regression.regress import Outcome

STATES = {"ok": "ok", "regressed": "SLOWER", "failed": "FAILS", "incomparable": "?"}


@dataclass(frozen=True, kw_only=True)
class RegressOptions:
    """See the help of each option; `threshold`: a share of the baseline's latency; `report`, `junit`: to write."""

    run: Path
    suite: Path | None
    baselines: Path
    threshold: float
    update: bool
    store: str | None
    json: bool
    board: str
    boards: Path | None = None
    warmup_runs: int
    runs: int
    rounds: int
    input_shapes: tuple[str, ...] = ()
    report: Path | None = None
    junit: Path | None = None

    @property
    def store_path(self) -> str | Path:
        """As given; otherwise regress.sqlite in the run, or in runs/ for a suite."""
        return self.store or (Path("runs") if self.suite else self.run) / "regress.sqlite"


def add(commands: Commands) -> None:
    regress = commands.add_parser(
        "regress",
        help="are models slower than the baseline of this kind of board?",
        description="Each model of today and its baseline take turns on the board; the very same file is compared with "
        "the stored samples. A model that looks slower is measured once more and fails only if both agree.",
        epilog="exit codes: 0 well, 1 a model is slower, 2 usage, 3 board, 4 a model fails, 5 no baseline, or one "
        "taken under other conditions",
    )
    models = regress.add_mutually_exclusive_group()
    models.add_argument(
        "--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="whose models (default %(default)s)"
    )
    models.add_argument("--suite", type=Path, metavar="DIR", help="the models of a folder (NAME.tflite, golden pair)")
    regress.add_argument(
        "--baselines",
        type=Path,
        default=Path("baselines"),
        metavar="DIR",
        help="one folder per kind of board (default %(default)s)",
    )
    regress.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="slower by more than this share of the baseline fails (default %(default)s)",
    )
    regress.add_argument("--update", action="store_true", help="make today's models and latencies the baseline")
    regress.add_argument("--store", metavar="FILE|URL", help="default regress.sqlite in the run, or in runs/")
    regress.add_argument(
        "--report", type=Path, metavar="FILE", help="write the comparison: .md for a pull request's comment, or .html"
    )
    regress.add_argument("--junit", type=Path, metavar="FILE.xml", help="write it as JUnit XML, for CI")
    add_input_shapes(regress)
    add_json(regress)
    add_board(regress)
    add_protocol(regress, runs=20, rounds=10)
    bind(regress, RegressOptions, run)


def run(options: RegressOptions) -> int:
    """`CheckFailed` if a model became slower; `ModelError`, `Incomparable` as `deploy.regression.regress.conclude`.

    What is wrong with files is refused before the board is used.
    """
    from deploy.cli.results import open_store
    from deploy.formats import verdicts
    from deploy.regression import regress
    from deploy.regression.baselines import load_suite, suite_folder
    from deploy.regression.report import report_of
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board
    from hil.job import MeasureProtocol
    from hil.measure import now
    from hil.sessions import open_session

    if options.update and (options.report or options.junit):
        raise UsageError("--update compares nothing: leave out --report and --junit")
    verdicts.check_paths(options.report, options.junit)
    config = find_board(options.boards, options.board)
    suite = suite_folder(options.baselines, config)
    heads = regress.heads_of_folder(options.suite) if options.suite else regress.heads_of_run(options.run)
    shapes = measurable([head.model for head in heads.values()], options.input_shapes, [config])
    heads = {n: replace(head, input_shapes=sizes) for (n, head), sizes in zip(heads.items(), shapes, strict=True)}
    check_golden_pair(path for head in heads.values() for path in (head.input, head.expected))
    if not options.update:
        _check_baselines(load_suite(suite))
    protocol = MeasureProtocol(warmup_runs=options.warmup_runs, runs=options.runs, rounds=options.rounds)
    protocol = replace(protocol, series=f"regress {now()}")
    outcomes: list[Outcome] = []
    with open_board(config) as board, open_session(board) as session, open_store(options.store_path) as store:
        bench = regress.Bench(session, store, protocol)
        if options.update:
            console.say(f"{suite}: baseline of {', '.join(regress.update(bench, heads, suite))}")
            return 0
        for outcome in regress.regress(bench, heads, suite, options.threshold):
            outcomes.append(outcome)
            if not options.json:
                _show(outcome)
        conditions = session.conditions
    verdicts.write(report_of(config.name, conditions, outcomes), options.report, options.junit)
    if options.json:
        models = [outcome.to_json() for outcome in outcomes]
        console.say_json({"board": config.name, "conditions": conditions.to_json(), "models": models})
    if regress.conclude(outcomes):
        slower = [outcome.model for outcome in outcomes if outcome.regressed]
        raise CheckFailed(
            f"{len(slower)} of {len(outcomes)} models became slower ({', '.join(slower)}): find the change, "
            f"or accept the latencies of today with --update"
        )
    return 0


def _check_baselines(suite: Mapping[str, Baseline]) -> None:
    """Raises as `measurable` for models that are kept beside their samples."""
    from deploy.formats.tflite.input_shapes import options_for
    from deploy.formats.tflite.read import read

    for base in suite.values():
        kept = base.artifact
        if not kept.exists:
            continue
        if options_for(read(kept.model)) and not base.record.conditions.input_shapes:
            raise UsageError(f"{kept.model}: its file leaves input sizes open, and it was measured at 1; --update")
        check_golden_pair((kept.input, kept.expected))


def _show(outcome: Outcome) -> None:
    from deploy.regression.report import outcome_text

    console.say(f"{STATES[outcome.status]:7} {outcome_text(outcome)}")
