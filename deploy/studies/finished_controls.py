"""What compare-search retrained beside a run's models, without and with quantization-aware steps.

Models that have such steps are compared with it then by the same recipe. A comparison that took none goes on from its
retrained weights.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from deploy.compare.records import ComparisonRecord, RetrainedRecord
from deploy.compare.setup import started
from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.networks import finished_at, finishing
from deploy.run.records import Record
from deploy.ship.evaluation import counted_on
from deploy.studies.finish import BESIDE, STAGE, check_steps, evaluated
from hil.errors import UsageError
from nas.settings import STRICT
from nas.space import Architecture
from nas.tasks.confusion import Confusion
from nas.training.train import restore


@dataclass(frozen=True)
class FinishedControl:
    """A method's winner: its score in percent without and with the steps, and what the latter is of.

    Attributes:
        budget: that it was compared under; retrained: its record's key.
    """

    budget: str
    method: str
    subnet: str
    retrained: str
    plain_score: float
    finished_score: float
    finished: tuple[Confusion, ...]
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class FinishedControls(Record):
    """`metric`: of the scores; `steps`: quantization-aware ones."""

    metric: str
    steps: int
    winners: tuple[FinishedControl, ...]

    FILE: ClassVar[str] = "compare/finished.json"
    COMMAND: ClassVar[str] = "study finish --compared"


def finished_controls(context: Context, budgets: Sequence[str]) -> Iterator[Progress]:
    """compare/finished.json, of each winner's first retraining. Killed at any moment, it goes on.

    Raises `UsageError` for a budget without a comparison, and for an experiment without such steps.
    """
    steps = check_steps(context)
    compared = {budget: _compared(context, budget) for budget in budgets}
    found: list[FinishedControl] = []
    for budget, record in compared.items():
        for method in record.methods:
            name = f"{budget}: {method.method}"
            plain = RetrainedRecord.read(context.path / "compare" / "retrained" / f"{method.retrained[0]}.json")
            yield Progress(STAGE, 0, 1, name)
            without, with_them = yield from _both(context, name, plain, method.retrained[0])
            before, after = (counted_on(context.val_data, one).score for one in (without, with_them))
            found.append(
                FinishedControl(budget, method.method, plain.subnet, method.retrained[0], before, after, with_them)
            )
            yield Progress(STAGE, 1, 1, f"{name}: {before:.2f} % without, {after:.2f} % with")
    FinishedControls(context.task.metric, steps, tuple(found)).write(context.path / FinishedControls.FILE)


def _compared(context: Context, budget: str) -> ComparisonRecord:
    path = context.path / "compare" / f"{budget}.json"
    if not path.exists():
        raise UsageError(f"--compared {budget}: {path} is not there; run hilnas compare-search --budget {budget} first")
    return ComparisonRecord.read(path)


def _both(
    context: Context, name: str, record: RetrainedRecord, retrained: str
) -> Generator[Progress, None, tuple[tuple[Confusion, ...], tuple[Confusion, ...]]]:
    """Without and with the steps; one of both is what the comparison evaluated, by whether it took them itself."""
    architecture = Architecture.parse(record.subnet)
    weights = context.path / "compare" / "retrained" / f"{retrained}.pt"
    model = started(context, architecture)
    restore(model, weights)
    if weights.with_suffix(".finish.pt").exists():
        return evaluated(context, model, architecture), record.confusions
    checkpoint = weights.with_name(f"{retrained}{BESIDE}.finish.pt")
    key = digest(retrained, settings_of(context.experiment.retrain))
    for step in finishing(context, model, architecture, checkpoint, key):
        yield Progress(STAGE, step.step, step.steps, f"{name}: loss {step.loss:.3f}")
    restore(model.cpu(), weights)
    finished_at(context, model, architecture, checkpoint)
    return record.confusions, evaluated(context, model, architecture)
