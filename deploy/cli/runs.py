"""A run on the command line: the options that name it, and `open_run`, which loads, locks and builds it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli.options import add_boards, add_json
from nas.errors import ConfigError

if TYPE_CHECKING:
    from deploy.run.config import Experiment
    from deploy.run.context import Context
    from nas.space import SearchSpace
    from nas.training.device import DeviceName

DEFAULT_CONFIG = "demo-scenes"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Which run, and how it is worked on; None leaves what the configuration has.

    Attributes:
        config: the configuration; None: the demo's for the kind of `data`.
        board: several of one fleet are separated by commas.
        engine, workers: what computes the tables; no result depends on them.
        models: how many full models are measured for the agreement.
        budget: of the board's time for the latency table, as "10min".
        tensorboard: trainings write event files too.
        seed: of all that is random.
        settings: changes to the configuration, as KEY=VALUE.
        tau: the least tau-b with which the latency table is searched, in place of the configuration's.
    """

    config: Path | None = None
    data: str | None = None
    encoder_from: str | None = None
    board: str | None = None
    boards: Path | None = None
    name: str | None = None
    device: DeviceName | None = None
    runs_dir: Path = Path("runs")
    json: bool = False
    engine: str = "local"
    workers: int = 1
    tensorboard: bool = False
    models: int | None = None
    budget: str | None = None
    seed: int | None = None
    settings: tuple[str, ...] = ()
    tau: float | None = None

    @property
    def config_path(self) -> Path:
        """The configuration: given, or the demo's for the kind of data."""
        if self.config:
            return self.config
        from nas.data import DATASETS

        kind = (self.data or "scenes").partition(":")[0]
        if kind not in DATASETS:
            raise ConfigError(f"--data {self.data}: unknown kind '{kind}'; there are {', '.join(DATASETS)}")
        return Path(f"demo-{kind}")


def add_run(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of `RunOptions`, without those of `add_agreement`."""
    parser.add_argument(
        "--config", type=Path, metavar="NAME|FILE", help=f"default {DEFAULT_CONFIG}, or the one for --data"
    )
    parser.add_argument("--data", help="scenes, camvid:FOLDER, cityscapes:FOLDER, shapes or folders:FOLDER")
    parser.add_argument(
        "--encoder-from", metavar="FILE.tflite", help="start the teacher from a public INT8 MobileNetV2"
    )
    parser.add_argument(
        "--board",
        default=os.environ.get("HILNAS_BOARD"),
        metavar="NAME",
        help="where models are measured; several of one fleet: A,B (default: the configuration's)",
    )
    add_boards(parser)
    parser.add_argument("--name", help="the run's name (its folder under --runs-dir)")
    parser.add_argument("--seed", type=int, metavar="N", help="of all that is random (default: the configuration's)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the configuration, changed: retrain.steps=200; empty for its default; may be repeated",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="for training (default: the configuration's)")
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=Path(os.environ.get("HILNAS_RUNS", "runs")),
        metavar="DIR",
        help="the folder of the runs (default %(default)s)",
    )
    add_json(parser)
    parser.add_argument(
        "--engine",
        default="local",
        metavar="local|ray|ray://HOST:PORT",
        help="what computes the tables: processes, or Ray on this machine or a cluster (default %(default)s)",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="trainings write event files into the run's tensorboard/ (extra tensorboard) too",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes of the engine (default %(default)s); no result depends on how many",
    )
    return parser


def add_agreement(parser: argparse.ArgumentParser) -> None:
    """Of the commands that measure full models and hold the latency table to them."""
    parser.add_argument("--models", type=int, metavar="N", help="full models to measure (default: [agreement] models)")
    add_time_budget(parser)
    add_tau(parser)


def add_time_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="of the board's time, as 10min: measure the subnets that matter, until the front is stable, and predict "
        "the others (default: measure all)",
    )


def add_tau(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tau",
        type=float,
        metavar="X",
        help="the least tau-b, -1 to 1, with which the latency table is searched, recorded as an override (default: "
        "[agreement] tau)",
    )


def load(options: RunOptions) -> tuple[Experiment, SearchSpace]:
    """The experiment with the command line's changes, and its space. Raises `ConfigError`."""
    from deploy.run.config import Overrides, load_experiment

    overrides = Overrides(
        options.data,
        options.encoder_from,
        options.board,
        options.name,
        options.device,
        models=options.models,
        budget=options.budget,
        seed=options.seed,
        settings=options.settings,
    )
    return load_experiment(options.config_path, overrides)


def view_run(options: RunOptions) -> Context:
    """The run of a configuration as it stands: nothing is locked or written, no stage may be run on it."""
    from deploy.run.context import Context
    from deploy.run.folder import Run

    experiment, space = load(options)
    return Context(experiment, space, Run.viewed(options.runs_dir / experiment.name), options.boards)


@contextmanager
def open_run(
    options: RunOptions,
    *,
    folder: Path | None = None,
    change: Callable[[Experiment], Experiment] = lambda experiment: experiment,
) -> Iterator[Context]:
    """The run of a configuration, locked against a second process; nothing is written where the options are wrong.

    Arguments:
        folder: the run's, where it is not the one of the experiment's name.
        change: more of the command line's changes to the experiment.

    Raises `UsageError` where another process works on the run, `ConfigError`.
    """
    from deploy.latency.gate import check_threshold
    from deploy.run.context import Context
    from deploy.run.folder import Run
    from nas.engine.open import open_engine

    experiment, space = load(options)
    experiment, tau = change(experiment), check_threshold(options.tau)
    engine = open_engine(options.engine, options.workers)
    with Run(folder or options.runs_dir / experiment.name) as run:
        yield Context(experiment, space, run, options.boards, engine, tau=tau, tensorboard=options.tensorboard)
