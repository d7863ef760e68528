"""What each command does; the shapes of the options are in cli.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy import console
from deploy.config import Measuring, Overrides, load_experiment
from deploy.context import Context, protocol
from deploy.run import Run, read_json
from hil.boards.inventory import find_board, load_boards, open_board, trust
from hil.errors import CheckFailed, ModelError, UsageError
from nas.errors import ConfigError

if TYPE_CHECKING:
    from deploy.inspection import Inspection

Arguments = argparse.Namespace


def _config_path(arguments: Arguments) -> Path:
    """The configuration: given, or the demo's for the kind of data."""
    if arguments.config:
        return Path(arguments.config)
    from nas.data import DATASETS

    kind = (arguments.data or "scenes").partition(":")[0]
    if kind not in DATASETS:
        raise ConfigError(f"--data {arguments.data}: unknown kind '{kind}'; there are {', '.join(DATASETS)}")
    return Path(f"configs/demo-{kind}.toml")


def _loop(arguments: Arguments, until: str) -> Path:
    """Run the loop; the run's folder."""
    from deploy.loop import STAGES, loop

    if until not in STAGES:
        raise UsageError(f"--until {until}: no such stage; there are {', '.join(STAGES)}")
    overrides = Overrides(arguments.data, arguments.encoder_from, arguments.board, arguments.name)
    experiment, space = load_experiment(_config_path(arguments), overrides)
    with Run(arguments.runs_dir / experiment.name) as run:
        context = Context(experiment, space, run, arguments.boards)
        with console.progress() as show:
            for done in loop(context, until):
                show(done)
        if until == "ship":
            from deploy.stages.ship import summarize_run

            summarize_run(context)
        return run.path


def loop_command(arguments: Arguments) -> int:
    until = getattr(arguments, "until", None) or "ship"
    folder = _loop(arguments, until)
    if until != "ship":
        console.say(f"stages up to {until} are done in {folder}")
        return 0
    return _show_summary(folder, arguments.json)


def _show_summary(folder: Path, as_json: bool) -> int:
    summary = read_json(folder / "summary.json")
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        console.summary(summary, folder)
    return 0 if summary["bundle"]["verified"] else 1


def stage_command(arguments: Arguments) -> int:
    folder = _loop(arguments, arguments.command)
    record = {"agree": "agreement.json", "search": "search.json"}.get(arguments.command)
    if arguments.json and record:
        print(json.dumps(read_json(folder / record), indent=1))
    elif arguments.command == "agree":
        console.agreement(read_json(folder / "agreement.json"))
    elif arguments.command == "search":
        console.found(read_json(folder / "search.json"))
    else:
        console.say(f"{arguments.command} is done in {folder}")
    return 0


def lut_command(arguments: Arguments) -> int:
    folder = _loop(arguments, "profile" if arguments.table == "latency" else "tables")
    from nas.table import Table

    path = folder / "tables" / f"{arguments.table}.parquet"
    console.table(Table.load(path), path)
    return 0


def compile_command(arguments: Arguments) -> int:
    from deploy.standalone import compile_subnets

    height, _, width = arguments.size.partition("x")
    if not (height.isdigit() and width.isdigit()) or min(int(height), int(width)) < 1:
        raise UsageError(f"--size {arguments.size}: write HxW, for example 96x128")
    size = (int(height), int(width))
    if arguments.all == bool(arguments.subnets):
        raise UsageError("compile: name subnets, or give --all for every one of the space")
    if arguments.all:
        return _compile_all(arguments, size)
    for path in compile_subnets(arguments.space, arguments.subnets, size, arguments.out):
        console.say(str(path))
    return 0


def _compile_all(arguments: Arguments, size: tuple[int, int]) -> int:
    from deploy.library import INDEX, write_all
    from deploy.run import Progress
    from nas.space import SearchSpace

    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs}: give at least 1")
    written = 0
    with console.progress() as show:
        for written, total in write_all(SearchSpace.load(arguments.space), size, arguments.out, arguments.jobs):
            show(Progress("compile", written, total))
    console.say(f"{written} subnets in {arguments.out}, listed in {arguments.out / INDEX}")
    return 0


def profile_command(arguments: Arguments) -> int:
    from deploy.tflite.read import read
    from hil.measure import Job, measure
    from hil.session import Session
    from hil.store import Store

    jobs = [Job(path, path.name) for path in arguments.models if read(path)]  # refuses what is no model
    settings = protocol(_measuring(arguments))
    arguments.store.parent.mkdir(parents=True, exist_ok=True)
    with open_board(find_board(arguments.boards, arguments.board)) as board, Session(board) as session:
        store = Store(arguments.store)
        try:
            done = list(measure(session, jobs, settings, store))
        finally:
            store.close()
    console.profile(done, arguments.json)
    failed = [m for m in done if m.failure is not None]
    if failed and failed[0].failure is not None:
        raise ModelError(f"{failed[0].model} failed on {arguments.board}: {failed[0].failure.reason}")
    return 0


def _inspect(path: Path) -> Inspection:
    from deploy.inspection import inspect_model
    from deploy.tflite.read import read

    try:
        return inspect_model(read(path))
    except ModelError as error:
        raise error if str(path) in str(error) else ModelError(f"{path}: {error}") from None


def inspect_command(arguments: Arguments) -> int:
    from deploy.placement import load_target, place, placement_record

    target = load_target(arguments.targets, arguments.target) if arguments.target else None
    model = _inspect(arguments.model)
    placements = place(model, target) if target else []
    if arguments.json:
        record = model.to_json()
        if target:
            record["placements"] = [placement_record(p) for p in placements]
        print(json.dumps(record, indent=1))
    else:
        console.inspection(str(arguments.model), model, placements)
    return 0


def lint_command(arguments: Arguments) -> int:
    from deploy.placement import lint, load_target

    target = load_target(arguments.targets, arguments.target)
    found = lint(_inspect(arguments.model), target, arguments.target, arguments.max_off_nn)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        console.lint(found)
    if not found.holds:
        raise CheckFailed(
            f"{arguments.model} on {arguments.target}: {len(found.errors)} operators wrong or refused, "
            f"{found.off_share:.1%} of the MACs off {found.fast_place} ({found.allowed_share:.1%} allowed); "
            f"mend what is listed, or raise --max-off-nn"
        )
    return 0


def _measuring(arguments: Arguments) -> Measuring:
    return Measuring(arguments.warmup_runs, arguments.runs, arguments.rounds)


def regress_command(arguments: Arguments) -> int:
    from deploy.regress import regress

    board = find_board(arguments.boards, arguments.board)
    verdicts = regress(
        arguments.run,
        arguments.baselines,
        board,
        _measuring(arguments),
        threshold=arguments.threshold,
        update=arguments.update,
    )
    console.regression(verdicts, arguments.threshold)
    return 1 if any(verdict.regressed for verdict in verdicts) else 0


def board_command(arguments: Arguments) -> int:
    if arguments.action == "list":
        console.boards(load_boards(arguments.boards))
        return 0
    config = find_board(arguments.boards, arguments.name)
    if arguments.action == "trust":
        console.say(f"pinned {trust(config)} for {config.name}: compare it with the one on the board's own console")
        return 0
    from deploy.checks import check_board

    with open_board(config) as board:
        for line in check_board(board):
            console.say(line)
    return 0


def bundle_command(arguments: Arguments) -> int:
    from deploy.bundle import verify
    from deploy.standalone import export_from_run

    if arguments.action == "export":
        console.say(f"bundle: {export_from_run(arguments.run, arguments.model, arguments.out)}")
        return 0
    if not (arguments.bundle / "manifest.json").is_file():
        raise UsageError(f"{arguments.bundle}: no bundle there (no manifest.json); `hilnas bundle export` makes one")
    with open_board(find_board(arguments.boards, arguments.board)) as board:
        verdict: dict[str, Any] = verify(arguments.bundle, board)
    console.say(
        f"{arguments.bundle} verified on {verdict['board']}: {verdict['checks']} checks, "
        f"median {verdict['latency_us']['median'] / 1000:.3f} ms"
    )
    return 0


def report_command(arguments: Arguments) -> int:
    from deploy.stages.ship import summarize_run

    overrides = Overrides(arguments.data, arguments.encoder_from, arguments.board, arguments.name)
    experiment, space = load_experiment(_config_path(arguments), overrides)
    if not (arguments.runs_dir / experiment.name / "final.json").exists():
        raise UsageError(f"{arguments.runs_dir / experiment.name}: no finished run; run `hilnas loop` first")
    with Run(arguments.runs_dir / experiment.name) as run:
        summarize_run(Context(experiment, space, run, arguments.boards))
    return _show_summary(run.path, arguments.json)


def doctor_command(_: Arguments) -> int:
    from deploy.checks import doctor

    holds = True
    for check in doctor():
        console.say(f"{'ok  ' if check.holds else 'MISS'} {check.text}")
        holds &= check.holds or check.optional
    return 0 if holds else 1


COMMANDS: Mapping[str, Callable[[Arguments], int]] = {
    "loop": loop_command,
    "demo": loop_command,
    **dict.fromkeys(("teacher", "distil", "agree", "search", "retrain"), stage_command),
    "lut": lut_command,
    "report": report_command,
    "compile": compile_command,
    "profile": profile_command,
    "inspect": inspect_command,
    "lint": lint_command,
    "regress": regress_command,
    "board": board_command,
    "bundle": bundle_command,
    "doctor": doctor_command,
}
