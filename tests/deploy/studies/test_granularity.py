"""The quantization settings reach the tables, and the command that compares schemes reads a finished run."""

from __future__ import annotations

import pytest

from deploy.cli import main
from deploy.run.config import Overrides, load_experiment
from deploy.run.settings.deployment import Quantization
from deploy.studies import granularity
from nas.errors import ConfigError
from nas.quant.scheme import DEFAULT, Scheme
from nas.table import Table
from tests.deploy.tiny_experiment import REPOSITORY, SUBNETS, arguments, finished_run, one_line, run, write_experiment

SETTINGS = {"[quantization]": '[quantization]\ngranularity = "tensor"\nobserver = "mse"\nequalize = true'}


def test_defaults_are_min_max_and_nothing_else():
    assert Quantization().scheme == DEFAULT == Scheme("channel", "minmax", equalize=False, bias_correction=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('observer = "percentil"', "unknown observer 'percentil'; did you mean 'percentile'"),
        ("equalise = true", "unknown key 'quantization.equalise'; did you mean 'equalize'"),
        ('bias_correction = "often"', "quantization.bias_correction"),
        ('granularity = "row"', "quantization.granularity"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, line, words):
    config = write_experiment(tmp_path, {"[quantization]": f"[quantization]\n{line}"})
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load_experiment(config, Overrides())


def test_settings_change_the_tables(tmp_path, tmp_path_factory):
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    before = Table.load(folder / "tables" / "nsr.parquet")
    config = write_experiment(tmp_path, SETTINGS)
    ended = run("loop", *arguments(config, tmp_path / "runs", "--until", "tables"))
    assert ended.returncode == 0, ended.stderr
    after = Table.load(folder / "tables" / "nsr.parquet")
    assert after.provenance["observer"] == "mse" and after.provenance["equalize"] is True
    changed = [s for s, entry in after.entries.items() if entry.value != before.entries[s].value]
    assert len(changed) == SUBNETS


def test_the_comparison_reads_a_finished_run(tmp_path, tmp_path_factory, capsys):
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    options = ["--config", str(finished.config), "--boards", str(REPOSITORY / "boards.toml"), "--subnets", "1"]
    assert main(["study", "granularity", "--run", str(folder), *options]) == 0
    heading, _, reference, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(granularity.SCHEMES) and reference.startswith("| float")
    assert {line.count("|") for line in rows} == {heading.count("|")}
    noise = [[float(cell) for cell in row.split("|")[-3:-1]] for row in rows]
    assert all(0 < value < 0.1 for pair in noise for value in pair)
    assert main(["study", "granularity", "--run", str(tmp_path / "nowhere"), *options]) == 2
    one_line(capsys.readouterr().err, "nowhere: no supernets.pt there")
    assert not (tmp_path / "nowhere").exists()
