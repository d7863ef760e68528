"""`hilnas search` with a question: over any tables, and over a run's."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import deploy.search.query
from deploy.cli import main
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table
from deploy.run.config import Overrides, load_experiment
from nas.estimate import Estimate
from nas.search.brute_force import k_best_by_all
from nas.search.candidates import candidates
from nas.search.prove import Proof
from nas.space import SearchSpace, Subnet
from nas.table import Table, size_table
from tests.deploy.cli.test_results_command import GOOD
from tests.deploy.tiny_experiment import arguments, finished_run, one_line, record, run

SPACE = """
name = "two"
stem_channels = 16
first_channels = 16
kernels = [3, 5]
expansions = [2, 6]
bits = [4, 8]
blocks = [
    { stride = 2, channels = 24, layers = 1, teacher_layers = 1 },
    { stride = 1, channels = 32, layers = 2, teacher_layers = 2 },
]
"""


@pytest.fixture
def tables(tmp_path):
    """nsr, latency and what a delegate left, of a space in space.toml; the size is computed."""
    (tmp_path / "space.toml").write_text(SPACE)
    space, rng = SearchSpace.load(tmp_path / "space.toml"), np.random.default_rng(0)
    made = {}
    for name, file in (("nsr", "nsr"), ("latency", "latency"), ("cpu_operators", CPU_OPERATORS)):
        values = rng.integers(2, size=space.count()) if name == "cpu_operators" else rng.random(space.count())
        entries = {s: Estimate.exact(float(v)) for s, v in zip(space.all_subnets(), values, strict=True)}
        made[name] = Table(name, "us", entries, {"space": space.digest})
        made[name].save(tmp_path / f"{file}.parquet")
    return made | {"size": size_table(space), "space": space}


def ask(folder, *more: str) -> int:
    return main(["search", "--tables", str(folder), "--space", str(folder / "space.toml"), *more])


def test_tables_are_asked_for_the_k_best(tables, tmp_path, capsys):
    assert ask(tmp_path, "--size-budget", "9kB", "--latency-budget", "1.2us", "--k", "4", "--prove", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    of = candidates(tables["space"], [tables[name] for name in ("nsr", "size", "latency")])
    expected = k_best_by_all(of, {"size": 72000.0, "latency": 1.2}, 4)
    assert [tuple(row.values()) for row in answer["selected"]] == [(str(r.architecture), *r.costs) for r in expected]
    assert answer["budgets"] == {"size_bits": 72000.0, "latency_us": 1.2}
    assert (answer["scope"], answer["architectures"], answer["proof"]["difference"]) == (
        "the blocks alone",
        of.count,
        None,
    )


def test_the_answer_is_said_and_the_front_written(tables, tmp_path, capsys):
    assert ask(tmp_path, "--objectives", "nsr,size", "--front", str(tmp_path / "front.csv"), "--prove") == 0
    said = capsys.readouterr().out
    assert "architectures over (nsr, size)" in said and "1: b1_" in said and "no difference" in said
    rows = list(csv.DictReader((tmp_path / "front.csv").open()))
    assert list(rows[0]) == ["subnet", "nsr", "size_bits"] and f"Pareto front: {len(rows)} of" in said
    sizes = [float(row["size_bits"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_subnets_that_left_the_delegate_are_left_out(tables, tmp_path, capsys):
    assert ask(tmp_path, "--no-cpu-fallback", "--k", "200", "--json") == 0
    found = json.loads(capsys.readouterr().out)["selected"]
    left = tables["cpu_operators"]
    assert found and all(left[Subnet.parse(s)] == 0 for row in found for s in row["subnet"].split("+"))
    (tmp_path / f"{CPU_OPERATORS}.parquet").unlink()
    assert ask(tmp_path, "--no-cpu-fallback") == 2
    one_line(capsys.readouterr().err, "--no-cpu-fallback", "profile on a board with a delegate")


def test_what_a_delegate_left_in_any_round_is_counted(tables):
    space = tables["space"]
    first, *rest = space.all_subnets()
    rounds = [replace(GOOD, model=str(s), round=r) for s in (first, *rest) for r in (0, 1)]
    rounds[1] = replace(rounds[1], cpu_operators=("RESIZE_BILINEAR", "ADD"))
    left = cpu_operators_table(space, rounds, {"key": "k"})
    left.check(space)
    assert left[first] == 2 and {left[s] for s in rest} == {0}


@pytest.mark.parametrize(
    "options, words",
    [
        (("--size-budget", "1B"), ("a size of 0.001 kB is below the smallest model's", "kB; give more")),
        (("--latency-budget", "1e-9us"), ("a latency of", "below the smallest model's")),
        (("--size-budget", "75%"), ("no teacher", "bits")),
        (("--size-budget", "12"), ("--size-budget 12", "with a unit (bits, B, kB, MB)")),
        (("--latency-budget", "-3ms"), ("--latency-budget -3ms", "positive number")),
        (("--k", "0"), ("--k 0", "at least one")),
        (("--objectives", "nsr,watts"), ("no table of 'watts'", "nsr, size, latency")),
        (("--objectives", "nsr", "--size-budget", "4kB"), ("no limit on size", "over nsr")),
    ],
)
def test_questions_that_mean_nothing_are_refused(tables, tmp_path, capsys, options, words):
    name, *rest = options
    given = (f"{name}={rest[0]}", *rest[1:])
    assert ask(tmp_path, *given) == 2
    one_line(capsys.readouterr().err, *words)


def test_tables_that_are_not_the_spaces_are_refused(tables, tmp_path, capsys):
    table = tables["nsr"]
    for entries, origin, words in (
        (table.entries, {"space": "0" * 12}, ("nsr table belongs to another space",)),
        (dict(list(table.entries.items())[1:]), table.provenance, ("misses 1 subnets", "b1_k3e2_w4")),
        ({s: Estimate.exact(float("inf")) for s in table.entries}, table.provenance, ("nsr of b1_k3e2_w4 is inf",)),
        (table.entries, {**table.provenance, "checkpoint": "a"}, ("of different checkpoints", "a and b")),
    ):
        Table("nsr", "ratio", entries, origin).save(tmp_path / "nsr.parquet")
        latency = tables["latency"]
        Table("latency", "us", latency.entries, {**latency.provenance, "checkpoint": "b"}).save(
            tmp_path / "latency.parquet"
        )
        assert ask(tmp_path, "--k", "1") == 2
        one_line(capsys.readouterr().err, *words)


def test_options_that_need_each_other(tmp_path, capsys):
    for options, words in (
        (("--tables", str(tmp_path)), ("give --space",)),
        (("--space", "x.toml"), ("--space goes with --tables",)),
        (("--tables", str(tmp_path), "--space", "demo"), ("nsr.parquet", "no such table")),
    ):
        assert main(["search", *options]) == 2
        one_line(capsys.readouterr().err, *words)


def test_a_proof_that_fails_fails_the_command(tables, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deploy.search.query, "prove", lambda *_: Proof(1, 1, 1, 0, "the front of sub-space 1"))
    assert ask(tmp_path, "--prove") == 1
    assert "the front of sub-space 1 differs" in capsys.readouterr().err


def test_a_run_is_asked_for_full_models(tmp_path, tmp_path_factory):
    """Shares are of the teacher; what lies outside the blocks counts; foreign tables and checkpoints are noticed."""
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path)
    options = arguments(finished.config, tmp_path)
    asked = run("search", *options, "--size-budget", "90%", "--latency-budget", "60s", "--k", "3", "--json")
    assert asked.returncode == 0, asked.stderr
    answer, searched = json.loads(asked.stdout), record(folder / "search.json")
    assert answer["scope"] == "full models"
    assert answer["budgets"]["size_bits"] == 0.9 * searched["teacher_size_bits"]
    _, space = load_experiment(finished.config, Overrides())
    names = ("nsr", "size", "latency-corrected")
    of = candidates(space, [Table.load(folder / "tables" / f"{name}.parquet") for name in names])
    limits = {"size": 0.9 * searched["teacher_size_bits"] - searched["outside_blocks"]["size_bits"]}
    expected = k_best_by_all(of, limits, 3)
    assert [row["nsr"] for row in answer["selected"]] == [r.costs[0] for r in expected]
    whole = expected[0].costs[1] + searched["outside_blocks"]["size_bits"]
    assert answer["selected"][0]["size_bits"] == whole <= answer["budgets"]["size_bits"]

    small = run("search", *options, "--size-budget", "1%")
    assert small.returncode == 2
    one_line(small.stderr, "below the smallest model's")

    path = folder / "tables" / "nsr.parquet"
    nsr = Table.load(path)
    for what, words in (("key", "another configuration or run"), ("checkpoint", "another checkpoint")):
        Table("nsr", "ratio", nsr.entries, {**nsr.provenance, what: "f00"}).save(path)
        foreign = run("search", *options, "--k", "2")
        assert foreign.returncode == 2
        one_line(foreign.stderr, "the nsr table", words, "f00")
