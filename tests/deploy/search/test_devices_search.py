"""`hilnas search --latency NAME=FILE ...`: several devices in one search."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from deploy.latency.key import BELONGS, TableKey
from deploy.search.devices import Device, joined
from nas.estimate import Estimate
from nas.search.brute_force import all_architectures
from nas.search.candidates import candidates
from nas.search.union import CostTables
from nas.space import SearchSpace
from nas.table import Table, size_table
from tests.deploy.cli.test_results_command import CONDITIONS
from tests.deploy.cli.test_search_command import SPACE
from tests.deploy.tiny_experiment import arguments, finished_run, one_line, record, run

BOARDS = """
[one]
kind = "loopback"
threads = 1

[two]
kind = "loopback"
threads = 2
"""


def table_of(space: SearchSpace, quantity: str, seed: int, said: dict | None = None) -> Table:
    values = np.random.default_rng(seed).random(space.count())
    entries = {s: Estimate.exact(float(v)) for s, v in zip(space.all_subnets(), values, strict=True)}
    return Table(quantity, "us", entries, {"space": space.digest, **(said or {})})


def belonging(space: SearchSpace, threads: int, size=(64, 96), scheme="channel int8") -> dict:
    conditions = replace(CONDITIONS, threads=threads)
    return {BELONGS: TableKey.under(conditions, space.digest, size, scheme, "isolated").to_json()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nsr.parquet, and latencies of two devices that differ; b's constant is told by its correction."""
    (tmp_path / "space.toml").write_text(SPACE)
    space = SearchSpace.load(tmp_path / "space.toml")
    table_of(space, "nsr", 0, {"granularity": "channel"}).save(tmp_path / "nsr.parquet")
    table_of(space, "latency", 1, belonging(space, 1)).save(tmp_path / "a.parquet")
    corrected = {**belonging(space, 2), "correction": {"constant_us": 10.0}}
    table_of(space, "latency", 2, corrected).save(tmp_path / "b.parquet")
    return tmp_path


def ask(folder: Path, *more: str, devices: tuple[str, ...] = ("a", "b")) -> int:
    latencies = [word for name in devices for word in ("--latency", f"{name}={folder / name}.parquet")]
    return main(["search", "--tables", str(folder), "--space", str(folder / "space.toml"), *latencies, *more])


def test_one_model_for_all_and_one_for_each(folder, capsys):
    more = ("--latency-budget", "a=1us", "--latency-budget", "b=11us", "--size-budget", "12kB", "--k", "3", "--prove")
    assert ask(folder, *more, "--json", "--front", str(folder / "front.csv")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["objectives"] == ["nsr", "size", "latency@a", "latency@b"]
    assert answer["budgets"] == {"size_bits": 96000.0, "latency_us@a": 1.0, "latency_us@b": 11.0}
    assert answer["proof"]["difference"] is None

    space = SearchSpace.load(folder / "space.toml")
    a, b = (replace(Table.load(folder / f"{n}.parquet"), quantity=n) for n in "ab")
    _, costs = all_architectures(candidates(space, [Table.load(folder / "nsr.parquet"), size_table(space), a, b]))
    costs[:, 3] += 10.0
    on_a, on_b = (costs[:, 1] <= 96000) & (costs[:, 2] <= 1), (costs[:, 1] <= 96000) & (costs[:, 3] <= 11)
    both = sorted(map(tuple, costs[on_a & on_b].tolist()))
    assert 3 <= len(both) < min(on_a.sum(), on_b.sum()), "the made-up budgets say something"
    assert [tuple(row.values())[1:] for row in answer["selected"]] == both[:3]
    for name, fits in (("a", on_a), ("b", on_b)):
        device, best = answer["devices"][name], costs[fits][:, 0].min()
        assert device["alone"]["nsr"] == best
        assert device["sharing_costs_nsr"] == both[0][0] - best >= 0
    assert answer["devices"]["a"]["sharing_costs_nsr"] + answer["devices"]["b"]["sharing_costs_nsr"] > 0
    rows = list(csv.DictReader((folder / "front.csv").open()))
    assert list(rows[0]) == ["subnet", "nsr", "size_bits", "latency_us@a", "latency_us@b"]
    assert len(rows) == answer["front"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 1.0), st.floats(0.2, 1.0))
def test_within_any_budgets_it_is_brute_forces(tmp_path_factory, seed, share_a, share_b):
    folder = tmp_path_factory.mktemp("devices")
    (folder / "space.toml").write_text(SPACE)
    space = SearchSpace.load(folder / "space.toml")
    nsr = table_of(space, "nsr", seed)
    for i, name in enumerate("ab", start=1):
        table_of(space, "latency", seed + i, belonging(space, i)).save(folder / f"{name}.parquet")
    main_scheme = CostTables("", {"nsr": nsr, "size": size_table(space)})
    joint = joined(space, main_scheme, [Device(name, folder / f"{name}.parquet") for name in "ab"])
    nsr.save(folder / "nsr.parquet")
    names = ("nsr", "size", "latency@a", "latency@b")
    _, costs = all_architectures(candidates(space, [joint.tables[name] for name in names]))
    limits = np.quantile(costs[:, 2], share_a), np.quantile(costs[:, 3], share_b)
    fits = (costs[:, 2] <= limits[0]) & (costs[:, 3] <= limits[1])
    out = folder / "front.csv"
    given_budgets = [f"{name}={limit!r}us" for name, limit in zip("ab", map(float, limits), strict=True)]
    words = [word for text in given_budgets for word in ("--latency-budget", text)]
    assert ask(folder, "--front", str(out), *words) == (0 if fits.any() else 2)
    if fits.any():
        rows = np.array([[float(v) for v in list(row.values())[1:]] for row in csv.DictReader(out.open())])
        within = (rows[:, 2] <= limits[0]) & (rows[:, 3] <= limits[1])
        assert rows[within][:, 0].min() == costs[fits][:, 0].min()


def test_it_is_said_in_words(folder, capsys):
    assert ask(folder, "--latency-budget", "a=1us") == 0
    said = capsys.readouterr().out
    assert "over (nsr, size, latency@a, latency@b)" in said and "ms on a" in said and "ms on b" in said
    assert "\na alone: b1_" in said and "\nb alone: b1_" in said and "sharing costs" in said


def test_one_device_needs_no_name_for_its_budget(folder, capsys):
    assert ask(folder, "--latency-budget", "1us", "--json", devices=("a",)) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["budgets"] == {"latency_us@a": 1.0} and answer["devices"]["a"]["sharing_costs_nsr"] == 0


@pytest.mark.parametrize(
    "more, words",
    [
        (("--latency-budget", "1us"), ("on which?", "NAME=1us", "a, b")),
        (("--latency-budget", "c=1us"), ("no table of 'c'", "--latency c=FILE")),
        (("--latency-budget", "a=1us", "--latency-budget", "a=2us"), ("'a' has one already",)),
        (("--latency-budget", "a=75%"), ("no teacher",)),
        (("--latency-budget", "a=1"), ("with a unit",)),
        (("--latency-budget", "b=1us"), ("a latency@b of 0.001 ms is below the smallest model's 0.01", "give more")),
        (("--latency", "a=x.parquet"), ("--latency a=", "given 2 times")),
        (("--latency", "x.parquet"), ("--latency x.parquet", "write NAME=FILE.parquet")),
        (("--latency", "x=gone.parquet"), ("gone.parquet",)),
        (("--no-cpu-fallback",), ("knows one board",)),
        (("--objectives", "latency@a,nsr"), ("name nsr first",)),
        (("--objectives", "nsr,latency"), ("no table of 'latency'", "latency@a, latency@b")),
    ],
)
def test_questions_that_mean_nothing(folder, capsys, more, words):
    assert ask(folder, *more) == 2
    one_line(capsys.readouterr().err, *words)


def test_several_budgets_without_devices_are_refused(folder, capsys):
    where = ("--tables", str(folder), "--space", str(folder / "space.toml"))
    for budgets in (("a=1us",), ("1us", "2us")):
        words = [word for text in budgets for word in ("--latency-budget", text)]
        assert main(["search", *where, *words]) == 2
        one_line(capsys.readouterr().err, "goes with --latency NAME=FILE")


def test_tables_that_do_not_belong_together_are_refused(folder, capsys):
    space = SearchSpace.load(folder / "space.toml")
    other = replace(space, bits=(8,))
    for name, table, words in (
        ("b", table_of(space, "latency", 2, belonging(space, 2, size=(96, 128))), ("a and b", "different input sizes")),
        ("b", table_of(space, "latency", 2, belonging(space, 2, scheme="tensor int8")), ("different schemes",)),
        ("b", table_of(other, "latency", 2, belonging(other, 2)), ("different search spaces", space.digest)),
        ("b", table_of(space, "nsr", 2), ("b.parquet", "not a latency table but one of nsr")),
        ("b", table_of(space, "latency", 2), ("b.parquet", "does not say what it belongs to")),
        ("a", table_of(other, "latency", 2, belonging(other, 2)), ("a.parquet", "another space", other.digest)),
    ):
        kept = (folder / f"{name}.parquet").read_bytes()
        table.save(folder / f"{name}.parquet")
        assert ask(folder) == 2
        one_line(capsys.readouterr().err, *words)
        (folder / f"{name}.parquet").write_bytes(kept)
    table_of(space, "nsr", 0, {"granularity": "tensor"}).save(folder / "nsr.parquet")
    assert ask(folder) == 2
    one_line(capsys.readouterr().err, "its latencies are of 'channel int8', the NSRs of 'tensor int8'")


def test_two_real_devices(tmp_path, tmp_path_factory):
    """One and two threads of this machine, each measured; over a run and over its tables."""
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path)
    (tmp_path / "boards.toml").write_text(BOARDS)
    options = arguments(finished.config, tmp_path)
    boards = ["--boards", str(tmp_path / "boards.toml")]
    for name in ("one", "two"):
        made = run("lut", "latency", *options, *boards, "--board", name)
        assert made.returncode == 0, made.stderr
        (tmp_path / f"{name}.parquet").write_bytes((folder / "tables" / "latency.parquet").read_bytes())
    latencies = [word for name in ("one", "two") for word in ("--latency", f"{name}={tmp_path / name}.parquet")]
    asked = run("search", *options, *boards, "--board", "two", *latencies, "--size-budget", "90%", "--prove", "--json")
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    teacher_bits = record(folder / "search.json")["teacher_size_bits"]
    assert answer["budgets"] == {"size_bits": 0.9 * teacher_bits} and answer["scope"] == "full models"
    assert set(answer["devices"]) == {"one", "two"} and answer["proof"]["difference"] is None
    threads = {Table.load(tmp_path / f"{n}.parquet").provenance["conditions"]["threads"] for n in ("one", "two")}
    assert threads == {1, 2}
    budget = answer["selected"][0]["latency_us@one"]
    words = ("--latency-budget", f"one={budget!r}us", "--latency-budget", "two=60s")
    again = run("search", *options, *boards, "--board", "two", *latencies, *words, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["selected"][0]["latency_us@one"] <= budget
