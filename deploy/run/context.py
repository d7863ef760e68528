"""What every stage of a run works with: the settings, the data, the networks as far as they are trained."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from deploy.compile.artifact import arithmetic_of, calibration_batch
from deploy.formats.digest import file_digest
from deploy.run.config import Experiment
from deploy.run.folder import Run
from deploy.run.keys import stage_identities
from deploy.run.records import TailRecord
from deploy.run.settings.deployment import Measuring
from deploy.targets.placement import Target, load_target
from hil.boards.catalog import boards_file as found_boards_file
from hil.boards.catalog import find_board
from hil.boards.config import BoardConfig
from hil.job import MeasureProtocol
from nas.data import Dataset, check_split, open_data
from nas.data.batches import images_of
from nas.data.part import Part
from nas.engine.local import Local
from nas.engine.protocol import Engine
from nas.networks.blocks import SuperBlock
from nas.networks.segmenter import Encoder
from nas.networks.start import start_supernets
from nas.quant.safe_resize import safe_steps
from nas.quant.tails import Tail
from nas.space import Architecture, SearchSpace
from nas.tasks.task import TASKS, Task, network
from nas.training.distil import supernets
from nas.training.log import TrainingLog, log_path
from nas.training.train import restore

M = TypeVar("M", bound=nn.Module)
ONE_WORKER = Local()


class Context:
    """One run of one experiment. Networks are loaded from the run's checkpoints when first asked for.

    Attributes:
        experiment: with the tail and the schemes of the board's target where the configuration leaves them open.
        boards_file: the boards.toml that was given or found; None: there is none.
        boards: those of one fleet, which share the measuring; `board` is the first, on which the bundle is verified.
        keys: of each stage, by its name; identities: with the settings behind them.
        target: the rules of the board's `target`: from targets/ beside the boards' file, the user's or those that
            ship; None if it names none.
        target_schemes: whether the experiment's other schemes are those of the target, and not the configuration's.
        resize_factors: the target's safe ones; empty: all.
        arithmetic: the target's, which all expected outputs and NSRs follow.
        engine: what runs the tables' sub-trees; no result depends on it.
        tau: the command line's threshold of the gate before the search; None: the configuration's.
        tensorboard: whether trainings write TensorBoard's event files, into tensorboard/ of the run's folder.

    Before anything is trained, raises `ConfigError` where the target's schemes do not go with the experiment, and
    `QuantizationError` if the target could not enlarge the class map rightly.
    """

    def __init__(
        self,
        experiment: Experiment,
        space: SearchSpace,
        run: Run,
        boards_file: Path | None,
        engine: Engine = ONE_WORKER,
        *,
        tau: float | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.space, self.run = space, run
        self.boards_file = found_boards_file(boards_file)  # an absolute path: workers may be in another folder
        self.engine, self.tau, self.tensorboard = engine, tau, tensorboard
        self.boards = [find_board(self.boards_file, name) for name in experiment.board.split(",")]
        self.board = self.boards[0]
        self.target = self.target_of(self.board)
        self.target_schemes = experiment.quantization.schemes is None
        self.experiment = experiment = experiment.on(self.target)
        self.resize_factors = self.target.safe_resize_factors if self.target else ()
        self.arithmetic = arithmetic_of(self.target)
        if self.resize_factors and self.task.dense:
            height, width = (-(-n // space.output_stride) for n in experiment.data.size)
            safe_steps("upsampled", (height, width), experiment.data.size, self.resize_factors)
        self.identities = stage_identities(experiment, space, self.boards, self.resize_factors, self.arithmetic)
        self.keys = {stage: identity.key for stage, identity in self.identities.items()}

    @property
    def path(self) -> Path:
        return self.run.path

    def target_of(self, board: BoardConfig) -> Target | None:
        """The rules of a board's `target`; None if it names none."""
        beside = self.boards_file.parent / "targets" if self.boards_file else None
        return load_target(beside, board.target) if board.target else None

    @property
    def tail(self) -> Tail:
        """Where full networks end in their files; "auto" is known from its stage on."""
        chosen = (self.experiment.deploy.tail if self.task.dense else None) or "classes"
        return TailRecord.read(self.path / TailRecord.FILE).chosen if chosen == "auto" else chosen

    def reopen_after(self, stage: str) -> None:
        """The stages after `stage` are to be done again, whatever their keys say: what they are built on changes."""
        names = list(self.keys)
        self.run.reopen(names[names.index(stage) + 1 :])

    def training_log(self, checkpoint: Path) -> TrainingLog:
        """The log of the training that fills `checkpoint`, which lies in the run's folder."""
        events = self.path / "tensorboard" / checkpoint.relative_to(self.path).with_suffix("")
        return TrainingLog(log_path(checkpoint), events if self.tensorboard else None)

    @property
    def train_data(self) -> Dataset:
        """The training split without `held_out_data`: all that weights, ranges and tables may depend on."""
        return self._training_parts[0]

    @property
    def held_out_data(self) -> Dataset:
        """Images of the training split that nothing is trained on: what every choice between networks is made by."""
        return self._training_parts[1]

    @cached_property
    def training_split(self) -> Dataset:
        """All of it; training gets `train_data`."""
        data, seed = self.experiment.data, self.experiment.seed
        return open_data(data.spec, "train", data.size, seed=seed, count=data.train, crops=data.crops)

    @cached_property
    def _training_parts(self) -> tuple[Part, Part]:
        return self.experiment.data.split_training(self.training_split)

    @cached_property
    def val_data(self) -> Dataset:
        """For the report alone: no stage before `ship` may open it (`tests/deploy/pipeline/test_no_leaks.py`)."""
        data = self.experiment.data
        return open_data(data.spec, "val", data.size, seed=self.experiment.seed, count=data.val)

    def check_val_data(self) -> tuple[Path, ...]:
        """Refuses a validation split that could not be opened, now and not hours later; its image files, unread."""
        data = self.experiment.data
        return check_split(data.spec, "val", data.size, seed=self.experiment.seed, count=data.val)

    @property
    def task(self) -> Task:
        return TASKS[self.train_data.task]

    @cached_property
    def calibration(self) -> Tensor:
        """Calibration images (N, 3, H, W), from the training split."""
        return calibration_batch(images_of(self.train_data, self.experiment.quantization.calibration_images))

    @cached_property
    def evaluation(self) -> Tensor:
        """Images (N, 3, H, W) that the NSR is computed on: of the training split, others than calibration's."""
        settings = self.experiment.quantization
        images = images_of(self.train_data, settings.evaluation_images, besides=settings.calibration_images)
        return calibration_batch(images)

    def untrained_teacher(self) -> Encoder:
        """MobileNetV2's layers at the space's widths and strides, with the task's head."""
        torch.manual_seed(self.experiment.seed)
        return network(self.train_data, self.space, self.space.teacher_layers, self.experiment.teacher.head)

    def student(self, architecture: Architecture) -> Encoder:
        """An architecture of the space with new random weights."""
        self.space.check(architecture)
        layers = [subnet.choices for subnet in architecture.subnets]
        return network(self.train_data, self.space, layers, self.experiment.teacher.head)

    def untrained_supernets(self) -> nn.ModuleList:
        """Every block's, with new random weights."""
        torch.manual_seed(self.experiment.seed + 1)
        return supernets(self.space)

    def started_supernets(self) -> nn.ModuleList:
        """Every block's, as their distillation starts."""
        started = self.untrained_supernets()
        if self.experiment.distil.start == "teacher":
            start_supernets((block for block in started if isinstance(block, SuperBlock)), self.teacher)
        return started

    @cached_property
    def teacher(self) -> Encoder:
        return self._trained(self.untrained_teacher(), "teacher", "teacher")

    @cached_property
    def supernets(self) -> list[SuperBlock]:
        trained = self._trained(self.untrained_supernets(), "supernets", "distil")
        return [block for block in trained if isinstance(block, SuperBlock)]

    @property
    def supernets_digest(self) -> str:
        """What a table says of the checkpoint that it was made with."""
        return file_digest(self.path / "supernets.pt")

    def _trained(self, model: M, name: str, stage: str) -> M:
        restore(model, self.path / f"{name}.pt", self.keys[stage])
        return model.eval()


def protocol(settings: Measuring) -> MeasureProtocol:
    return MeasureProtocol(warmup_runs=settings.warmup_runs, runs=settings.runs, rounds=settings.rounds)
