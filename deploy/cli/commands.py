"""What each command does; the shapes of the options are in cli.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli import console
from deploy.formats.files import read_json
from deploy.latency.gate import check_threshold
from deploy.run.config import Measuring, Overrides, load_experiment
from deploy.run.context import Context, protocol
from deploy.run.folder import Run
from hil.boards.catalog import find_board
from hil.boards.config import open_board
from hil.errors import CheckFailed, ModelError, UsageError
from nas.engine.local import open_engine
from nas.errors import ConfigError

if TYPE_CHECKING:
    from deploy.targets.inspection import Inspection

Arguments = argparse.Namespace


def _config_path(arguments: Arguments) -> Path:
    """The configuration: given, or the demo's for the kind of data."""
    if arguments.config:
        return Path(arguments.config)
    from nas.data import DATASETS

    kind = (arguments.data or "scenes").partition(":")[0]
    if kind not in DATASETS:
        raise ConfigError(f"--data {arguments.data}: unknown kind '{kind}'; there are {', '.join(DATASETS)}")
    return Path(f"demo-{kind}")


def _loop(arguments: Arguments, until: str) -> Path:
    """Run the loop; the run's folder."""
    from deploy.pipeline.loop import STAGES, loop

    if until not in STAGES:
        raise UsageError(f"--until {until}: no such stage; there are {', '.join(STAGES)}")
    experiment, space = load_experiment(_config_path(arguments), Overrides.of(arguments))
    with Run(arguments.runs_dir / experiment.name) as run:
        engine = open_engine(arguments.engine, arguments.workers)
        tau = getattr(arguments, "tau", None)
        context = Context(experiment, space, run, arguments.boards, engine, tau=check_threshold(tau))
        with console.progress() as show:
            for done in loop(context, until):
                show(done)
        if until == "ship":
            from deploy.pipeline.summary import summarize_run

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
    if arguments.command == "search":
        record = read_json(folder / "search.json")
        print(json.dumps(record, indent=1)) if arguments.json else console.found(record)
    else:
        console.say(f"{arguments.command} is done in {folder}")
    return 0


def agree_command(arguments: Arguments) -> int:
    """The agreement, its page and its gate; `CheckFailed` where that does not hold."""
    from deploy.formats.figures import check_image
    from deploy.latency.gate import check_gate
    from deploy.latency.scatter import write_image
    from deploy.latency.watermark import watermark
    from deploy.run.records import AgreementRecord

    if arguments.plot:
        check_image(arguments.plot)
    folder = _loop(arguments, "agree")
    found = AgreementRecord.read(folder / AgreementRecord.FILE)
    judged = found.to_json()
    if arguments.plot:
        write_image(arguments.plot, judged, watermark(judged["conditions"]))
    if arguments.json:
        print(json.dumps(judged, indent=1))
    else:
        console.agreement(judged)
        console.say(f"predicted against measured: {arguments.plot or folder / 'agreement.html'}")
    check_gate(found.gate)
    return 0


def search_command(arguments: Arguments) -> int:
    from deploy.search import devices
    from deploy.search import query as searching
    from nas.table import Table

    if not searching.asks(arguments):
        return stage_command(arguments)
    answer = devices.run if arguments.latency else searching.run
    for device in devices.devices_of(arguments.latency or ()):
        Table.load(device.path)  # refused before a loop runs
    if (arguments.tables or arguments.space) and (arguments.tau is not None or arguments.models is not None):
        raise UsageError("--tables alone were never compared with whole models: leave out --tau and --models")
    if arguments.tables or arguments.space:
        if arguments.tables is None:
            raise UsageError("--space goes with --tables; a run's space is its configuration's")
        return answer(arguments, searching.material_of_tables(arguments.tables, arguments.space))
    _, space = load_experiment(_config_path(arguments), Overrides())
    return answer(arguments, searching.material_of_run(_loop(arguments, "search"), space))


def lut_command(arguments: Arguments) -> int:
    from deploy.cli import lut

    if arguments.action:
        return lut.run(arguments, _config_path(arguments))
    folder = _loop(arguments, "profile" if arguments.table == "latency" else "tables")
    from nas.table import Table

    path = folder / "tables" / f"{arguments.table}.parquet"
    if arguments.table == "latency":
        lut.show(path, arguments.json)
    else:
        console.table(Table.load(path), path)
    return 0


def compile_command(arguments: Arguments) -> int:
    from deploy.cli.compile import run

    return run(arguments)


def compare_search_command(arguments: Arguments) -> int:
    from deploy.cli import compare

    return compare.run(arguments, _config_path(arguments))


def predict_command(arguments: Arguments) -> int:
    from deploy.cli import predict as predicting

    return predicting.run(arguments, _config_path(arguments))


def lcpaq_command(arguments: Arguments) -> int:
    from deploy.cli import lcpaq

    return lcpaq.run(arguments, _config_path(arguments))


def profile_command(arguments: Arguments) -> int:
    from deploy.cli import profiling

    return profiling.run(arguments, protocol(_measuring(arguments)))


def _inspect(path: Path) -> Inspection:
    from deploy.formats.tflite.read import read
    from deploy.targets.inspection import inspect_model

    try:
        return inspect_model(read(path))
    except ModelError as error:
        raise error if str(path) in str(error) else ModelError(f"{path}: {error}") from None


def inspect_command(arguments: Arguments) -> int:
    from deploy.targets.placement import load_target, place, placement_record

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
    from deploy.targets.placement import lint, load_target

    target = load_target(arguments.targets, arguments.target)
    found = lint(_inspect(arguments.model), target, arguments.max_off_nn)
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


def pack_command(arguments: Arguments) -> int:
    from deploy.formats.files import write_atomically
    from deploy.formats.pack import pack
    from deploy.formats.tflite.read import read

    read(arguments.model)  # refuses what is no model
    content = arguments.model.read_bytes()
    packed = pack(content)
    write_atomically(arguments.out, packed)
    console.packed(str(arguments.model), len(content), str(arguments.out), len(packed))
    return 0


def unpack_command(arguments: Arguments) -> int:
    from deploy.formats.pack import unpack_file

    size = unpack_file(arguments.packed, arguments.out)
    console.packed(str(arguments.out), size, str(arguments.packed), arguments.packed.stat().st_size)
    return 0


def _measuring(arguments: Arguments) -> Measuring:
    return Measuring(arguments.warmup_runs, arguments.runs, arguments.rounds)


def regress_command(arguments: Arguments) -> int:
    from dataclasses import replace

    from deploy.cli.results import open_store
    from deploy.regression import regress
    from deploy.regression.baselines import load_suite, suite_folder
    from hil.measure import now
    from hil.session import open_session

    config = find_board(arguments.boards, arguments.board)
    suite = suite_folder(arguments.baselines, config)
    heads = regress.heads_of_folder(arguments.suite) if arguments.suite else regress.heads_of_run(arguments.run)
    if not arguments.update:
        load_suite(suite)  # refuses before the board is bothered
    where = arguments.store or (Path("runs") if arguments.suite else arguments.run) / "regress.sqlite"
    settings = replace(protocol(_measuring(arguments)), series=f"regress {now()}")
    with open_board(config) as board, open_session(board) as session, open_store(where) as store:
        bench = regress.Bench(session, store, settings)
        if arguments.update:
            written = regress.update(bench, heads, suite)
            console.say(f"{suite}: baseline of {', '.join(written)}")
            return 0
        outcomes = []
        for outcome in regress.regress(bench, heads, suite, arguments.threshold):
            outcomes.append(outcome)
            if not arguments.json:
                console.regression(outcome)
    if arguments.json:
        record = {"board": config.name, "conditions": session.conditions.to_json()}
        print(json.dumps({**record, "models": [outcome.to_json() for outcome in outcomes]}, indent=1))
    return regress.conclude(outcomes)


def results_command(arguments: Arguments) -> int:
    from deploy.cli import results

    return results.results_command(arguments)


def quarantine_command(arguments: Arguments) -> int:
    from deploy.cli import results

    return results.quarantine_command(arguments)


def board_command(arguments: Arguments) -> int:
    from deploy.cli.board import run

    return run(arguments)


def bundle_command(arguments: Arguments) -> int:
    from deploy.ship.bundle import verify
    from deploy.ship.export import export_from_run

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
    from deploy.pipeline.summary import summarize_run

    experiment, space = load_experiment(_config_path(arguments), Overrides.of(arguments))
    if not (arguments.runs_dir / experiment.name / "final.json").exists():
        raise UsageError(f"{arguments.runs_dir / experiment.name}: no finished run; run `hilnas loop` first")
    with Run(arguments.runs_dir / experiment.name) as run:
        summarize_run(Context(experiment, space, run, arguments.boards))
    return _show_summary(run.path, arguments.json)


def doctor_command(_: Arguments) -> int:
    from deploy.cli.doctor import doctor

    holds = True
    for check in doctor():
        console.say(f"{'ok  ' if check.holds else 'MISS'} {check.text}")
        holds &= check.holds or check.optional
    return 0 if holds else 1


COMMANDS: Mapping[str, Callable[[Arguments], int]] = {
    "loop": loop_command,
    "demo": loop_command,
    **dict.fromkeys(("teacher", "distil", "retrain"), stage_command),
    "agree": agree_command,
    "search": search_command,
    "lut": lut_command,
    "report": report_command,
    "compare-search": compare_search_command,
    "predict": predict_command,
    "lcpaq": lcpaq_command,
    "compile": compile_command,
    "profile": profile_command,
    "inspect": inspect_command,
    "lint": lint_command,
    "pack": pack_command,
    "unpack": unpack_command,
    "regress": regress_command,
    "results": results_command,
    "quarantine": quarantine_command,
    "board": board_command,
    "bundle": bundle_command,
    "doctor": doctor_command,
}
