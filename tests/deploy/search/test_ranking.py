"""What ranks candidates before they are retrained, on a real run: sums, divergence, finalists, and their comparison."""

from __future__ import annotations

import copy
import itertools
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from deploy.cli import main
from deploy.compile.scheme import QuantizationScheme
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.keys import stage_identities
from deploy.run.settings.search import Search
from deploy.search import fine_tuning, ranking
from deploy.search.candidate import Candidate
from deploy.search.estimates import (
    BLOCK_WEIGHTS,
    SPLIT_HALF,
    WEIGHTED_NSR,
    estimate_table,
    split_half_tau_b,
    split_half_text,
    unreliable,
)
from deploy.search.fine_tuning import TrainingPlan, brief
from deploy.search.halving import halved
from deploy.search.ranking import ranked
from deploy.studies.ranking import WORDS, ranking_rows, spread
from deploy.studies.ranking_record import RankingRecord
from hil.errors import UsageError
from nas.engine.local import Local
from nas.errors import ConfigError, TableError
from nas.search.union import CostTables
from nas.space import Architecture, SearchSpace
from nas.table import Table
from tests.deploy.tiny_experiment import REPOSITORY, arguments, write_experiment

R = TypeVar("R")
QUICK = {"[retrain]\nsteps = 30": "[retrain]\nsteps = 10"}


@pytest.fixture(scope="module")
def populated(tmp_path_factory) -> tuple[Path, Path]:
    """The configuration and the folder of a run up to its tables. Copy before changing."""
    base = tmp_path_factory.mktemp("populated")
    config = write_experiment(base, QUICK)
    assert main(["loop", *arguments(config, base / "runs", "--until", "tables")]) == 0
    return config, base / "runs" / "tiny"


@contextmanager
def opened(populated: tuple[Path, Path], to: Path, **search: object) -> Iterator[Context]:
    """A copy of the run, with these settings of [search]."""
    config, source = populated
    experiment, space = load_experiment(config, Overrides())
    folder = Path(shutil.copytree(source, to / "tiny", dirs_exist_ok=True))
    with Run(folder) as run:
        yield Context(replace(experiment, search=Search(**search)), space, run, REPOSITORY / "boards.toml")


def tables_of(context: Context, name: str = "") -> CostTables:
    files = {file: Table.load(context.path / "tables" / f"{file}.parquet") for file in ("nsr", "size", WEIGHTED_NSR)}
    return CostTables(name, files)


def result(steps: Generator[Progress, None, R]) -> tuple[R, list[Progress]]:
    """What a generator returns, and what it yielded."""
    shown = []
    while True:
        try:
            shown.append(next(steps))
        except StopIteration as ended:
            return ended.value, shown


def everything(space: SearchSpace) -> list[Architecture]:
    return [Architecture(subnets) for subnets in itertools.product(*(space.subnets(b) for b in (1, 2)))]


# Estimates


def test_estimates_are_the_columns_that_they_say(populated, tmp_path):
    with opened(populated, tmp_path) as context:
        tables = tables_of(context).tables
    plain, weighted = tables["nsr"], tables[WEIGHTED_NSR]
    blocks = weighted.provenance[BLOCK_WEIGHTS]
    assert sum(blocks) / len(blocks) == pytest.approx(1) and blocks[0] != pytest.approx(blocks[1], rel=1e-3)
    found = {name: estimate_table(tables, name) for name in ("nsr", "channels", "blocks", "weighted")}
    assert {table.quantity for table in found.values()} == {"estimate"}
    for subnet, entry in plain.entries.items():
        weight = blocks[subnet.block - 1]
        assert found["nsr"][subnet] == entry.value and found["weighted"][subnet] == weighted[subnet] != entry.value
        assert found["blocks"][subnet] == entry.value * weight
        assert found["channels"][subnet] * weight == pytest.approx(weighted[subnet])
    with pytest.raises(TableError, match=r"search\.estimate 'weighted': no table of the weighted-nsr; populate"):
        estimate_table({"nsr": plain}, "weighted")


def test_a_table_says_how_far_its_images_decide(populated, tmp_path):
    with opened(populated, tmp_path) as context:
        nsr = tables_of(context).tables["nsr"]
        assert "b1 " in split_half_text(nsr) and len(nsr.provenance[SPLIT_HALF]) == 2
        assert split_half_text(replace(nsr, provenance={})) == ""
        low = replace(nsr, provenance={SPLIT_HALF: [0.5, 0.95]})
        assert unreliable(low, context.space, 4) == ""  # too few subnets to say so
        space = replace(context.space, kernels=(3, 5, 7))
        assert unreliable(low, space, 4) == (
            "two halves of the 4 evaluation images rank subnets differently (block 1's with tau-b 0.50, below 0.8): "
            "raise quantization.evaluation_images"
        )
        assert unreliable(replace(nsr, provenance={SPLIT_HALF: [0.8, 0.95]}), space, 4) == ""
    assert split_half_tau_b([(1, 1), (2, 2), (3, 3), (4, 4)]) == 1
    assert split_half_tau_b([(1, 1), (2, 2), (3, 4), (4, 3)]) == pytest.approx(4 / 6)
    assert split_half_tau_b([(1.0, float("nan")), (2.0, float("nan"))]) == 0


# Candidates


def test_without_divergence_candidates_are_the_least_sums(populated, tmp_path):
    with opened(populated, tmp_path, estimate="weighted") as context:
        tables = tables_of(context)
        limit = sorted(tables.total("size", a) for a in everything(context.space))[9]
        found, shown = result(ranked(context, [tables], {"size": limit}, 4))
        within = [a for a in everything(context.space) if tables.total("size", a) <= limit]
        expected = sorted(within, key=lambda a: tables.total(WEIGHTED_NSR, a))[:4]
        assert [candidate.architecture for candidate in found] == expected and not shown
        assert [c.estimate for c in found] == [tables.total(WEIGHTED_NSR, a) for a in expected]
        assert {(candidate.scheme, candidate.score) for candidate in found} == {(None, None)}
        assert not (context.path / "search").exists()
        with pytest.raises(ConfigError, match=r"^budget 'tiny': a size of 0\.001 kB is below the smallest"):
            result(ranked(context, [tables], {"size": 8.0}, 4, "budget 'tiny': "))


def test_divergence_ranks_the_least_sums_anew_and_is_computed_once(populated, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "PART", 3)
    with opened(populated, tmp_path, candidates=8) as context:
        tables = tables_of(context)
        found, shown = result(ranked(context, [tables], {}, 3))
        assert [(progress.done, progress.total) for progress in shown] == [(3, 8), (6, 8), (8, 8)]
        with_8, _ = result(ranked(replaced(context, candidates=8), [tables], {}, 8))
        assert found == with_8[:3] == sorted(with_8, key=lambda c: c.estimate)[:3]
        sums, _ = result(ranked(replaced(context, candidates=0), [tables], {}, 8))
        assert {c.architecture for c in with_8} == {c.architecture for c in sums}
        assert all(candidate.estimate > 0 for candidate in with_8)
        journal = context.path / "search" / "divergences.jsonl"
        lines = journal.read_text().splitlines()
        assert len(lines) == 8
        journal.write_text("".join(line + "\n" for line in lines[:-2]) + '{"cut')  # killed in the last part
        again, _ = result(ranked(context, [tables], {}, 3))
        assert again == found and [c.estimate for c in again] == [c.estimate for c in found]
        monkeypatch.setattr(ranking, "_work", lambda task: pytest.fail(f"{task} computed twice"))
        assert result(ranked(context, [tables], {}, 3))[0] == found


def test_two_workers_find_the_same_divergences(populated, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "PART", 2)
    found = []
    for folder, engine in (("one", Local(1)), ("two", Local(2))):
        with opened(populated, tmp_path / folder, candidates=4) as context:
            context.engine = engine
            candidates, _ = result(ranked(context, [tables_of(context)], {}, 4))
            found.append([(candidate, candidate.estimate) for candidate in candidates])
    assert found[0] == found[1]


def test_schemes_are_ranked_together_each_by_its_own_integers(populated, tmp_path):
    with opened(populated, tmp_path, candidates=6) as context:
        names = ("channel int8", "tensor uint8")
        found, _ = result(ranked(context, [tables_of(context, name) for name in names], {}, 6))
        assert {str(candidate.scheme) for candidate in found} == set(names)
        by_scheme = {(candidate.architecture, str(candidate.scheme)): candidate.estimate for candidate in found}
        both = [a for a in {a for a, _ in by_scheme} if all((a, name) in by_scheme for name in names)]
        assert both and all(by_scheme[a, names[0]] != by_scheme[a, names[1]] for a in both)


def replaced(context: Context, **search: object) -> Context:
    other = copy.copy(context)
    other.experiment = replace(context.experiment, search=Search(**search))
    return other


def test_finalists_are_fine_tuned_on_held_out_images_and_the_rest_dropped(populated, tmp_path, monkeypatch):
    with opened(populated, tmp_path, finalists=3) as context:
        monkeypatch.setattr(Context, "val_data", property(lambda _: pytest.fail("opened before the report")))
        some = everything(context.space)[::9][:4]
        scheme = QuantizationScheme.parse("tensor int8")
        candidates = [Candidate(a, scheme if i == 1 else None, float(i)) for i, a in enumerate(some)]
        found, shown = result(halved(context, "fast", candidates))
        assert {c.architecture for c in found} == set(some[:3]) and len(found) == 3
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        assert shown[-1].text.startswith("fast: ") and (shown[-1].done, shown[-1].total) == (3, 3)
        assert {c.scheme for c in found if c.architecture == some[1]} == {scheme}
        monkeypatch.setattr(fine_tuning, "_work", lambda task: pytest.fail(f"{task} trained twice"))
        again, shown = result(halved(context, "small", candidates))
        assert [(c, c.score) for c in again] == [(c, c.score) for c in found] and not shown
        assert not list((context.path / "finetuned").glob("*.pt"))
        assert result(halved(replaced(context), "fast", candidates)) == (candidates, [])


def test_trainings_of_another_plan_are_others(populated, tmp_path):
    with opened(populated, tmp_path) as context:
        schedule = brief(context.experiment, None)
        assert schedule.steps == 2 and brief(context.experiment, replace(schedule, steps=7)).steps == 7
        scheme = QuantizationScheme.parse("tensor int8")
        changes: list[dict[str, object]] = [{}, {"final": True}, {"number": 1}, {"scheme": scheme}]
        keys = [fine_tuning.key_of(context, TrainingPlan(schedule, **change)) for change in changes]
        assert len(set(keys)) == 4
        other = fine_tuning.reseeded(context, 1)
        assert (other.experiment.seed, context.experiment.seed) == (1, 0)
        assert other.train_data is context.train_data and other.teacher is context.teacher


def test_settings_of_search_count_for_the_search_alone(populated):
    experiment, space = load_experiment(populated[0], Overrides())
    before = stage_identities(experiment, space, [])
    for changed in (Search(estimate="blocks"), Search(candidates=200), Search(finalists=12)):
        after = stage_identities(replace(experiment, search=changed), space, [])
        assert [name for name in before if before[name].key != after[name].key] == ["search", "retrain", "ship"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("candidates = -1", "search: candidates, measured and finalists must be 0"),
        ('estimate = "fisher"', r"search\.estimate"),
        ("finalist = 3", "finalist'; did you mean 'finalists'"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, line, words):
    config = write_experiment(tmp_path)
    config.write_text(f"{config.read_text()}[search]\n{line}\n")
    with pytest.raises(ConfigError, match=words):
        load_experiment(config, Overrides())


# The study


def test_the_study_compares_all_ways_and_goes_on_where_it_was(populated, tmp_path, capsys, monkeypatch):
    config, source = populated
    folder = Path(shutil.copytree(source, tmp_path / "tiny"))
    command = ["study", "ranking", *arguments(config, tmp_path, "--models", "5")]
    assert main(command) == 0
    record = RankingRecord.read(folder / RankingRecord.FILE)
    assert len({model.subnet for model in record.models}) == 5
    assert all(len(model.scores) == 2 and model.predicted.keys() == WORDS.keys() for model in record.models)
    assert any(first != second for first, second in (model.scores for model in record.models))
    assert record.rank["nsr"].tau_b_gain_ci95 is None and record.rank.keys() == WORDS.keys()
    assert record.noise_ceiling is not None and (record.schedule.steps, record.brief.steps) == (10, 2)
    out = capsys.readouterr().out
    assert out.splitlines()[:-1] == list(ranking_rows(record)) and out.count("\n| ") == len(WORDS) + 1
    journal = folder / "finetuned" / "scores.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == 5 * 3
    journal.write_text("".join(line + "\n" for line in lines[:-1]))
    trained = counted(monkeypatch)
    assert main([*command, "--json"]) == 0
    assert len(trained) == 1
    again = json.loads(capsys.readouterr().out)
    strip = [{name: value for name, value in m.items() if name != "seconds"} for m in again["models"]]
    assert strip == [{n: v for n, v in m.items() if n != "seconds"} for m in record.to_json()["models"]]
    assert again["rank"] == json.loads(json.dumps(record.to_json()["rank"]))
    assert main([*command[:-1], "4"]) == 2


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    trained: list[object] = []
    work: Callable[[object], object] = fine_tuning._work

    def counting(task: object) -> object:
        trained.append(task)
        return work(task)

    monkeypatch.setattr(fine_tuning, "_work", counting)
    return trained


def test_models_of_the_study_lie_on_the_front_and_all_over_the_space(populated, tmp_path):
    with opened(populated, tmp_path) as context:
        tables, space = tables_of(context).tables, context.space
        chosen = spread(space, tables, 12, 0)
        assert chosen == spread(space, tables, 12, 0) and len(set(chosen)) == 12
        assert min(everything(space), key=tables["nsr"].total) in chosen  # an end of the front
        sums = sorted(tables["nsr"].total(a) for a in everything(space))
        assert max(tables["nsr"].total(a) for a in chosen) > sums[len(sums) * 3 // 4]
        of_one_width = spread(space, tables, 6, 0, [4])
        assert {subnet.bits for a in of_one_width for subnet in a.subnets} == {4} != set(space.bits)
        with pytest.raises(UsageError, match=r"--bits 5: give widths of space '.*': 4, 8"):
            spread(space, tables, 6, 0, [5])


@pytest.mark.parametrize("counts", [("--models", "4"), ("--retrainings", "0"), ("--bits", "5")])
def test_too_few_models_are_refused_before_the_loop(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], counts: tuple[str, str]
) -> None:
    assert main(["study", "ranking", "--runs-dir", str(tmp_path / "runs"), *counts]) == 2
    few = "give at least 5 models and 1 retraining"
    assert ("--bits 5: give widths of space 'demo': 8" if counts[0] == "--bits" else few) in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
