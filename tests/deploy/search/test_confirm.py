"""Budgets of latency are kept by measurement: on a made-up board whose full models are not what the table says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import pytest

from deploy.compile.scheme import QuantizationScheme
from deploy.latency.table import measured_as
from deploy.pipeline.loop import loop
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.models import quantized_teacher
from deploy.run.records import AgreementRecord, SearchRecord
from deploy.run.settings.search import Search as SearchSettings
from deploy.search import confirm, side_by_side
from deploy.search.candidate import Candidate
from deploy.search.confirm import AskedBudget
from deploy.search.cost_tables import CONFIRMED, cost_tables_of_run
from deploy.search.ranking import ranked
from deploy.search.side_by_side import MeasuredModel, SideBySide
from deploy.ship.preprocessing import input_type
from hil.errors import CheckFailed
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.search.union import CostTables
from nas.space import Architecture
from nas.table import Table
from tests.deploy.tiny_experiment import (
    CONFIRM_ROUNDS,
    REPOSITORY,
    arguments,
    finished_run,
    stored,
    write_experiment,
)

T = TypeVar("T")
CHANNEL, UINT8 = QuantizationScheme("channel"), QuantizationScheme("tensor", "uint8")
WIDTH = 0.01  # half of an interval, as a share of the teacher's latency


@dataclass(eq=False)
class MadeUpBoard:
    """Measures each full model as `share_of` says; `sessions`: what was measured together, with the limits given."""

    share_of: Callable[[Architecture], float | None]
    sessions: list[Mapping[Candidate, Sequence[float]]] = field(default_factory=list)

    def measured_beside(
        self, context: object, teacher: object, wanted: Mapping[Candidate, Sequence[float]], check: object
    ) -> Generator[Progress, None, SideBySide]:
        self.sessions.append(dict(wanted))
        yield Progress("search", 0, 1)
        return SideBySide({candidate: self.measured(candidate) for candidate in wanted}, 1.0, 4)

    def measured(self, candidate: Candidate) -> MeasuredModel:
        share = self.share_of(candidate.architecture)
        if share is None:
            return MeasuredModel(failure="no output")
        return MeasuredModel(Estimate(share, None, share - WIDTH, share + WIDTH, 4, "measured"), (share, share))

    @property
    def measured_models(self) -> list[Candidate]:
        return [candidate for session in self.sessions for candidate in session]


@dataclass(eq=False)
class Bench:
    """A finished run; tables that predict a latency for each model, and what is asked."""

    context: Context
    tables: CostTables
    teacher_us: float

    def predicted(self, architecture: Architecture) -> float:
        """As a share of the teacher's latency."""
        return self.tables.total("latency", architecture) / self.teacher_us

    def executed(self, candidate: Candidate) -> Architecture:
        """What runs: 4 bits as 8."""
        return Architecture(tuple(measured_as(self.context.space, s) for s in candidate.architecture.subnets))

    def distinct(self, candidates: Iterable[Candidate]) -> list[Architecture]:
        """What runs of them, in their order."""
        return list(dict.fromkeys(map(self.executed, candidates)))

    def budget(self, share: float, name: str = "fast", **limits: float) -> AskedBudget:
        return AskedBudget(name, {"latency": share * self.teacher_us, **limits}, share)

    def best(self, budget: AskedBudget) -> list[Candidate]:
        """All that the table says fit, best first."""
        return _ended(ranked(self.context, [self.tables], budget.limits, 100))

    def confirmed(self, *budgets: AskedBudget) -> confirm.Confirmed:
        teacher = None  # the made-up board has its own
        rank = partial(ranked, self.context)
        return _ended(confirm.confirmed(self.context, [self.tables], budgets, teacher, rank))  # type: ignore[arg-type]

    def asking(self, **settings: int) -> Bench:
        """With other settings of [search]."""
        self.context.experiment = replace(self.context.experiment, search=SearchSettings(**settings))
        return self


def _ended(steps: Generator[Progress, None, T]) -> T:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


@contextmanager
def opened(folder: Path, config: Path) -> Iterator[Context]:
    experiment, space = load_experiment(config, Overrides())
    with Run(folder) as run_folder:
        yield Context(experiment, space, run_folder, REPOSITORY / "boards.toml")


def slower_is_better(latency: Table) -> Table:
    """NSRs by which the best model within a budget of latency is the slowest one, with 8 bits."""
    most = max(entry.value for entry in latency.entries.values())
    entries = {s: Estimate.exact(most - latency[s] + 0.001 * (8 - s.bits)) for s in latency.entries}
    return Table("nsr", "ratio", entries, {"space": latency.provenance["space"]})


@pytest.fixture
def bench(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path)
    with opened(folder, finished.config) as context:
        (tables,) = cost_tables_of_run(folder)
        tables = replace(tables, tables={**tables.tables, "nsr": slower_is_better(tables.tables["latency"])})
        yield Bench(context, tables, AgreementRecord.read(folder / AgreementRecord.FILE).teacher_us)


def on_board(monkeypatch: pytest.MonkeyPatch, share_of: Callable[[Architecture], float | None]) -> MadeUpBoard:
    board = MadeUpBoard(share_of)
    monkeypatch.setattr(confirm, "measured_beside", board.measured_beside)
    return board


def middle(bench: Bench) -> AskedBudget:
    """A budget that the slower half of the models is over by the table, and the best of the others just keeps."""
    shares = sorted(bench.predicted(a) for a in bench.distinct(bench.best(bench.budget(100.0))))
    return bench.budget(shares[len(shares) // 2] + 0.0001)


def test_a_table_that_is_right_is_asked_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all models are well within the budget, the first few are measured, and the best of them is taken."""
    board = on_board(monkeypatch, lambda a: bench.predicted(a) - 2 * WIDTH)
    budget = bench.budget(100.0)
    found = bench.confirmed(budget)
    assert [len(session) for session in board.sessions] == [4]
    first = bench.distinct(bench.best(budget))[:4]
    assert found.candidates["fast"] == [c for c in bench.best(budget) if bench.executed(c) in first]
    assert found.record is not None and len(found.record.rounds) == 1
    assert all(c.kept and c.share is not None for c in found.record.budgets[0].candidates)


def test_a_model_over_the_budget_is_not_selected_and_the_search_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full models take 5 % of the teacher's latency more than the table says: the first is over, a later one is not."""
    board = on_board(monkeypatch, lambda a: 0.05 + bench.predicted(a))
    budget = middle(bench)
    found = bench.asking(measured=1, rounds=8).confirmed(budget)
    assert budget.share is not None
    first = next(iter(board.sessions[0]))
    assert first == bench.best(budget)[0] and first not in found.candidates["fast"]
    keeping = [
        c for c in bench.best(bench.budget(100.0)) if 0.05 + bench.predicted(c.architecture) + WIDTH <= budget.share
    ]
    assert found.candidates["fast"][0] == keeping[0], "not the best of all that keep it"
    assert len(board.sessions) > 1 and len(bench.distinct(board.measured_models)) == len(board.measured_models)
    assert found.record is not None
    (confirmed_budget,) = found.record.budgets
    assert {c.round for c in confirmed_budget.candidates} > {1}
    assert not next(c for c in confirmed_budget.candidates if c.subnet == str(first.architecture)).kept


def test_a_table_that_is_too_cautious_is_asked_for_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full models take 10 % of the teacher's latency less than the table says: better ones than it allows are found."""
    on_board(monkeypatch, lambda a: bench.predicted(a) - 0.1)
    budget = middle(bench)
    found = bench.confirmed(budget)
    assert found.candidates["fast"][0].estimate < bench.best(budget)[0].estimate


def test_the_interval_decides_not_the_median(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = middle(bench)
    assert budget.share is not None
    limit, first = budget.share, bench.best(budget)[0]
    ends = bench.executed(first)
    board = on_board(
        monkeypatch,
        lambda a: limit - WIDTH / 2 if bench.predicted(a) == bench.predicted(ends) else bench.predicted(a) - 2 * WIDTH,
    )
    found = bench.confirmed(budget)
    assert found.candidates["fast"] and ends not in bench.distinct(found.candidates["fast"])
    assert len(bench.distinct(board.measured_models)) == len(board.measured_models), "measured once, and not again"


def test_a_budget_that_no_measured_candidate_keeps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = on_board(monkeypatch, lambda a: 0.5 + bench.predicted(a))
    budget = middle(bench)
    with pytest.raises(CheckFailed, match="budget 'fast' is a budget that no measured candidate keeps") as caught:
        bench.confirmed(budget)
    least = min(0.5 + bench.predicted(c.architecture) for c in board.measured_models)
    assert least > (budget.share or 0.0)
    assert caught.value.exit_code == 1
    said = str(caught.value)
    for words in (f"{budget.share:.3f} of the teacher's", f"{least:.3f} [{least - WIDTH:.3f}", "[search] measured"):
        assert words in said
    assert len(board.sessions) <= 4


def test_a_budget_without_a_model_leaves_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on_board(monkeypatch, lambda a: 0.5 + bench.predicted(a))
    slow, impossible = replace(middle(bench), name="slow"), bench.budget(0.01, "impossible")
    found = bench.confirmed(impossible, slow, bench.budget(100.0))
    assert list(found.candidates) == ["fast"] and set(found.missed) == {"impossible", "slow"}
    assert "is below the smallest model's" in found.missed["impossible"]
    assert "no measured candidate keeps" in found.missed["slow"]
    assert found.record is not None
    candidates = {budget.name: budget.candidates for budget in found.record.budgets}
    assert not candidates["impossible"] and not any(one.kept for one in candidates["slow"])
    with pytest.raises(ConfigError, match="budget 'impossible'"):
        bench.confirmed(impossible, slow)


def test_a_model_that_fails_on_the_board_is_left_out_and_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = bench.budget(100.0)
    best = bench.best(budget)
    first, second = bench.distinct(best)[:2]
    on_board(monkeypatch, lambda a: None if a == first else 0.5)
    found = bench.confirmed(budget)
    assert bench.executed(found.candidates["fast"][0]) == second and found.record is not None
    failed = found.record.budgets[0].candidates[0]
    assert (failed.subnet, failed.failure, failed.kept) == (str(first), "no output", False)
    assert failed.share is None and failed.measured_us is None


def test_a_budget_of_size_is_exact_and_measures_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = on_board(monkeypatch, lambda _: 0.5)
    sizes = [bench.tables.total("size", c.architecture) for c in bench.best(bench.budget(100.0))]
    small = AskedBudget("small", {"size": sorted(sizes)[len(sizes) // 2]}, None)
    found = bench.confirmed(small)
    assert not board.sessions and found.record is None and found.tables[0] is bench.tables
    best = found.candidates["small"][0]
    assert bench.tables.total("size", best.architecture) <= small.limits["size"]
    both = bench.budget(100.0, "small", **small.limits)
    assert bench.confirmed(both).candidates["small"][0] == best and board.sessions


def test_a_budget_may_have_widths_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on_board(monkeypatch, lambda _: 0.5)
    size = {"size": max(bench.tables.total("size", c.architecture) for c in bench.best(bench.budget(100.0)))}
    budgets = {
        "any": AskedBudget("any", size, None),
        "eight": AskedBudget("eight", size, None, (8,)),
        "four": replace(bench.budget(100.0, "four"), bits=(4,)),
    }
    found = bench.confirmed(*budgets.values())
    widths = {name: {s.bits for c in found.candidates[name] for s in c.architecture.subnets} for name in budgets}
    assert widths == {"any": {4, 8}, "eight": {8}, "four": {4}}
    within = [c for c in bench.best(budgets["any"]) if {s.bits for s in c.architecture.subnets} == {8}]
    assert found.candidates["eight"][0] == within[0]


def test_budgets_share_sessions_and_a_model_is_measured_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = on_board(monkeypatch, lambda a: bench.predicted(a) - 2 * WIDTH)
    found = bench.confirmed(bench.budget(100.0, "fast"), bench.budget(50.0, "faster"))
    (session,) = board.sessions
    assert list(session.values()) == [[100.0, 50.0]] * 4
    assert found.candidates["fast"] == found.candidates["faster"]


def test_nothing_is_measured_where_the_table_is_to_decide(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = on_board(monkeypatch, lambda _: 5.0)
    budget = middle(bench)
    found = bench.asking(measured=0).confirmed(budget)
    assert not board.sessions and found.record is None and found.candidates["fast"] == bench.best(budget)[:1]


def test_the_table_is_corrected_and_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = middle(bench)
    slack = (budget.share or 0.0) - min(map(bench.predicted, bench.distinct(bench.best(bench.budget(100.0)))))
    on_board(monkeypatch, lambda a: bench.predicted(a) + slack / 3)  # so that some models keep the budget
    found = bench.confirmed(budget)
    saved = Table.load(bench.context.path / "tables" / f"{CONFIRMED}.parquet")
    assert dict(saved.entries) == dict(found.tables[0].tables["latency"].entries)
    assert found.record is not None
    last = found.record.rounds[-1].correction
    assert found.tables[0].outside["latency"] == last.constant_us
    assert last.n_models > AgreementRecord.read(bench.context.path / AgreementRecord.FILE).correction.n_models


def test_a_budget_below_the_smallest_model_is_refused_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    on_board(monkeypatch, lambda _: 0.5)
    with pytest.raises(ConfigError, match=r"budget 'fast': a latency of .* is below the smallest model's"):
        bench.confirmed(bench.budget(0.01))


@pytest.mark.parametrize("error", [0.95, 0.7])
def test_a_table_by_which_nothing_fits_may_be_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    """The smallest models may look slower than they are: measuring decides."""
    smallest = min(bench.predicted(c.architecture) for c in bench.best(bench.budget(50.0)))
    board = on_board(monkeypatch, lambda a: (error - 0.15) * bench.predicted(a))
    found = bench.confirmed(bench.budget(error * smallest))
    assert found.candidates["fast"] and board.measured_models
    on_board(monkeypatch, bench.predicted)
    with pytest.raises(CheckFailed, match="no measured candidate keeps"):
        bench.confirmed(bench.budget(error * smallest))


def test_a_scheme_whose_models_are_slower_than_its_table_gives_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schemes are ranked together; the better one's models are all over the budget as they are measured."""
    board = MadeUpBoard(lambda a: bench.predicted(a) - 2 * WIDTH)
    plain = board.measured

    def measured(candidate: Candidate) -> MeasuredModel:
        return (
            plain(candidate) if candidate.scheme == CHANNEL else MeasuredModel(Estimate(9, None, 9, 9, 4, "measured"))
        )

    monkeypatch.setattr(board, "measured", measured)
    monkeypatch.setattr(confirm, "measured_beside", board.measured_beside)
    nsr = bench.tables.tables["nsr"]
    less = replace(nsr, entries={s: Estimate.exact(e.value - 0.1) for s, e in nsr.entries.items()})
    better = replace(bench.tables, name=str(UINT8), tables={**bench.tables.tables, "nsr": less})
    budget, rank = middle(bench), partial(ranked, bench.context)
    both = [replace(bench.tables, name=str(CHANNEL)), better]
    teacher = None
    found = _ended(confirm.confirmed(bench.context, both, [budget], teacher, rank))  # type: ignore[arg-type]
    assert next(iter(board.sessions[0])).scheme == UINT8
    assert found.candidates["fast"][0].scheme == CHANNEL and found.record is not None
    assert {c.scheme for c in found.record.budgets[0].candidates} == {str(CHANNEL), str(UINT8)}


# On a real board: the loopback's


def test_a_candidate_is_measured_in_its_own_scheme(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path)
    named = {"calibration_images = 4\n": 'calibration_images = 4\nschemes = ["tensor uint8"]\n'}
    with opened(folder, write_experiment(tmp_path, named)) as context:
        architecture = next(
            Architecture((a, b)) for a in context.space.subnets(1, 8) for b in context.space.subnets(2, 8)
        )
        wanted = {Candidate(architecture, scheme, 1.0): [50.0] for scheme in (CHANNEL, UINT8)}
        session = _ended(side_by_side.measured_beside(context, quantized_teacher(context), wanted, lambda _: None))
    assert [model.failure for model in session.models.values()] == [None, None]
    main, other = (list((folder / name).glob("candidate-*.tflite")) for name in ("models", "models-tensor-uint8"))
    assert [input_type(path) for path in other] == ["uint8"]
    assert {input_type(path) for path in main} == {"int8"}


def test_a_search_measures_beside_the_teacher_and_never_twice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path)
    found = SearchRecord.read(folder / SearchRecord.FILE)
    assert found.confirmed is not None
    (budget,) = found.confirmed.budgets
    assert (budget.name, budget.limit, len(budget.candidates)) == ("fast", 50.0, 4)
    assert found.selected[0].share == budget.candidates[0].share
    assert budget.candidates[0].subnet == found.selected[0].subnet and all(c.kept for c in budget.candidates)
    assert found.outside_blocks.latency_us == found.confirmed.rounds[-1].correction.constant_us
    rows, written = stored(folder), (folder / SearchRecord.FILE).read_bytes()
    names = [row for _, row in rows if '"model":"teacher"' in row.replace(" ", "")]
    assert len(names) > CONFIRM_ROUNDS, "the teacher is measured anew, not taken from the agreement"
    (folder / SearchRecord.FILE).unlink()
    shutil.rmtree(folder / "models")
    with opened(folder, finished.config) as context:
        list(loop(context, "search"))
    assert stored(folder) == rows and (folder / SearchRecord.FILE).read_bytes() == written


def test_a_budget_that_nothing_keeps_ends_the_loop_with_1(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy.cli import main

    finished = finished_run(tmp_path_factory)
    finished.copy(tmp_path / "runs")
    config = write_experiment(tmp_path, {"latency = 50.0": "latency = 40.0"})
    on_board(monkeypatch, lambda _: 41.0)
    assert main(["loop", *arguments(config, tmp_path / "runs")]) == 1


def test_intervals_that_hold_a_limit_are_measured_longer(bench: Bench) -> None:
    """A limit that is the teacher's own latency, for a model that is hardly another: up to four times the rounds."""
    budget = bench.budget(100.0)
    first = bench.best(budget)[0]
    second = next(c for c in bench.best(budget) if bench.executed(c) != bench.executed(first))

    def session(limits: Mapping[Candidate, Sequence[float]]) -> SideBySide:
        teacher = quantized_teacher(bench.context)
        return _ended(side_by_side.measured_beside(bench.context, teacher, limits, lambda _: None))

    decided = session({first: [50.0], second: [50.0]})
    assert decided.rounds == CONFIRM_ROUNDS
    share = decided.models[first].share
    assert share is not None and share.n == CONFIRM_ROUNDS
    undecided = session({first: [share.value], second: [50.0]})  # the same files: what was measured is not again
    again = undecided.models[first].share, undecided.models[second].share
    assert again[0] is not None and again[0].n > CONFIRM_ROUNDS and again[1] == decided.models[second].share


@pytest.mark.parametrize("settings", [{"measured": -1}, {"rounds": 0}])
def test_settings_that_mean_nothing(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="search: candidates, measured and finalists"):
        SearchSettings(**settings)
