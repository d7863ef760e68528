"""Options of the commands that work on files, boards and stores."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

DEFAULT_STORE = "runs/measurements.sqlite"
STORE_HELP = "a SQLite file, or postgresql+psycopg://USER@HOST/DATABASE (the password: ~/.pgpass or PGPASSWORD)"

BOARDS_HELP = "default: boards.toml here, or in ~/.config/hilnas"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def models(commands: Commands) -> None:
    """Compile, measure, read, store."""
    _compile(commands)
    _models(commands)
    _reading(commands)
    _storage(commands)


def boards(commands: Commands) -> None:
    """Regressions, what was measured, boards, bundles."""
    _regress(commands)
    _stored(commands)
    _boards_and_bundles(commands)


def _compile(commands: Commands) -> None:
    build = commands.add_parser(
        "compile",
        help="write subnets of a space as files, with random weights or a run's",
        description="Random weights are calibrated on noise: they time an idea before anything is trained. "
        "--weights RUN/supernets.pt takes trained ones, still calibrated on noise; with the run's --config they are "
        "calibrated as in the run, and the files are the run's own. With --config and --weights RUN the teacher or a "
        "found model's name is taken too: the whole network, whose layers may have the bits of a --policy.",
    )
    build.add_argument("subnets", nargs="*", metavar="SUBNET", help="b3_k3e6-k5e3-k7e6_w8; of a run: teacher, fast")
    build.add_argument("--all", action="store_true", help="every subnet of the space, in parallel, with an index")
    build.add_argument(
        "--engine",
        default="local",
        metavar="local|ray|ray://HOST:PORT",
        help="what writes --all: processes, or Ray on this machine or a cluster (default %(default)s)",
    )
    build.add_argument(
        "--jobs", "--workers", type=int, default=os.cpu_count() or 1, help="of the engine (default %(default)s)"
    )
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--space", type=Path, help="a name or a file (default demo, or the one of --config)")
    build.add_argument("--size", help="the network's input, HxW (default 96x128, or that of --config)")
    build.add_argument("--bits", metavar="4,6,8", help="weight bit widths (default: the space's)")
    build.add_argument(
        "--weights", default="random", metavar="CKPT", help="random (default), a run's supernets.pt, its folder"
    )
    build.add_argument("--config", type=Path, help="the configuration of the run that --weights is of")
    build.add_argument("--policy", type=Path, metavar="FILE", help="a network's bits by layer (`hilnas lcpaq`)")
    build.add_argument("--data", help="the --data that run was given")
    build.add_argument("--encoder-from", metavar="FILE.tflite", help="the --encoder-from that run was given")
    build.add_argument("--boards", type=Path, metavar="FILE", help=BOARDS_HELP)
    build.add_argument(
        "--granularity", choices=("channel", "tensor"), help="of weight scales (default channel, or that of --config)"
    )
    build.add_argument("--activations", choices=("int8", "uint8"), default="int8", help="uint8 needs a scale a tensor")
    build.add_argument("--few-bits", choices=("int8", "int4"), default="int8", help="how 4-bit weights are stored")
    build.add_argument("--ends", choices=("quantized", "float"), default="quantized")
    build.add_argument("--format", choices=("tflite", "onnx", "converter"), default="tflite", help="of single subnets")
    build.add_argument(
        "--form",
        choices=("isolated", "bounded", "exchanged"),
        default="isolated",
        help="alone, between its neighbours' convolutions, or in a whole model (random weights only)",
    )
    build.add_argument("--target", metavar="NAME", help="refuse what this target answers wrongly, see `hilnas lint`")
    build.add_argument("--targets", type=Path, default=Path("targets"), metavar="DIR", help="default %(default)s")


def _models(commands: Commands) -> None:
    profile = commands.add_parser(
        "profile",
        help="measure .tflite files on a board",
        description="A golden pair beside a model (NAME.input.bin, "
        "NAME.expected.bin) is checked first. Several boards of one fleet (--board A,B) share the work.",
    )
    profile.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    _board(profile)
    _runs(profile)
    _store(profile)
    profile.add_argument(
        "--skip-existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="do not measure again what the store holds (default); --no-skip-existing adds new measurements to it",
    )
    profile.add_argument("--retry-failed", action="store_true", help="measure again what the store holds as failed")
    profile.add_argument("--json", action="store_true")
    passes = profile.add_mutually_exclusive_group()
    passes.add_argument("--memory", action="store_true", help="peak memory instead, in a pass of its own")
    passes.add_argument("--layers", action="store_true", help="times a layer instead, from the NPU driver's own log")


def _regress(commands: Commands) -> None:
    regress = commands.add_parser(
        "regress",
        help="are models slower than the baseline of this kind of board?",
        description="Base and head take turns on the board; a head that is the very same file is compared with the "
        "stored samples. What looks slower is measured once more and fails only if both agree.",
        epilog="exit codes: 0 well, 1 a model is slower, 2 usage, 3 board, 4 a model fails, 5 no baseline, or one "
        "taken under other conditions",
    )
    heads = regress.add_mutually_exclusive_group()
    heads.add_argument("--run", type=Path, default=Path("runs/demo"), help="whose models (default %(default)s)")
    heads.add_argument("--suite", type=Path, metavar="DIR", help="the models of a folder (NAME.tflite, golden pair)")
    regress.add_argument("--baselines", type=Path, default=Path("baselines"), help="has a folder a kind of board")
    regress.add_argument("--threshold", type=float, default=0.05, help="slower by more than this share fails")
    regress.add_argument("--update", action="store_true", help="make today's models and latencies the baseline")
    regress.add_argument("--store", help="default regress.sqlite in the run, or in runs/")
    regress.add_argument("--json", action="store_true")
    _board(regress)
    _runs(regress, runs=20, rounds=10)


def _stored(commands: Commands) -> None:
    found = commands.add_parser("results", help="what was measured: summaries, and files for other tools")
    actions = found.add_subparsers(dest="action", metavar="ACTION", required=True)
    query = actions.add_parser("query", help="median, p90, p95, MAD and interval of every model, for each conditions")
    query.add_argument("--status", choices=("ok", "failed"), help="failed: in at least one round")
    query.add_argument("--json", action="store_true")
    export = actions.add_parser(
        "export",
        help="raw samples, or what pytest-benchmark compares",
        description="csv and parquet: a row a sample, microseconds. pytest-benchmark: for `pytest-benchmark compare`, "
        "in seconds. Models that failed in a round are left out.",
    )
    export.add_argument("--format", required=True, help="csv, parquet or pytest-benchmark")
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    for sub in (query, export):
        _store(sub)
        sub.add_argument("--model", default="*", metavar="GLOB", help="over the models' names")
        sub.add_argument("--board", help="a name in boards.toml, or a fleet's")
        sub.add_argument("--since", metavar="TIME", help="ISO 8601, in UTC unless it names a zone")

    kept = commands.add_parser("quarantine", help="models that crashed, hung or took a board down")
    actions = kept.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which, under which conditions, why and since when")
    listing.add_argument("--cleared", action="store_true", help="also those that were cleared")
    listing.add_argument("--json", action="store_true")
    clear = actions.add_parser("clear", help="let models run again")
    clear.add_argument("model", nargs="?", default="all", metavar="SHA", help="6 or more digits (default: all models)")
    for sub in (listing, clear):
        _store(sub)


def _boards_and_bundles(commands: Commands) -> None:
    board = commands.add_parser("board", help="the boards of boards.toml").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    listing = board.add_parser("list", help="which boards there are")
    listing.add_argument("--boards", type=Path, metavar="FILE", help=BOARDS_HELP)
    listing.add_argument("--probe", action="store_true", help="ask each one who has it")
    actions = {}
    for action, text in (
        ("check", "is it fit to measure on? with a known-good model at the end"),
        ("trust", "pin its SSH host key (compare the fingerprint!)"),
        ("reserve", "keep it for yourself for a time; others' sessions are refused until then"),
        ("release", "end its reservation"),
        ("power", "run its power hook"),
    ):
        actions[action] = board.add_parser(action, help=text)
        actions[action].add_argument("name")
        actions[action].add_argument("--boards", type=Path, metavar="FILE", help=BOARDS_HELP)
    actions["check"].add_argument("--json", action="store_true")
    reserve = actions["reserve"]
    reserve.add_argument("--for", dest="for_", default="1h", metavar="TIME", help="45m, 2h, 1h30m (%(default)s)")
    reserve.add_argument("--note", default="", help="what for")
    actions["release"].add_argument("--force", action="store_true", help="somebody else's too")
    actions["power"].add_argument("switch", choices=("on", "off", "cycle"))
    emulated = board.add_parser("qemu", help="an emulated board, to break: results are real, times mean nothing")
    emulated.add_argument("step", choices=("build", "start", "stop"), help="make its image; run a machine; end it")
    emulated.add_argument("--dir", type=Path, help="of the image, `image` in boards.toml (~/.cache/hilnas/qemu)")

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


def _storage(commands: Commands) -> None:
    pack = commands.add_parser("pack", help="a model's storage form: few-bit weights at their own width")
    pack.add_argument("model", type=Path, metavar="MODEL.tflite")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE")
    unpack = commands.add_parser("unpack", help="the .tflite file of a packed model, byte for byte")
    unpack.add_argument("packed", type=Path, metavar="FILE")
    unpack.add_argument("--out", type=Path, required=True, metavar="MODEL.tflite")


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--store", default=DEFAULT_STORE, metavar="FILE|URL", help=f"{STORE_HELP}; default %(default)s")


def _board(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--board", default=os.environ.get("HILNAS_BOARD", "loopback"))
    sub.add_argument("--boards", type=Path, metavar="FILE", help=BOARDS_HELP)


def _target(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", type=Path, metavar="MODEL.tflite")
    sub.add_argument("--targets", type=Path, default=Path("targets"), metavar="DIR", help="default %(default)s")
    sub.add_argument("--json", action="store_true")


def _runs(sub: argparse.ArgumentParser, runs: int = 30, rounds: int = 3) -> None:
    sub.add_argument("--warmup-runs", type=int, default=5)
    sub.add_argument("--runs", type=int, default=runs)
    sub.add_argument("--rounds", type=int, default=rounds)
