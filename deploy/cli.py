"""The command line. Importing this module imports nothing heavy: `hilnas --help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

INTERRUPTED = 130
DEFAULT_CONFIG = "configs/demo-scenes.toml"
STAGE_COMMANDS = {
    "teacher": "train the segmentation network that the blocks learn from",
    "distil": "train every block's supernet on the teacher's feature maps",
    "agree": "measure whole models and compare them with the table's sums (tau-b)",
    "search": "the exact front, and the best architecture under each budget",
    "retrain": "train the found architectures on the task",
}

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="hilnas",
        description=(
            "Search a quantized network, measure every candidate on the board, ship a bundle that proves itself."
        ),
        epilog="exit codes: 0 well, 1 a check did not hold, 2 usage, 3 board, 4 model, 5 nothing to compare with",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    _loops(commands)
    _models(commands)
    _reading(commands)
    _regress(commands)
    _boards_and_bundles(commands)
    commands.add_parser("doctor", help="is this machine ready? what is missing, and what to do")
    return top


def _loops(commands: Commands) -> None:
    loop = _experiment(commands.add_parser("loop", help="run every stage of a configuration"))
    loop.add_argument("--until", help="stop after this stage (teacher, distil, tables, profile, agree, search, ...)")
    _experiment(commands.add_parser("demo", help="the loop on scenes and the loopback board (--data for others)"))
    for name, text in STAGE_COMMANDS.items():
        _experiment(commands.add_parser(name, help=f"the loop up to here: {text}"))
    lut = _experiment(commands.add_parser("lut", help="the loop up to a look-up table, and what is in it"))
    lut.add_argument("table", choices=("nsr", "size", "latency"))
    report = commands.add_parser("report", help="write a finished run's summary.json and report.html again")
    _experiment(report)


def _models(commands: Commands) -> None:
    build = commands.add_parser(
        "compile", help="write subnets of a space as .tflite files, with random weights (a run holds its trained ones)"
    )
    build.add_argument("subnets", nargs="*", metavar="SUBNET", help="for example b3_k3e6-k5e3-k7e6_w8")
    build.add_argument("--all", action="store_true", help="every subnet of the space, in parallel, with an index")
    build.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes for --all")
    build.add_argument("--space", type=Path, default=Path("configs/spaces/demo.toml"))
    build.add_argument("--size", default="96x128", help="the network's input, HxW (default %(default)s)")
    build.add_argument("--out", type=Path, required=True)

    profile = commands.add_parser("profile", help="measure .tflite files on a board")
    profile.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    _board(profile)
    _runs(profile)
    profile.add_argument("--store", type=Path, default=Path("runs/measurements.sqlite"))
    profile.add_argument("--json", action="store_true")


def _regress(commands: Commands) -> None:
    regress = commands.add_parser("regress", help="compare a run's models with the stored latency baseline")
    regress.add_argument("--run", type=Path, default=Path("runs/demo"))
    regress.add_argument("--baselines", type=Path, default=Path("baselines"))
    regress.add_argument("--threshold", type=float, default=0.05, help="slower by more than this share fails")
    regress.add_argument("--update", action="store_true", help="make today's latencies the baseline")
    _board(regress)
    _runs(regress)


def _boards_and_bundles(commands: Commands) -> None:
    board = commands.add_parser("board", help="the boards of boards.toml").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    listing = board.add_parser("list", help="which boards there are")
    listing.add_argument("--boards", type=Path, default=Path("boards.toml"))
    for action, text in (
        ("check", "reach it, probe it, run a known-good model on it"),
        ("trust", "pin its SSH host key (compare the fingerprint!)"),
    ):
        sub = board.add_parser(action, help=text)
        sub.add_argument("name")
        sub.add_argument("--boards", type=Path, default=Path("boards.toml"))

    bundle = commands.add_parser("bundle", help="ship a model with its proof").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    export = bundle.add_parser("export", help="copy a run's bundle, or make one of another of its models")
    export.add_argument("--run", type=Path, default=Path("runs/demo"))
    export.add_argument("--model", help="teacher or a found model's name (default: the run's choice)")
    export.add_argument("--out", type=Path, required=True)
    verify = bundle.add_parser("verify", help="run the verifier on a board")
    verify.add_argument("bundle", type=Path, nargs="?", default=Path("runs/demo/bundle"))
    _board(verify)


def _board(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--board", default=os.environ.get("HILNAS_BOARD", "loopback"))
    sub.add_argument("--boards", type=Path, default=Path("boards.toml"))


def _reading(commands: Commands) -> None:
    inspection = commands.add_parser("inspect", help="what a .tflite file holds, operator by operator")
    _target(inspection)
    inspection.add_argument("--target", help="also where each operator runs there (a file in --targets, without .toml)")

    lint = commands.add_parser(
        "lint",
        help="what of a model leaves a target's fast cores, and what goes wrong there",
        description="Expected from rules, not measured. Exits 1 if an operator would answer wrongly or cannot run on "
        "the target, or if more than --max-off-nn of the multiply-accumulates leave the NN cores (on a target without "
        "them: the fast kernels). Operators without multiply-accumulates are listed and do not fail.",
    )
    _target(lint)
    lint.add_argument("--target", required=True, help="a file in --targets, without .toml")
    lint.add_argument(
        "--max-off-nn",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="largest share of the multiply-accumulates that may run elsewhere, 0 to 1 (default %(default)s: none)",
    )


def _target(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", type=Path, metavar="MODEL.tflite")
    sub.add_argument("--targets", type=Path, default=Path("targets"), metavar="DIR", help="default %(default)s")
    sub.add_argument("--json", action="store_true")


def _runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--warmup-runs", type=int, default=5)
    sub.add_argument("--runs", type=int, default=30)
    sub.add_argument("--rounds", type=int, default=3)


def _experiment(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
    sub.add_argument("--config", type=Path, help=f"default {DEFAULT_CONFIG}, or the one for --data")
    sub.add_argument("--data", help="scenes, camvid:FOLDER or cityscapes:FOLDER")
    sub.add_argument("--encoder-from", metavar="FILE.tflite", help="start the teacher from a public INT8 MobileNetV2")
    sub.add_argument("--board", default=os.environ.get("HILNAS_BOARD"))
    sub.add_argument("--boards", type=Path, default=Path("boards.toml"))
    sub.add_argument("--name", help="the run's name (its folder under --runs-dir)")
    sub.add_argument("--runs-dir", type=Path, default=Path(os.environ.get("HILNAS_RUNS", "runs")))
    sub.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    return sub


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. Errors of the kit are one line on stderr, never a traceback."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    from hil.errors import HilError
    from nas.errors import NasError

    try:
        from deploy import commands  # takes seconds, in which Ctrl-C is as likely as later

        return commands.COMMANDS[arguments.command](arguments)
    except (HilError, NasError) as error:
        print(f"hilnas: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hilnas: interrupted; what was finished is kept, run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"hilnas: {where}{error.strerror or error}; make room or mend the path, then run again", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
