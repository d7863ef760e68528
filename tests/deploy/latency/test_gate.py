"""The gate before the search: which tau-b counts, what is said and recorded; through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.latency.gate import CORRECTED, PLAIN, check_gate, check_threshold, gate_text
from deploy.latency.gate import gate as gate_of
from deploy.pipeline.agree import sampled_architectures
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.models import compile_sample
from deploy.run.records import Correction, GateRecord, RankStatistics
from hil.errors import CheckFailed, UsageError
from hil.measurement import Conditions
from hil.stage import sha256_of
from hil.store import Store
from tests.deploy.tiny_experiment import REPOSITORY, Finished, arguments, finished_run, one_line, record

IMPOSSIBLE = "1.0"


def gate(applied: bool, *thresholds: float) -> GateRecord:
    """The verdict on a table that agrees to 0.9, and to 0.97 with a correction."""
    statistics = RankStatistics(0.9, (0.8, 1.0), 36, 0.9, 1.0, 0.0, 1.0, 10, 1.0, (1.0, 1.0))
    return gate_of(statistics, Correction(0.0, 36, 0.9, 0.97, 2.0, 1.0, applied, {}, {}), *thresholds)


@pytest.mark.parametrize("applied, tau_b, table", [(False, 0.9, PLAIN), (True, 0.97, CORRECTED)])
def test_the_table_that_is_used_is_evaluated(applied, tau_b, table):
    verdict = gate(applied, 0.95)
    assert (verdict.tau_b, verdict.table, verdict.holds) == (tau_b, table, applied)


def test_a_table_below_is_refused_with_what_to_do():
    with pytest.raises(CheckFailed, match=r"tau-b 0\.9000.*at least 0\.95.*measure more.*--tau 0\.9\b"):
        check_gate(gate(False, 0.95))
    check_gate(gate(True, 0.95))
    check_gate(gate(False, 0.9))  # just enough


def test_an_override_is_recorded_and_said():
    accepted, same = gate(False, 0.95, 0.8), gate(True, 0.95, 0.95)
    check_gate(accepted)
    assert accepted == GateRecord(0.9, PLAIN, 0.8, override=True, holds=True)
    assert "--tau" in gate_text(accepted) and "holds" in gate_text(accepted)
    assert not same.override and "--tau" not in gate_text(same)
    assert "DOES NOT HOLD" in gate_text(gate(False, 0.95))


@pytest.mark.parametrize("asked", [1.01, -2.0, float("nan"), float("inf")])
def test_a_threshold_that_means_nothing(asked):
    with pytest.raises(UsageError, match=r"--tau .*: a rank correlation is between -1 and 1"):
        check_threshold(asked)


# The command line, over a run whose tables disagree


@pytest.fixture
def finished(tmp_path, tmp_path_factory, monkeypatch) -> tuple[Finished, Path]:
    """A run of which the record says tau-b 0.5 without feedback, and its copy's folder."""
    for name in ("HILNAS_BOARD", "HILNAS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    whole = finished_run(tmp_path_factory)
    folder = whole.copy(tmp_path)
    path = folder / "agreement.json"
    content = record(path)
    content["agreement"]["tau_b"], content["correction"]["applied"] = 0.5, False
    path.write_text(json.dumps(content))
    return whole, folder


def stamps(folder: Path) -> dict[str, int]:
    """When what the stages made was written, but for the records that tell the gate's verdict."""
    told = {"agreement.json", "search.json", "summary.json", "report.html", ".lock"}
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.name not in told}


def test_agree_fails_below_the_gate_keeps_its_record_and_measures_nothing_again(finished, tmp_path, capfd):
    whole, folder = finished
    before = stamps(folder)
    command = ["agree", *arguments(whole.config, tmp_path)]
    assert main([*command, "--tau", "0.9"]) == 1
    said = capfd.readouterr()
    one_line(said.err, "tau-b 0.5000", "at least 0.9", "--tau 0.5")
    assert "DOES NOT HOLD" in said.out and " badly: b1_" in said.out and "regret" in said.out
    kept = record(folder / "agreement.json")["gate"]
    assert (kept["tau"], kept["holds"], kept["override"]) == (0.9, False, True)
    assert main([*command, "--tau", "0.5"]) == 0
    assert main(command) == 0
    assert record(folder / "agreement.json")["gate"]["tau"] == -1
    assert stamps(folder) == before


def test_agree_draws_a_file(finished, tmp_path, capfd):
    whole, _ = finished
    command = ["agree", *arguments(whole.config, tmp_path), "--json", "--plot"]
    assert main([*command, str(tmp_path / "a.svg")]) == 0
    assert json.loads(capfd.readouterr().out)["gate"]["holds"] is True
    assert "noise ceiling" in (tmp_path / "a.svg").read_text()
    assert main([*command, str(tmp_path / "a.pdf")]) == 2
    one_line(capfd.readouterr().err, "a.pdf", "figures are written as SVG")


@pytest.mark.parametrize("question", [(), ("--k", "2"), ("--size-budget", "90%")])
def test_a_search_is_refused_below_the_gate_also_one_that_was_done(finished, tmp_path, capfd, question):
    whole, folder = finished
    before = stamps(folder)
    assert main(["search", *arguments(whole.config, tmp_path), "--tau", IMPOSSIBLE, *question]) == 1
    one_line(capfd.readouterr().err, "below the gate", "tau-b 0.5000", "at least 1 ", "measure more", "--tau 0.5")
    assert stamps(folder) == before


def test_a_search_that_was_not_done_is_refused_before_it_begins(finished, tmp_path, capfd):
    whole, folder = finished
    (folder / "search.json").unlink()
    assert main(["search", *arguments(whole.config, tmp_path), "--tau", IMPOSSIBLE]) == 1
    one_line(capfd.readouterr().err, "below the gate")
    assert not (folder / "search.json").exists()


def test_an_accepted_table_is_searched_and_says_so(finished, tmp_path, capfd):
    whole, folder = finished
    assert main(["loop", *arguments(whole.config, tmp_path), "--tau", "0.25"]) == 0
    shown = "at least 0.25 (--tau, not the configuration's): holds"
    assert shown in capfd.readouterr().out
    for name in ("search.json", "summary.json"):
        kept = record(folder / name)["gate"]
        assert (kept["tau_b"], kept["tau"], kept["override"], kept["holds"]) == (0.5, 0.25, True, True)
    assert shown.replace("'", "&#x27;") in (folder / "report.html").read_text()
    assert main(["search", *arguments(whole.config, tmp_path), "--tau", "0.25"]) == 0
    assert shown in capfd.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        (("agree", "--tau", "2"), ("--tau 2", "between -1 and 1")),
        (("search", "--tau", "nan"), ("--tau nan", "between -1 and 1")),
        (("agree", "--models", "2"), ("agreement.models 2", "at least 3 models")),
    ],
)
def test_options_that_mean_nothing(finished, tmp_path, capfd, options, words):
    whole, _ = finished
    name, *rest = options
    assert main([name, *arguments(whole.config, tmp_path), *rest]) == 2
    one_line(capfd.readouterr().err, *words)


def test_tables_alone_have_no_gate(capfd):
    assert main(["search", "--tables", "t", "--space", "s.toml", "--tau", "0.9"]) == 2
    one_line(capfd.readouterr().err, "never compared with full models", "--tau")


def test_a_quarantined_sample_is_left_out_and_named(finished, tmp_path, capfd):
    whole, folder = finished
    conditions = Conditions.from_json(record(folder / "agreement.json")["conditions"])
    experiment, space = load_experiment(whole.config, Overrides(models=6))
    with Run(folder) as run:
        context = Context(experiment, space, run, REPOSITORY / "boards.toml")
        subnet = sampled_architectures(context)[2]
        model = compile_sample(context, subnet, "sample002").model
    with Store(folder / "measurements.sqlite") as store:
        store.quarantine(sha256_of(model), conditions.key(), "hung once")
    assert main(["agree", *arguments(whole.config, tmp_path), "--models", "6"]) == 0
    judged = record(folder / "agreement.json")
    assert judged["agreement"]["n_models"] == len(judged["samples"]) == 5
    [left_out] = judged["excluded"]
    assert left_out["subnet"] == str(subnet) and "quarantined: hung once" in left_out["reason"]
    assert str(subnet) not in [s["subnet"] for s in judged["samples"]]
    assert f"excluded: {subnet}: quarantined: hung once" in capfd.readouterr().out
