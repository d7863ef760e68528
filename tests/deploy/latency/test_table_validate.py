"""A device that changed: its table is refused, validated on a sample, and then belongs to the device as it is now."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import main
from deploy.latency.key import TableKey
from deploy.latency.validate import evaluate, stratified, validate, validations
from deploy.latency.validations import Demand, TableValidation
from deploy.latency.versions import Lineage, versions
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from hil.errors import CheckFailed, UsageError
from nas.table import Table
from tests.deploy.latency.test_table_key import NPU, SPACE
from tests.deploy.tiny_experiment import Finished, finished_run, one_line, record, stored

SUBNETS = list(SPACE.all_subnets())
LOOSE = ["--entries", "4", "--tolerance", "9", "--tau", "-1"]  # three runs each on a shared machine say no more

latencies = st.lists(st.integers(1, 50).map(float), min_size=len(SUBNETS), max_size=len(SUBNETS))


@given(latencies, st.integers(0, 2 * len(SUBNETS)), st.integers(0, 3))
def test_a_sample_is_even_over_blocks_and_over_the_range(values, n, seed):
    us = dict(zip(SUBNETS, values, strict=True))
    sample = stratified(us, n, seed)
    assert len(sample) == len(set(sample)) == min(n, len(us))
    assert sample == stratified(dict(reversed(us.items())), n, seed), "the same for the same seed"
    sizes, taken = (Counter(s.block for s in subnets) for subnets in (SUBNETS, sample))
    for block, size in sizes.items():
        least = min(taken[other] for other in sizes if taken[other] < sizes[other]) if n < len(us) else size
        assert taken[block] in (least, least + 1, size) if taken[block] < size else taken[block] == size
        ordered = sorted((us[s], str(s)) for s in SUBNETS if s.block == block)
        ranks = sorted(ordered.index((us[s], str(s))) for s in sample if s.block == block)
        strata = [rank * taken[block] / size for rank in ranks]
        assert all(i - 1 < place < i + 2 for i, place in enumerate(strata)), "one of each part of the range"


OLD = np.array([100.0, 150.0, 225.0, 340.0, 500.0, 760.0])


@pytest.mark.parametrize(
    ("new", "demand", "holds"),
    [
        (OLD, Demand(), True),
        (OLD * 1.019, Demand(), True),
        (OLD * 1.021, Demand(), False),
        (OLD / 1.021, Demand(), False),
        (OLD * 1.021, Demand(tolerance=0.03), True),
        (np.sort(OLD * 0.999)[[1, 0, 2, 3, 4, 5]], Demand(tolerance=0.5), False),
        (np.sort(OLD * 0.999)[[1, 0, 2, 3, 4, 5]], Demand(tolerance=0.5, tau=0.8), True),
    ],
)
def test_a_verdict_holds_by_ratio_and_by_ranks(new, demand, holds):
    verdict = evaluate(OLD, new, demand)
    found = verdict.evidence
    assert verdict.holds is holds and found.entries == 6
    assert found.ci95[0] <= found.ratio <= found.ci95[1]
    numbers = (found.entries, found.ratio, found.ci95, found.tau_b)
    validation = TableValidation(*numbers, verdict.holds, demand, "0" * 12, (), NPU, "2026-01-01")
    if holds:
        validation.require_held()
    else:
        with pytest.raises(CheckFailed, match="measure again"):
            validation.require_held()


def test_what_cannot_be_evaluated():
    with pytest.raises(CheckFailed, match="undefined"):
        evaluate(OLD, np.full(6, 100.0), Demand())
    for bad in ({"entries": 2}, {"tolerance": 0.0}, {"tau": 1.5}):
        with pytest.raises(UsageError, match="--entries"):
            Demand(**bad)


# A board whose system is another one day


@dataclass(frozen=True)
class Bench:
    """A run whose table was measured on `rooted`, a board whose distribution is what a file says."""

    finished: Finished
    base: Path

    @property
    def folder(self) -> Path:
        return self.base / "runs" / "tiny"

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    @property
    def options(self) -> list[str]:
        where = ["--runs-dir", str(self.base / "runs"), "--boards", str(self.base / "boards.toml")]
        return ["--config", str(self.finished.config), *where, "--board", "rooted"]

    def call(self, *words: str) -> int:
        return main([*words, *self.options])

    def installs(self, system: str) -> None:
        release = self.base / "root" / "etc" / "os-release"
        release.parent.mkdir(parents=True, exist_ok=True)
        release.write_text(f'PRETTY_NAME="{system}"\n')

    def context(self, opened: Run) -> Context:
        experiment, space = load_experiment(self.finished.config, Overrides(board="rooted"))
        return Context(experiment, space, opened, self.base / "boards.toml")


@pytest.fixture(scope="module")
def profiled(tmp_path_factory) -> Bench:
    """Measured while the board had the older system, and now it has the newer one."""
    base = tmp_path_factory.mktemp("rooted")
    bench = Bench(finished_run(tmp_path_factory), base)
    bench.finished.copy(base / "runs")
    (base / "boards.toml").write_text(f'[rooted]\nkind = "loopback"\nserver = "asyncssh"\nroot = "{base / "root"}"\n')
    bench.installs("Older")
    assert bench.call("lut", "latency") == 0
    bench.installs("Newer")
    return bench


@pytest.fixture
def bench(profiled, tmp_path) -> Bench:
    """The board's configuration is part of what was measured: it stays where it is, the run is copied."""
    copied = Bench(profiled.finished, tmp_path)
    Finished(profiled.finished.config, profiled.folder).copy(tmp_path / "runs")
    (tmp_path / "boards.toml").write_text((profiled.base / "boards.toml").read_text())
    return copied


def test_a_table_of_the_device_as_it_was_is_refused(bench, capfd):
    before = (bench.tables / "latency.parquet").read_bytes(), stored(bench.folder)
    words = ("bsp Older became Newer", "`hilnas lut latency validate`", "--board")
    assert bench.call("agree") == 2
    one_line(capfd.readouterr().err, *words)
    (bench.folder / "profile.json").unlink()  # so that the stage is done once more
    assert bench.call("lut", "latency") == 2
    one_line(capfd.readouterr().err, *words)
    rows = stored(bench.folder)
    assert (bench.tables / "latency.parquet").read_bytes() == before[0] and rows[: len(before[1])] == before[1]
    (bench.tables / "latency.parquet").unlink()  # what is said to measure all again
    assert bench.call("lut", "latency") == 0
    assert TableKey.of(Table.load(bench.tables / "latency.parquet")).conditions.bsp == "Newer"


def test_a_table_that_holds_belongs_to_the_device_as_it_is(bench, capfd):
    before, rows = Table.load(bench.tables / "latency.parquet"), len(stored(bench.folder))
    assert bench.call("lut", "latency", "validate", *LOOSE) == 0
    said = capfd.readouterr().out
    assert "changed: bsp Older became Newer" in said and "4 entries measured again" in said and "it holds" in said
    after, lineage = (
        Table.load(bench.tables / "latency.parquet"),
        Lineage.of(Table.load(bench.tables / "latency.parquet")),
    )
    assert after.entries == before.entries and len(stored(bench.folder)) == rows + 4
    assert TableKey.of(after).conditions.bsp == "Newer" and after.provenance["conditions"]["bsp"] == "Older"
    assert lineage.how == "validated" and lineage.parents == (Lineage.of(before).version,)
    assert lineage.evidence is not None and lineage.evidence.entries == 4
    assert lineage.evidence.ci95[0] <= lineage.evidence.ratio
    assert bench.call("agree", "--tau", "-1") == 0, capfd.readouterr().err
    corrected = Lineage.of(Table.load(bench.tables / "latency-corrected.parquet"))
    assert corrected.parents == (lineage.version,)
    assert [v.lineage.how for v in versions(bench.tables)][-2:] == ["validated", "corrected"]
    bench.call("lut", "latency", "validate", *LOOSE)
    assert "stays, the board is as it was" in capfd.readouterr().out
    assert Lineage.of(Table.load(bench.tables / "latency.parquet")) == lineage


def test_a_table_that_does_not_hold_stays_of_the_old_device(bench, capfd):
    make_slower(bench.folder / "measurements.sqlite", 30)  # far more than a neighbour could
    before = (bench.tables / "latency.parquet").read_bytes()
    assert bench.call("lut", "latency", "validate", "--entries", "4", "--json") == 1
    captured = capfd.readouterr()
    one_line(captured.err, "does not hold", "measure again", "tables/latency.parquet")
    verdict = json.loads(captured.out)
    assert verdict["holds"] is False and verdict["ratio"] < 0.7 and verdict["changed"] == ["bsp Older became Newer"]
    assert (bench.tables / "latency.parquet").read_bytes() == before and bench.call("agree") == 2


def test_what_was_measured_before_a_kill_is_not_measured_again(bench):
    rows = len(stored(bench.folder))
    demand = Demand(entries=4, tolerance=9.0, tau=-1.0)
    with Run(bench.folder) as opened:
        context = bench.context(opened)
        with closing(validate(context, demand)) as started:
            next(started), next(started)
        kept = stored(bench.folder)
        assert rows < len(kept) < rows + 4, "stopped too late to show anything"
        assert not validations(bench.tables)
        assert len(list(validate(context, demand))) == 4
        assert stored(bench.folder)[: len(kept)] == kept and len(stored(bench.folder)) == rows + 4
        list(validate(context, demand))  # a new question, so a new series
    assert len(stored(bench.folder)) == rows + 8
    assert [v.changed for v in validations(bench.tables)] == [("bsp Older became Newer",), ()]


def test_a_table_that_cannot_be_validated(bench, capfd):
    (bench.folder / "measurements.sqlite").unlink()
    assert bench.call("lut", "latency", "validate", *LOOSE) == 2
    one_line(capfd.readouterr().err, "measurements.sqlite", "holds 0", "measure again")
    table = Table.load(bench.tables / "latency.parquet")
    replace(table, provenance={**table.provenance, "key": "f00"}).save(bench.tables / "latency.parquet")
    assert bench.call("lut", "latency", "validate", *LOOSE) == 2
    one_line(capfd.readouterr().err, "of other subnets", "run `hilnas lut latency`")


def make_slower(store: Path, times: int) -> None:
    """Every latency that the store holds."""
    with closing(sqlite3.connect(store)) as connection, connection:
        for job, text in connection.execute("SELECT job_id, record FROM measurements").fetchall():
            told = json.loads(text)
            told["latencies_us"] = [us * times for us in told["latencies_us"]]
            connection.execute("UPDATE measurements SET record = ? WHERE job_id = ?", (json.dumps(told), job))


def test_the_record_says_what_was_asked(bench):
    assert bench.call("lut", "latency", "validate", *LOOSE) == 0
    (verdict,) = record(bench.tables / "validations.json")["validations"]
    assert verdict["demand"] == {"entries": 4, "tolerance": 9.0, "tau": -1.0} and verdict["holds"] is True
    assert record(bench.folder / "profile.json")["validated"]["entries"] == 4
    assert record(bench.folder / "profile.json")["conditions"]["bsp"] == "Newer"
