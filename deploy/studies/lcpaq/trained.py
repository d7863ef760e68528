"""The small classifier of the studies of LCPAQ: a seed, its data, its training, its deployed accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from deploy.formats.digest import digest
from deploy.run.config import Overrides, load_experiment
from nas.data import Dataset, open_data
from nas.data.batches import images_of
from nas.data.part import held_out
from nas.lcpaq.policy import Policy, applied, policy_of
from nas.networks.segmenter import Encoder
from nas.quant.float_graph import Node
from nas.quant.post_training import quantize
from nas.quant.scheme import Granularity, Scheme
from nas.tasks.task import fold, network, score_integer, training_loss
from nas.training.train import train

CONFIG = Path("demo-shapes")
TRAINED_ON, SCORED_ON, VALIDATION, CALIBRATION = 4096, 8192, 8192, 32


@dataclass(frozen=True, eq=False)
class Trained:
    """A seed's classifier with its data; training images come in (those seen, those that policies are scored on)."""

    seed: int
    folder: Path
    steps: int

    @cached_property
    def train(self) -> Dataset:
        return self._open("train", (32, 32))

    @cached_property
    def val(self) -> Dataset:
        return open_data("shapes", "val", (32, 32), seed=self.seed, count=VALIDATION)

    def _open(self, split: str, size: tuple[int, int]) -> Dataset:
        return open_data("shapes", split, size, seed=self.seed, count=TRAINED_ON + SCORED_ON)

    def parts(self, size: tuple[int, int]) -> tuple[Dataset, Dataset]:
        return held_out(self._open("train", size), SCORED_ON)

    @cached_property
    def model(self) -> Encoder:
        experiment, space = load_experiment(CONFIG, Overrides())
        torch.manual_seed(self.seed)
        seen, _ = self.parts((32, 32))
        model = network(seen, space, space.teacher_layers, experiment.teacher.head)
        schedule = replace(experiment.teacher.schedule, steps=self.steps)
        loss = training_loss(model, seen, schedule.batch_size, self.seed)
        for _ in train(model, loss, schedule, self.folder / f"teacher-{self.seed}.pt", self.key):
            pass
        return model.eval()

    @property
    def key(self) -> str:
        return digest("lcpaq experiment", self.seed, self.steps, TRAINED_ON, SCORED_ON)

    @cached_property
    def nodes(self) -> list[Node]:
        return fold(self.model, (32, 32))

    def images(self) -> Tensor:
        return torch.cat(list(images_of(self.parts((32, 32))[0], CALIBRATION)))

    def score(self, policy: Policy, granularity: Granularity, data: Dataset) -> float:
        """The deployed integers' accuracy in percent."""
        nodes = applied(self.nodes, policy)
        return score_integer(quantize(nodes, [self.images()], (32, 32, 3), Scheme(granularity)), data)

    def uniform(self, bits: int, ends: int | None = None) -> Policy:
        """The same width everywhere; the first and the last layer at `ends`, if given."""
        names = list(policy_of(self.nodes).bits)
        policy = dict.fromkeys(names, bits)
        return Policy(policy if ends is None else {**policy, names[0]: ends, names[-1]: ends})
