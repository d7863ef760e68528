"""Options of the commands that run an experiment: the loop and its stages, tables, search, rivals, layer-wise bits."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

BOARDS_HELP = "default: boards.toml here, or in ~/.config/hilnas"
DEFAULT_CONFIG = "demo-scenes"
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


def experiments(commands: Commands) -> None:
    """The loop, its stages, and what works on a run."""
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
    _lcpaq(commands)


def _lcpaq(commands: Commands) -> None:
    lcpaq = commands.add_parser("lcpaq", help="bits for each layer of a trained network, by LCPAQ")
    actions = lcpaq.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in LCPAQ_ACTIONS.items():
        action = _experiment(actions.add_parser(name, help=text))
        model = "teacher (default), a found model's name, resnet18, or resnet18w16: that with 16 channels for 64"
        action.add_argument("--model", default="teacher", metavar="NAME", help=model)
        limits = action.add_argument_group("limits (default: --size-limit 67%)")
        limits.add_argument("--size-limit", metavar="X", help="67%% of INT8's, 250kB; blocks: a found model's own bits")
        limits.add_argument("--bops-limit", metavar="X", help="50%% of INT8's, or 3.2G bit operations (M, G, T)")
        limits.add_argument("--latency-limit", metavar="X", help="90%% of the layers' sum, or 3.5ms")
        action.add_argument("--measure-latency", action="store_true", help="of every layer, without a limit on it")
        action.add_argument("--sensitivity", default="hessian", metavar="KIND", help="hessian, fisher, nsr or sqnr")
        action.add_argument("--bits", default="2,3,4,5,6,7,8", metavar="4,6,8", help="to choose from (%(default)s)")
        action.add_argument(
            "--activation-bits",
            metavar="4,6,8",
            help="of what a layer reads, 4 to 8, to choose from (default 8): fewer save bit operations, for which give "
            "--bops-limit, and no size",
        )
        action.add_argument("--tie-bits", action="store_true", help="a layer's weights and what it reads: one width")
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


def _experiment(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
    sub.add_argument("--config", type=Path, help=f"default {DEFAULT_CONFIG}, or the one for --data")
    sub.add_argument("--data", help="scenes, camvid:FOLDER, cityscapes:FOLDER, shapes or folders:FOLDER")
    sub.add_argument("--encoder-from", metavar="FILE.tflite", help="start the teacher from a public INT8 MobileNetV2")
    sub.add_argument("--board", default=os.environ.get("HILNAS_BOARD"), help="several of one fleet: A,B")
    sub.add_argument("--boards", type=Path, metavar="FILE", help=BOARDS_HELP)
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
