"""An experiment: everything a run depends on, read strictly from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from deploy.compile.scheme import QuantizationScheme
from deploy.run.assignments import assigned
from deploy.run.settings.deployment import Agreement, Budget, Deploy, Profile, Quantization
from deploy.run.settings.search import Compare, Predictor, Search
from deploy.run.settings.training import Data, Distil, Retrain, Teacher
from deploy.run.shipped import CONFIGURATIONS, load_space
from deploy.targets.placement import Target
from nas.errors import ConfigError
from nas.quant.tails import TailChoice
from nas.settings import STRICT, build, read_toml
from nas.space import SearchSpace
from nas.training.device import FLOAT32, Compute, DeviceName


@dataclass(frozen=True)
class Experiment:
    """A run and what it depends on.

    Attributes:
        name: of the run, whose folder is runs/NAME.
        space: a space's name, or a path relative to the configuration file; its content counts in keys, as the
            boards' does, not the names.
        budgets: one model is selected for each.
        board: an entry of boards.toml; several of one fleet are joined by commas.
        seed: of all that is random.
    """

    name: str
    space: str
    data: Data
    teacher: Teacher
    distil: Distil
    retrain: Retrain
    budgets: tuple[Budget, ...]
    quantization: Quantization = Quantization()
    deploy: Deploy = Deploy()
    profile: Profile = Profile()
    agreement: Agreement = Agreement()
    compute: Compute = FLOAT32
    search: Search = Search()
    predictor: Predictor = Predictor()
    compare: Compare = Compare()
    board: str = "loopback"
    seed: int = 0
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"name", "space", "board", "compare"})
    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if len({budget.name for budget in self.budgets}) != len(self.budgets) or not self.budgets:
            raise ConfigError("budgets: give at least one, and no name twice")
        if self.quantization.schemes and self.profile.form != "isolated":
            raise ConfigError(
                f"profile.form '{self.profile.form}': other schemes are measured as isolated blocks; leave it out, or "
                "set quantization.schemes = []"
            )
        if self.predictor.objective and self.quantization.schemes:
            raise ConfigError(
                "predictor.objective: it is fitted on models of one scheme; leave it out, or set "
                "quantization.schemes = []"
            )

    @property
    def confirms(self) -> bool:
        """Whether the search measures candidates whole: budgets of size are exact."""
        return bool(self.search.measured) and any(budget.latency is not None for budget in self.budgets)

    def on(self, target: Target | None) -> Experiment:
        """With the tail and the schemes of the board's target, where the configuration leaves them open.

        Raises `ConfigError` naming the target where a scheme is none, or does not go with other settings.
        """
        if self.deploy.tail is None:
            tail: TailChoice = (target.tail if target else None) or "classes"
            return replace(self, deploy=replace(self.deploy, tail=tail)).on(target)
        own, named = self.quantization, target.schemes if target else ()
        if own.schemes is not None:
            return self
        try:
            others = [str(scheme) for scheme in map(QuantizationScheme.parse, named) if scheme != own.main_scheme]
            return replace(self, quantization=replace(own, schemes=tuple(others)))
        except ConfigError as error:
            whose = f"target '{target.name}'" if target else "no target"
            raise ConfigError(
                f"schemes {', '.join(named)} of {whose} (quantization.schemes is unset): {error}"
            ) from None


@dataclass(frozen=True)
class Overrides:
    """What the command line may change in a configuration; None leaves it as it is."""

    data: str | None = None
    encoder_from: str | None = None
    board: str | None = None
    name: str | None = None
    device: DeviceName | None = None
    models: int | None = None
    budget: str | None = None
    seed: int | None = None
    settings: tuple[str, ...] = ()  # as `deploy.run.assignments` reads them


def load_experiment(path: str | Path, overrides: Overrides) -> tuple[Experiment, SearchSpace]:
    """The experiment of a configuration (its file, or a name) and its space, with the command line's changes.

    Raises `ConfigError` for a missing file, an unknown key (naming the near miss) or a wrong value.
    """
    path = CONFIGURATIONS.find(path)
    settings = assigned(read_toml(path), overrides.settings)
    _refuse_former_keys(settings, str(path))
    experiment = build(Experiment, settings, str(path))
    space = load_space(experiment.space, path.parent)
    rates = len(experiment.distil.learning_rates)
    if rates not in (1, len(space.blocks)):
        raise ConfigError(f"{path}: distil.learning_rates has {rates} entries, the space {len(space.blocks)} blocks")
    for budget in experiment.budgets:
        _check_bits(budget, space, experiment.predictor.objective, str(path))
    if overrides.data:
        experiment = replace(experiment, data=replace(experiment.data, spec=overrides.data))
    if overrides.encoder_from:
        experiment = replace(experiment, teacher=replace(experiment.teacher, encoder_from=overrides.encoder_from))
    if overrides.models is not None:
        experiment = replace(experiment, agreement=replace(experiment.agreement, models=overrides.models))
    if overrides.budget is not None:
        experiment = replace(experiment, profile=replace(experiment.profile, budget=overrides.budget))
    if overrides.seed is not None:
        experiment = replace(experiment, seed=overrides.seed)
    if overrides.device:
        experiment = replace(experiment, compute=replace(experiment.compute, device=overrides.device))
    return replace(experiment, board=overrides.board or experiment.board, name=overrides.name or experiment.name), space


def _check_bits(budget: Budget, space: SearchSpace, predicted: bool, where: str) -> None:
    if budget.bits is None:
        return
    if not budget.bits or not set(budget.bits) <= set(space.bits):
        there = ", ".join(map(str, space.bits))
        raise ConfigError(f"{where}: budget '{budget.name}': bits {list(budget.bits)}: the space has {there}")
    if predicted:
        raise ConfigError(f"{where}: budget '{budget.name}': the predictor knows no widths; leave out its bits")


FORMER_KEYS = {("quantization", "alternatives"): "schemes"}
"""By section and key what a key is called now."""


def _refuse_former_keys(settings: Mapping[str, Any], where: str) -> None:
    for (section, former), name in FORMER_KEYS.items():
        written = settings.get(section)
        if isinstance(written, dict) and former in written:
            raise ConfigError(f"{where}: '{section}.{former}' is called '{section}.{name}' now; rename it")
