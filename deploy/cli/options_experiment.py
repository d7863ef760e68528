"""Options of the commands that run an experiment: the loop and its stages, tables, search, rivals, layer-wise bits."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

DEFAULT_CONFIG = "configs/demo-scenes.toml"
LUT_ACTIONS = ("versions", "diff A B", "validate", "record FILE", "compare FILE")
STAGE_COMMANDS = {
    "teacher": "train the network that the blocks learn from",
    "distil": "train every block's supernet on the teacher's feature maps",
    "agree": "measure whole models and compare them with the table's sums; exits 1 if tau-b is below the gate",
    "retrain": "train the found architectures on the task",
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
        if name in ("agree", "retrain"):
            _judged(stage)
        if name == "agree":
            stage.add_argument("--plot", type=Path, metavar="FILE", help="draw predicted against measured (.png, .svg)")
    _lut(_experiment(commands.add_parser("lut", help="the loop up to a look-up table, and what is in it")))
    report = commands.add_parser("report", help="write a finished run's summary.json and report.html again")
    _experiment(report)


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
