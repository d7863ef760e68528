"""The command line. Importing this module imports nothing heavy: `hilnas --help` answers at once."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

INTERRUPTED = 130
DEFAULT_CONFIG = "configs/demo-scenes.toml"
DEFAULT_STORE = "runs/measurements.sqlite"
STORE_HELP = "a SQLite file, or postgresql+psycopg://USER@HOST/DATABASE (the password: ~/.pgpass or PGPASSWORD)"
LUT_ACTIONS = ("versions", "diff A B", "validate", "record FILE", "compare FILE")
STAGE_COMMANDS = {
    "teacher": "train the network that the blocks learn from",
    "distil": "train every block's supernet on the teacher's feature maps",
    "agree": "measure whole models and compare them with the table's sums; exits 1 if tau-b is below the gate",
    "search": "the exact front, and the best architecture under each budget",
    "retrain": "train the found architectures on the task",
}
LCPAQ_ACTIONS = {
    "sensitivity": "how much each layer loses at each width",
    "solve": "the bits of least perturbation within the limits, by integer programming",
    "refine": "score the policies around that answer, keep the best",
    "proxy": "search the quantization's hyperparameters for the policy, most trials judged cheaply",
    "run": "all of it, then measure and bundle the network",
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
    _lcpaq(commands)
    _compile(commands)
    _models(commands)
    _reading(commands)
    _storage(commands)
    _regress(commands)
    _stored(commands)
    _boards_and_bundles(commands)
    commands.add_parser("doctor", help="is this machine ready? what is missing, and what to do")
    return top


def _loops(commands: Commands) -> None:
    loop = _experiment(commands.add_parser("loop", help="run every stage of a configuration"))
    loop.add_argument("--until", help="stop after this stage (teacher, distil, tables, profile, agree, search, ...)")
    demo = _experiment(commands.add_parser("demo", help="the loop on scenes and a loopback board (--data for others)"))
    for whole in (loop, demo):
        _judged(whole)
    for name, text in STAGE_COMMANDS.items():
        stage = _experiment(commands.add_parser(name, help=f"the loop up to here: {text}"))
        if name in ("agree", "search", "retrain"):
            _judged(stage)
        if name == "agree":
            stage.add_argument("--plot", type=Path, metavar="FILE", help="draw predicted against measured (.png, .svg)")
        if name == "search":
            _search(stage)
    compare = _experiment(
        commands.add_parser("compare-search", help="block-wise search against DNA, SPOS, FairNAS and random search")
    )
    compare.add_argument("--methods", metavar="A,B", help="of blockwise, dna, spos, fairnas, random (default: all)")
    compare.add_argument(
        "--budget", dest="budget_name", metavar="NAME", help="of the configuration's budgets (default: the first)"
    )
    predict = _experiment(
        commands.add_parser(
            "predict",
            help="fine-tune some architectures, fit the accuracy predictor, search with it",
            description="The loop up to the search, then short fine-tunings of sampled architectures: how well do "
            "block NSRs predict what was left out, against their plain sum, and what does the predictor find under "
            "the budgets? What is done is not done again; settings are [predictor] of the configuration.",
        )
    )
    predict.add_argument("--models", type=int, metavar="N", help="how many to fine-tune (default: the configuration's)")
    _threshold(predict)
    _lut(_experiment(commands.add_parser("lut", help="the loop up to a look-up table, and what is in it")))
    report = commands.add_parser("report", help="write a finished run's summary.json and report.html again")
    _experiment(report)


def _lcpaq(commands: Commands) -> None:
    lcpaq = commands.add_parser("lcpaq", help="bits for each layer of a trained network, by LCPAQ")
    actions = lcpaq.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in LCPAQ_ACTIONS.items():
        action = _experiment(actions.add_parser(name, help=text))
        action.add_argument("--model", default="teacher", metavar="NAME", help="teacher (default), or a found model's")
        limits = action.add_argument_group("limits (default: --size-limit 67%)")
        limits.add_argument("--size-limit", metavar="X", help="67%% of INT8's, 250kB; blocks: a found model's own bits")
        limits.add_argument("--bops-limit", metavar="X", help="50%% of INT8's, or 3.2G bit operations (M, G, T)")
        limits.add_argument("--latency-limit", metavar="X", help="90%% of the layers' sum, or 3.5ms")
        action.add_argument("--measure-latency", action="store_true", help="of every layer, without a limit on it")
        action.add_argument("--sensitivity", default="hessian", metavar="KIND", help="hessian, fisher, nsr or sqnr")
        action.add_argument("--bits", default="2,3,4,5,6,7,8", metavar="4,6,8", help="to choose from (%(default)s)")
        action.add_argument("--all-layers", action="store_true", help="the first and the last may leave 8 bits too")
        action.add_argument("--images", type=int, default=64, help="for the sensitivity, labelled (%(default)s)")
        action.add_argument("--judged", type=int, default=512, help="images to score policies on (default %(default)s)")
        action.add_argument("--k", type=int, default=8, help="policies of the frontier to score (default %(default)s)")
        action.add_argument("--trials", type=int, default=40, help="of the proxy search (default %(default)s)")
        action.add_argument("--tuning-steps", type=int, default=64, help="of a full trial (default %(default)s)")
        action.add_argument("--plot", type=Path, metavar="FILE", help="draw it, beside lcpaq.html (.png, .svg)")


def _judged(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--models", type=int, metavar="N", help="whole models to measure (default: [agreement] models)")
    _budget(sub)
    _threshold(sub)


def _budget(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--budget",
        metavar="TIME",
        help="of the board, as 10min: measure only what counts, until the front is stable, and regress the rest",
    )


def _threshold(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--tau",
        type=float,
        metavar="X",
        help="the least tau-b with which the latency table is searched, recorded as an override "
        "(default: [agreement] tau)",
    )


def _lut(lut: argparse.ArgumentParser) -> None:
    lut.description = (
        "Makes a table and shows it. `lut latency versions` lists those that were current; `lut latency diff A B` says "
        "what changed between two of them (digits of a version, or files); `lut latency validate` measures some "
        "entries again on a board that changed, and says whether the table still holds. `lut latency record FILE` "
        "measures more whole models and writes all into one small file, and `lut latency compare FILE` lets active "
        "measuring, random choice and measuring everything compete on it, without a board."
    )
    lut.add_argument("table", choices=("nsr", "size", "latency"))
    lut.add_argument("action", nargs="*", metavar="ACTION", help="of latency: " + ", ".join(LUT_ACTIONS))
    _budget(lut)
    tried = lut.add_argument_group("compare")
    tried.add_argument("--seeds", type=int, default=20, help="of active and of random choice (default %(default)s)")
    tried.add_argument("--most-blocks", type=int, metavar="N", help="that active may measure (default: 5 %% of all)")
    tried.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there too")
    tried.add_argument("--plot", type=Path, metavar="FILE", help="draw them after each batch (.png, .svg)")
    again = lut.add_argument_group("validate")
    again.add_argument("--entries", type=int, default=30, help="how many are measured again (default %(default)s)")
    again.add_argument("--tolerance", type=float, default=0.02, help="how far from 1 their median ratio may be")
    again.add_argument(
        "--tau", dest="least_tau", type=float, default=0.95, help="least tau-b of old and new (default %(default)s)"
    )


def _search(search: argparse.ArgumentParser) -> None:
    search.description = (
        "The loop up to the exact front, and the best architecture under each of the configuration's budgets. With the "
        "options below its tables are asked something else, or with --tables any others."
    )
    asked = search.add_argument_group("questions")
    asked.add_argument("--size-budget", metavar="X", help="250kB (also bits, B, MB), or 75%% of the teacher's weights")
    asked.add_argument(
        "--latency-budget",
        action="append",
        metavar="Y",
        help="3.5ms (also us, s), or 80%% of the teacher's latency; NAME=3.5ms for each of several devices",
    )
    asked.add_argument(
        "--latency",
        action="append",
        metavar="NAME=FILE",
        help="a device's latency table; several: models for all of them and for each, and what sharing costs",
    )
    asked.add_argument("--k", type=int, help="how many to list, best first (default 1)")
    asked.add_argument("--objectives", metavar="A,B", help="of nsr,size,latency; the first is minimised (default: all)")
    asked.add_argument("--no-cpu-fallback", action="store_true", help="only subnets that the delegate took whole")
    asked.add_argument("--front", type=Path, metavar="FILE.csv", help="write the whole front, for every budget at once")
    asked.add_argument("--prove", action="store_true", help="hold it to brute force on random sub-spaces")
    asked.add_argument("--tables", type=Path, metavar="DIR", help="instead of a run's: nsr.parquet and others")
    asked.add_argument("--space", type=Path, metavar="FILE.toml", help="which space --tables are of")


def _compile(commands: Commands) -> None:
    build = commands.add_parser(
        "compile",
        help="write subnets of a space as files, with random weights or a run's",
        description="Random weights are calibrated on noise: they time an idea before anything is trained. "
        "--weights RUN/supernets.pt takes trained ones, still calibrated on noise; with the run's --config they are "
        "calibrated as in the run, and the files are the run's own.",
    )
    build.add_argument("subnets", nargs="*", metavar="SUBNET", help="for example b3_k3e6-k5e3-k7e6_w8")
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
    build.add_argument("--space", type=Path, help="default configs/spaces/demo.toml, or the one of --config")
    build.add_argument("--size", help="the network's input, HxW (default 96x128, or that of --config)")
    build.add_argument("--bits", metavar="4,6,8", help="weight bit widths (default: the space's)")
    build.add_argument("--weights", default="random", metavar="CKPT", help="random (default), or a run's supernets.pt")
    build.add_argument("--config", type=Path, help="the configuration of the run that --weights is of")
    build.add_argument("--data", help="the --data that run was given")
    build.add_argument("--encoder-from", metavar="FILE.tflite", help="the --encoder-from that run was given")
    build.add_argument("--boards", type=Path, default=Path("boards.toml"))
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


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--store", default=DEFAULT_STORE, metavar="FILE|URL", help=f"{STORE_HELP}; default %(default)s")


def _boards_and_bundles(commands: Commands) -> None:
    board = commands.add_parser("board", help="the boards of boards.toml").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    listing = board.add_parser("list", help="which boards there are")
    listing.add_argument("--boards", type=Path, default=Path("boards.toml"))
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
        actions[action].add_argument("--boards", type=Path, default=Path("boards.toml"))
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


def _storage(commands: Commands) -> None:
    pack = commands.add_parser("pack", help="a model's storage form: few-bit weights at their own width")
    pack.add_argument("model", type=Path, metavar="MODEL.tflite")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE")
    unpack = commands.add_parser("unpack", help="the .tflite file of a packed model, byte for byte")
    unpack.add_argument("packed", type=Path, metavar="FILE")
    unpack.add_argument("--out", type=Path, required=True, metavar="MODEL.tflite")


def _target(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", type=Path, metavar="MODEL.tflite")
    sub.add_argument("--targets", type=Path, default=Path("targets"), metavar="DIR", help="default %(default)s")
    sub.add_argument("--json", action="store_true")


def _runs(sub: argparse.ArgumentParser, runs: int = 30, rounds: int = 3) -> None:
    sub.add_argument("--warmup-runs", type=int, default=5)
    sub.add_argument("--runs", type=int, default=runs)
    sub.add_argument("--rounds", type=int, default=rounds)


def _experiment(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
    sub.add_argument("--config", type=Path, help=f"default {DEFAULT_CONFIG}, or the one for --data")
    sub.add_argument("--data", help="scenes, camvid:FOLDER, cityscapes:FOLDER, shapes or folders:FOLDER")
    sub.add_argument("--encoder-from", metavar="FILE.tflite", help="start the teacher from a public INT8 MobileNetV2")
    sub.add_argument("--board", default=os.environ.get("HILNAS_BOARD"), help="several of one fleet: A,B")
    sub.add_argument("--boards", type=Path, default=Path("boards.toml"))
    sub.add_argument("--name", help="the run's name (its folder under --runs-dir)")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), help="for training (default: the configuration's)")
    sub.add_argument("--runs-dir", type=Path, default=Path(os.environ.get("HILNAS_RUNS", "runs")))
    sub.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    sub.add_argument(
        "--engine",
        default="local",
        metavar="local|ray|ray://HOST:PORT",
        help="what computes the tables: processes, or Ray on this machine or a cluster (default %(default)s)",
    )
    sub.add_argument("--workers", type=int, default=1, help="of the engine (default %(default)s; any give the same)")
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
        gc.freeze()  # or the interpreter ends by searching all of torch for garbage: up to a second
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
