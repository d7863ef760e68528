"""Is a bundle at least as good as the one in use? Metric, latency, size, placement and budgets in one verdict.

Each is worse only where more than chance says so: the paired interval of the metric lies below what may be lost, two
interleaved comparisons find the model slower (`deploy.regression`); size, placement and budgets are exact.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.formats.digest import file_digest
from deploy.formats.tflite.read import read
from deploy.formats.verdicts import CaseVerdict, Status, VerdictReport
from deploy.regression.regress import Bench, Outcome, check_rounds, in_turns
from deploy.regression.report import outcome_text
from deploy.run.folder import Progress
from deploy.ship.evaluate import Finished, compared, evaluate, evaluation_folder
from deploy.ship.evaluated_models import ImagesAsked, file_model
from deploy.ship.evaluation import BOARD
from deploy.ship.manifest import Manifest
from deploy.ship.verification import checked
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import Target, lint
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import CheckFailed, Incomparable, ModelError, UsageError
from hil.measure import MeasureProtocol
from hil.measurement import Conditions
from hil.sessions import open_session
from hil.stats import milliseconds
from hil.store import Store

HEAD = ("check", "", "baseline", "candidate", "difference")
WORDS: Mapping[Status, str] = {"ok": "ok", "regressed": "WORSE", "failed": "FAILS", "incomparable": "not compared"}


@dataclass(frozen=True)
class ShippedModel:
    """A bundle that was unpacked; `name` is its manifest's."""

    folder: Path
    manifest: Manifest

    @classmethod
    def of(cls, folder: Path, shown: Path) -> ShippedModel:
        """Raises UsageError, ModelError for a bundle that is not whole."""
        return cls(folder, checked(folder, shown))

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def model(self) -> Path:
        return self.folder / self.manifest.model

    def artifact(self) -> Artifact:
        if not self.manifest.golden:
            raise UsageError(f"{self.name}: it has no golden pair; make it again with `hilnas bundle export`")
        pair = self.manifest.golden[0]
        return Artifact(self.name, self.model, self.folder / pair.input, self.folder / pair.output)


@dataclass(frozen=True)
class Allowed:
    """What a candidate may lose: a share of latency and size, points of the metric."""

    share: float
    points: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not self.points >= 0:
            raise UsageError(
                f"--threshold {self.share:g}, --points {self.points:g}: give a share above 0, at most 1 (0.05: 5 %), "
                "and points from 0"
            )


@dataclass(frozen=True)
class PromotionTrial:
    """Where and how two bundles are compared.

    Attributes:
        target: of the board; None: it names none, and its rules of placement are not known.
        protocol: with a new series.
        out: the folder of evaluations and measurements.
    """

    board: BoardConfig
    target: Target | None
    images: ImagesAsked
    protocol: MeasureProtocol
    allowed: Allowed
    out: Path

    def __post_init__(self) -> None:
        check_rounds(self.protocol)


@dataclass(frozen=True)
class Promotion:
    """The checks of a candidate against a baseline, in the order of the table."""

    candidate: str
    baseline: str
    board: str
    conditions: Conditions
    checks: tuple[CaseVerdict, ...]

    def report(self) -> VerdictReport:
        odd = [f"{check.name} {WORDS[check.status]}" for check in self.checks if check.status != "ok"]
        title = f"{self.candidate} against {self.baseline} on {self.board}: {', '.join(odd) or 'not worse'}"
        return VerdictReport("promote", self.board, title, HEAD, 2, self.checks, self.conditions.to_json())


def promote(
    candidate: ShippedModel, baseline: ShippedModel, trial: PromotionTrial
) -> Generator[Progress, None, Promotion]:
    """Measure both on the board. Raises UsageError, BoardError, DataError, ModelError for files that are no models.

    What fails there, and what does not compare, is in the checks (`conclude`); an evaluation that was stopped goes on.
    Two bundles of one model file differ in nothing that is measured.
    """
    if file_digest(candidate.model) == file_digest(baseline.model):
        checks = [_check(name, "ok", "", "", "the same model", "") for name in ("metric", "latency", "placement")]
        with open_board(trial.board) as board, open_session(board) as session:
            conditions = session.conditions
    else:
        checks = [(yield from _metric(candidate, baseline, trial))]
        with (
            open_board(trial.board) as board,
            open_session(board) as session,
            Store(trial.out / "measurements.sqlite") as store,
        ):
            conditions, bench = session.conditions, Bench(session, store, trial.protocol)
            yield Progress("promote", 0, 1, "latency, in turns")
            outcome = in_turns(bench, baseline.artifact(), candidate.artifact(), trial.allowed.share)
            measured = [m for m in store.all() if m.status == "ok" and m.conditions.key() == conditions.key()]
        on_cpu = {m.model_sha256: len(m.cpu_operators) for m in measured}
        checks += [latency_check(outcome), _placement(candidate, baseline, trial.target, on_cpu)]
    checks.append(size_check(candidate.model.stat().st_size, baseline.model.stat().st_size, trial.allowed.share))
    checks += budget_checks(candidate.manifest)
    yield Progress("promote", 1, 1, "done")
    return Promotion(candidate.name, baseline.name, trial.board.name, conditions, tuple(checks))


def conclude(promotion: Promotion) -> None:
    """Raises ModelError where a model fails, CheckFailed where the candidate is worse, Incomparable for gaps."""
    for status, error in (("failed", ModelError), ("regressed", CheckFailed), ("incomparable", Incomparable)):
        found = [check for check in promotion.checks if check.status == status]
        if found:
            said = "; ".join(f"{check.name}: {check.text}" for check in found)
            raise error(f"{promotion.candidate} is not promoted: {said}")


def _metric(
    candidate: ShippedModel, baseline: ShippedModel, trial: PromotionTrial
) -> Generator[Progress, None, CaseVerdict]:
    found: list[Finished] = []
    for one in (candidate, baseline):
        try:
            model, data = file_model(one.model, trial.images, name=one.name)
        except ModelError as error:
            raise ModelError(f"{one.name}: {error}") from None
        folder = evaluation_folder(trial.out, model, trial.images, trial.board)
        found.append((yield from evaluate(model, data, trial.images, trial.board, folder)))
    return metric_check(found[0], found[1], trial.allowed.points)


def metric_check(ours: Finished, theirs: Finished, points: float) -> CaseVerdict:
    """By the board's own answers, on the images that both have."""
    name = ours.record.metric.name
    scores = [one.record.score(BOARD) for one in (theirs, ours)]
    shown = [f"{one.score.value:.2f} %" if one else "" for one in scores]
    failed = next((one.record.failed[0] for one in (ours, theirs) if one.record.failed), None)
    if failed:
        return _check(name, "failed", *shown, "", f"the board fails on {failed.image}: {failed.reason}")
    difference = next((o.points for o in compared(ours, theirs) if o.predictor == BOARD), None)
    if difference is None:
        return _check(name, "incomparable", *shown, "", "the board scored only one of them")
    text = f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}] points"
    status: Status = "regressed" if difference.high < -points else "ok"
    return _check(name, status, *shown, text, f"{text} over {difference.n} images, at most -{points:g} allowed")


def latency_check(outcome: Outcome) -> CaseVerdict:
    c = outcome.second or outcome.first
    shown = [f"{milliseconds(us)} ms" for us in (c.base_us, c.head_us)] if c else ["", ""]
    text = f"ratio {c.ratio:.3f} [{c.ci95[0]:.3f}, {c.ci95[1]:.3f}]" if c else ""
    seconds = c.head_us / 1e6 if c else None
    return _check("latency", outcome.status, *shown, text, outcome_text(outcome), seconds=seconds)


def size_check(ours: int, theirs: int, share: float) -> CaseVerdict:
    """Of the model's file, in bytes."""
    status: Status = "regressed" if ours > theirs * (1 + share) else "ok"
    shown = [f"{size / 1000:.1f} kB" for size in (theirs, ours)]
    return _check("size", status, *shown, f"{ours / theirs - 1:+.1%}", f"{ours} bytes, at most {share:+.1%} allowed")


@dataclass(frozen=True)
class PlacedOperators:
    """Where a model runs: operators that the delegate left to the CPU, and of a target's rules errors and share."""

    on_cpu: int
    errors: int = 0
    off_share: float = 0.0


def _placement(
    candidate: ShippedModel, baseline: ShippedModel, target: Target | None, on_cpu: Mapping[str, int]
) -> CaseVerdict:
    placed = []
    for one in (baseline, candidate):
        found = lint(inspect_model(read(one.model)), target, allowed_share=1.0) if target else None
        counted = on_cpu.get(file_digest(one.model), 0)
        placed.append(
            PlacedOperators(counted, len(found.errors), found.off_share) if found else PlacedOperators(counted)
        )
    return placement_check(placed[1], placed[0], target)


def placement_check(ours: PlacedOperators, theirs: PlacedOperators, target: Target | None) -> CaseVerdict:
    shown = [
        f"{one.on_cpu} left to the CPU" + (f", {one.off_share:.1%} off {target.fast_place}" if target else "")
        for one in (theirs, ours)
    ]
    worse = ours.on_cpu > theirs.on_cpu or ours.errors > 0 or ours.off_share > theirs.off_share
    errors = f"; {ours.errors} operators are wrong or refused there" if ours.errors else ""
    whose = f"by the rules of {target.name}" if target else "the board names no target, so no rules are known"
    return _check("placement", "regressed" if worse else "ok", *shown, "", f"{shown[1]}, {whose}{errors}")


def budget_checks(manifest: Manifest) -> Iterator[CaseVerdict]:
    """The candidate's own, as they were measured when it was made."""
    for budget in manifest.budgets:
        share = f"{budget.share.value:.1%} [{budget.share.low:.1%}, {budget.share.high:.1%}]"
        text = f"{budget.quantity} {share} of the teacher's, at most {budget.limit:.1%}"
        status: Status = "ok" if budget.kept else "regressed"
        yield _check(f"budget {budget.name}, {budget.quantity}", status, f"{budget.limit:.1%}", share, "", text)


def _check(name: str, status: Status, *cells: str, seconds: float | None = None) -> CaseVerdict:
    """`cells`: baseline, candidate, difference, then what there is to say."""
    *shown, text = cells
    return CaseVerdict(name, (name, WORDS[status], *shown), text, status, remark=status != "ok", seconds=seconds)
