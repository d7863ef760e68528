"""`hilnas space`: a space in numbers, alone and with its tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deploy.cli import main
from deploy.cli.space import _short
from deploy.run.config import Overrides, load_experiment
from nas.estimate import Estimate
from nas.search.candidates import candidates
from nas.search.front import front
from nas.space import SearchSpace
from nas.table import Table, size_table
from tests.deploy.cli.failing import USAGE
from tests.deploy.tiny_experiment import SPACE, write_experiment


@pytest.fixture
def folder(tmp_path):
    """space.toml, and an NSR and a latency of every subnet."""
    (tmp_path / "space.toml").write_text(SPACE)
    space, rng = SearchSpace.load(tmp_path / "space.toml"), np.random.default_rng(0)
    for quantity, unit in (("nsr", "ratio"), ("latency", "us")):
        entries = {s: Estimate.exact(float(v)) for s, v in zip(space.all_subnets(), rng.random(12), strict=True)}
        Table(quantity, unit, entries, {"space": space.digest}).save(tmp_path / f"{quantity}.parquet")
    return tmp_path


def reported(capsys, *words) -> dict:
    assert main(["space", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_table1(capsys):
    found = reported(capsys, "table1", "--bits", "4,6,8")
    assert (found["space"], found["bits"], found["layers"], found["output_stride"]) == ("table1", [4, 6, 8], 18, 8)
    assert [block["subnets"] for block in found["blocks"]] == [216, 216, 1296, 1296, 216, 6]
    assert [block["subnets_with_bits"] for block in found["blocks"]] == [648, 648, 3888, 3888, 648, 18]
    assert (found["subnets"], found["subnets_with_bits"]) == (3246, 9738)
    assert (found["architectures"], found["architectures_with_bits"]) == (6**18, 6**18 * 3**6)
    assert found["blocks"][2]["reduction"] == 6**4 / 6**18
    assert found["pruning"] is None and {block["pareto_optimal"] for block in found["blocks"]} == {None}


def test_it_is_printed(capsys):
    assert main(["space", "table1"]) == 0
    said = capsys.readouterr().out
    assert "table1 (" in said and "6 blocks, 18 layers of 6 choices (k3e3 k3e6" in said and "output stride 8" in said
    assert "1.0e14 architectures; block-wise search evaluates 3246 subnets instead, 3.2e-11 as many" in said
    assert "with bits" not in said and "Pareto-optimal" not in said
    assert main(["space", "table1-os16", "--bits", "4,6,8"]) == 0
    said = capsys.readouterr().out
    assert "output stride 16" in said
    assert "with bits: 7.4e16 architectures; block-wise search evaluates 9738 subnets instead, 1.3e-13" in said


@pytest.mark.parametrize("objectives", [None, "nsr,latency"])
def test_with_tables_pruning_is_counted(folder, capsys, objectives):
    space = SearchSpace.load(folder / "space.toml")
    tables = {q: Table.load(folder / f"{q}.parquet") for q in ("nsr", "latency")} | {"size": size_table(space)}
    names = objectives.split(",") if objectives else ["nsr", "size", "latency"]
    expected = front(candidates(space, [tables[name] for name in names]))
    words = [folder / "space.toml", "--tables", folder, *(["--objectives", objectives] if objectives else [])]
    found = reported(capsys, *words)
    left = [len(subnets) for subnets in expected.pruned.subnets]
    assert [block["pareto_optimal"] for block in found["blocks"]] == left
    assert found["pruning"] == {
        "objectives": names,
        "subnets": sum(left),
        "architectures": left[0] * left[1],
        "front": len(expected),
    }
    assert main(["space", *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert f"Pareto-optimal over ({', '.join(names)}): 12 -> {sum(left)} subnets, 32 -> {left[0] * left[1]}" in said
    assert f"{len(expected)} of them on the exact Pareto front" in said


def test_a_configurations_space_is_a_file_too(tmp_path, capsys):
    _, space = load_experiment(write_experiment(tmp_path), Overrides())
    assert reported(capsys, tmp_path / "space.toml")["digest"] == space.digest


def test_what_means_nothing_is_refused(folder, fails):
    space = folder / "space.toml"
    fails(USAGE, ["space", "tabl1"], "space 'tabl1'", "did you mean 'table1'?")
    fails(USAGE, ["space", folder / "none.toml"], "none.toml", "no such file")
    fails(USAGE, ["space", space, "--bits", "4;8"], "--bits 4;8", "for example 4,6,8")
    fails(USAGE, ["space", space, "--bits", "9"], "--bits 9", "bits")
    fails(USAGE, ["space", space, "--objectives", "nsr"], "--objectives goes with --tables")
    fails(USAGE, ["space", space, "--tables", folder / "none"], "nsr.parquet", "give --tables a folder")
    fails(USAGE, ["space", space, "--tables", folder, "--objectives", "nsr,watts"], "no table of 'watts'", "nsr, size")
    fails(USAGE, ["space", "table1", "--tables", folder], "the nsr table belongs to another space")
    fails(USAGE, ["space", space, "--bits", "8", "--tables", folder], "the nsr table belongs to another space")
    (folder / "nsr.parquet").write_bytes(b"PAR1")
    fails(USAGE, ["space", space, "--tables", folder], "not a table of this kit")


def test_a_space_that_nothing_can_list(folder, fails):
    space = folder / "space.toml"
    space.write_text(SPACE.replace("layers = 2, teacher_layers = 2", "layers = 300, teacher_layers = 2"))
    assert main(["space", str(space)]) == 0
    fails(USAGE, ["space", space, "--tables", folder], "the nsr table belongs to another space")
    space.write_text(SPACE.replace("layers = 2, teacher_layers = 2", "layers = 99999, teacher_layers = 2"))
    fails(USAGE, ["space", space], "space 'tiny'", "over 1e300 architectures", "fewer layers")


def test_incomplete_tables_are_named(folder, fails):
    table = Table.load(folder / "latency.parquet")
    replace(table, entries=dict(list(table.entries.items())[1:])).save(folder / "latency.parquet")
    fails(USAGE, ["space", folder / "space.toml", "--tables", folder], "latency table misses 1 subnets", "b1_k3e2_w4")


def test_numbers_are_short():
    assert [_short(n) for n in (9999, 10_077_696, 6**18, 3.2e-11, 0.25)] == [
        "9999",
        "1.0e7",
        "1.0e14",
        "3.2e-11",
        "2.5e-1",
    ]
