"""Options become a record, and argparse's Namespace travels no further."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import parser
from deploy.cli.loop import StageOptions
from deploy.cli.options import bind, record
from tests.deploy.tiny_experiment import REPOSITORY


@dataclass(frozen=True, kw_only=True)
class Options:
    models: tuple[Path, ...]
    rounds: int = 3
    absent: str = "default"


def test_a_command_gets_its_record() -> None:
    top = argparse.ArgumentParser()
    top.add_argument("models", nargs="+", type=Path)
    top.add_argument("--rounds", type=int)
    top.add_argument("--other")
    seen: list[Options] = []
    bind(top, Options, lambda options: seen.append(options) or 7)
    arguments = top.parse_args(["a", "b", "--rounds", "5", "--other", "x"])
    assert arguments.work(arguments) == 7
    assert seen == [Options(models=(Path("a"), Path("b")), rounds=5)]


def test_a_stage_knows_its_command(monkeypatch) -> None:
    monkeypatch.setenv("HILNAS_RUNS", "elsewhere")
    monkeypatch.setenv("HILNAS_BOARD", "pi")
    options = record(StageOptions, parser().parse_args(["retrain", "--tau", "0.5", "--workers", "2"]))
    assert (options.command, options.tau, options.workers) == ("retrain", 0.5, 2)
    assert (options.runs_dir, options.board, options.models) == (Path("elsewhere"), "pi", None)


def test_the_namespace_travels_no_further() -> None:
    deploy = REPOSITORY / "deploy"
    users = {str(f.relative_to(deploy)) for f in deploy.rglob("*.py") if "Namespace" in f.read_text(encoding="utf8")}
    assert users == {"cli/options.py"}
