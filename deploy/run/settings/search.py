"""How models are found: the settings [search], [predictor] and [compare]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from deploy.run.settings.training import Retrain
from nas.errors import ConfigError
from nas.settings import STRICT
from nas.training.train import Schedule

EstimateName: TypeAlias = Literal["nsr", "channels", "blocks", "weighted"]


@dataclass(frozen=True)
class Search:
    """How models are selected before they are retrained.

    Attributes:
        estimate: the sum over blocks that is minimised exactly (`deploy.search.estimates`).
        candidates: how many of the least sums under a budget are assembled and ranked by how far their integers'
            outputs are from the teacher's (`deploy.search.ranking`); 0: the sum decides.
        measured: of the best models under a budget of latency, how many are compiled and measured whole, beside the
            teacher, before one is selected (`deploy.search.confirm`); 0: the latency table alone decides.
        rounds: how often that is done at most, each time after what was measured has corrected the table.
        finalists: how many of the best are fine-tuned briefly, the best of them to be retrained
            (`deploy.search.halving`); 0: none.
        finalist_schedule: of that fine-tuning; None: the retraining's with a fifth of its steps.
    """

    estimate: EstimateName = "nsr"
    candidates: int = 0
    measured: int = 4
    rounds: int = 4
    finalists: int = 0
    finalist_schedule: Schedule | None = None
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if min(self.candidates, self.finalists, self.measured) < 0 or self.rounds < 1:
            raise ConfigError("search: candidates, measured and finalists must be 0 (off) or more, rounds 1 or more")


@dataclass(frozen=True)
class Predictor:
    """The accuracy predictor (`deploy.search.predictor`).

    Attributes:
        models: how many are fine-tuned; DONNA (arXiv 2012.08859) takes about 30.
        schedule: of a fine-tuning; None: the retraining's with a fifth of its steps.
        order: 1 is additive and searched exactly; 2 has squares and products too, and ranks candidates anew.
        neighbours: how many candidates under each budget are ranked anew.
        objective: whether the loop's search goes by it, instead of the NSR sum.
    """

    models: int = 30
    schedule: Schedule | None = None
    order: Literal[1, 2] = 2
    neighbours: int = 200
    objective: bool = False
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.models < 5 or self.neighbours < 1:
            raise ConfigError("predictor: models must be at least 5 (each is predicted by the others), neighbours 1")


@dataclass(frozen=True)
class Compare:
    """How rivals of the block-wise search are trained, searched and retrained (`deploy.compare.compare_search`).

    Attributes:
        supernet: the whole-network supernets' training; None: the teacher's. Its steps count paths: a step of FairNAS
            trains one path for each choice of a layer, and takes so many fewer.
        start: from the teacher's weights, as the blocks may, or from new random ones.
        evaluations: architectures that evolution or random search evaluates.
        population: of evolution, in each generation.
        parents: of the next generation, the best of all so far.
        random_blocks: random architectures within the budget that are retrained beside the winners.
        retrain: of every winner and control; None: as the selected models'.
        retrainings: how often, each with another seed: a smaller difference than theirs is no difference.
    """

    supernet: Schedule | None = None
    start: Literal["teacher", "random"] = "teacher"
    evaluations: int = 100
    population: int = 20
    parents: int = 5
    random_blocks: int = 3
    retrain: Retrain | None = None
    retrainings: int = 1
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        counts = (self.evaluations, self.population, self.parents, self.random_blocks, self.retrainings)
        if min(counts) < 1:
            raise ConfigError(
                "compare: evaluations, population, parents, random_blocks and retrainings must be positive"
            )
