"""`hilnas study lcpaq-bits`: what is recorded is shown and not computed again; what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.cli import main
from deploy.studies.lcpaq import bits
from deploy.studies.lcpaq.records import BitsRecord, BitsTable, PolicyScore
from tests.deploy.tiny_experiment import one_line


def recorded(share: float, seeds: tuple[int, ...]) -> BitsRecord:
    tables = {}
    for seed in seeds:
        for granularity in bits.GRANULARITIES:
            rows = {"INT8": PolicyScore(1.0, 80.0 + seed, "stem=8"), "LCPAQ": PolicyScore(0.67, 79.0, "stem=6")}
            tables[bits.table_name(1200, seed, granularity, share)] = BitsTable(81.0, rows, 20.0, 10)
    return BitsRecord(tables)


def test_recorded_tables_are_shown_without_training(tmp_path, capsys):
    record = recorded(0.67, (0, 1))
    record.write(tmp_path / record.FILE)
    assert main(["study", "lcpaq-bits", "--out", str(tmp_path), "--seeds", "0,1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Weight scales per channel; float: 81.00 %. The traces of 10 layers took"
    assert lines[1] == "20.0 s of CPU, 2.00 s per layer."
    assert "| INT8 | 100.0 | 80.00 | 81.00 | 80.50 |" in lines and "| LCPAQ | 67.0 | 79.00 | 79.00 | 79.00 |" in lines
    assert sum("Weight scales per" in line for line in lines) == 2
    assert BitsRecord.read(tmp_path / record.FILE) == record


def test_what_does_not_fit_with_every_seed_has_no_row(tmp_path, capsys):
    record = recorded(0.5, (0, 1))
    tables = {
        name: replace(table, rows={"INT8": table.rows["INT8"]}) if "seed 1" in name else table
        for name, table in record.tables.items()
    }
    BitsRecord(tables).write(tmp_path / record.FILE)
    assert main(["study", "lcpaq-bits", "--out", str(tmp_path), "--seeds", "0,1", "--share", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "| INT8 | 100.0 | 80.00 | 81.00 |" in said and "LCPAQ" not in said


@pytest.mark.parametrize("study", ["lcpaq-bits", "lcpaq-proxy"])
def test_seeds_that_are_none_are_refused(study, tmp_path, capsys):
    assert main(["study", study, "--out", str(tmp_path / "out"), "--seeds", "0,one"]) == 2
    one_line(capsys.readouterr().err, "--seeds 0,one", "0,1,2")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", ["0", "-1", "67", "nan"])
def test_a_share_that_is_none_is_refused(share, tmp_path, capsys):
    assert main(["study", "lcpaq-bits", "--out", str(tmp_path / "out"), "--share", share]) == 2
    one_line(capsys.readouterr().err, f"--share {share}", "above 0 and at most 1")
    assert not (tmp_path / "out").exists()
