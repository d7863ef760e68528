"""The whole loop in a few seconds; killed at every stage, interrupted, called twice: nothing is lost."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.run.folder import cpu_seconds
from nas.table import Table
from nas.training.train import load
from tests.deploy.tiny_experiment import (
    AGREEMENT_MODELS,
    AGREEMENT_ROUNDS,
    BUDGETS,
    CONFIRM_ROUNDS,
    CONFIRMED,
    MEASUREMENTS,
    PROFILED,
    SHIP_ROUNDS,
    SHIPPED,
    STAGES,
    SUBNETS,
    TIMED,
    Finished,
    Started,
    arguments,
    finished_run,
    one_line,
    record,
    run,
    start,
    stored,
    write_experiment,
)

FETCHED = re.compile(
    r"""<(?:script|img|iframe|link|source|audio|video)\b[^>]*\b(?:src|href)\s*=\s*(?!"data:image/)|@import|url\(\s*["']?http"""
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def values(run_folder: Path, table: str = "nsr") -> dict[str, float]:
    entries = Table.load(run_folder / "tables" / f"{table}.parquet").entries
    return {str(subnet): entry.value for subnet, entry in entries.items()}


def contents(run_folder: Path) -> dict[str, tuple[int, int]]:
    """Modification time and inode of everything that a stage makes."""
    rewritten = {"summary.json", "report.html", "experiment.json", ".lock"}  # cheap, so written every time
    paths = (p for p in run_folder.rglob("*") if p.is_file() and p.name not in rewritten and ".sqlite-" not in p.name)
    return {str(p.relative_to(run_folder)): (p.stat().st_mtime_ns, p.stat().st_ino) for p in paths}


def names(run_folder: Path) -> set[str]:
    """Of everything that a stage makes; what was measured names a table's version, and differs."""
    return {re.sub(r"-[0-9a-f]{12}\.parquet$", "-VERSION.parquet", name) for name in contents(run_folder)}


def starts(stderr: str) -> list[str]:
    return re.findall(r"^(\w+): starts$", stderr, re.MULTILINE)


def wait_until(holds: Callable[[], bool], process: Started, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert process.process.poll() is None, process.said
        assert time.monotonic() < deadline, f"{timeout_s} s: {process.said}"
        time.sleep(0.002)


# The whole loop


def test_the_summary_holds_what_it_promises(finished):
    summary = record(finished.folder / "summary.json")
    assert summary["data"] == {"spec": "scenes", "size": [64, 96], "classes": 11, "train": 14, "val": 4}
    assert [m["name"] for m in summary["models"]] == ["fast"]
    assert summary["teacher"]["name"] == "teacher"
    for model in (summary["teacher"], summary["teacher_plus"], *summary["models"]):
        assert 0 <= model["miou_fp32"] <= 100 and 0 <= model["miou_int8"] <= 100
        assert model["size_bits"] > 0 and isinstance(model["subnet"], str)
        latency = model["latency_us"]
        assert 0 < latency["median"] <= latency["p90"] and latency["n"] == 3 * SHIP_ROUNDS
    agreement = summary["agreement"]
    assert -1 <= agreement["ci95"][0] <= agreement["tau_b"] <= agreement["ci95"][1] <= 1
    assert agreement["n_models"] == AGREEMENT_MODELS
    bundle = summary["bundle"]
    assert bundle["verified"] is True and Path(bundle["path"], "manifest.json").is_file()
    seconds = summary["seconds"]
    assert list(seconds) == [*STAGES, "total"]
    assert seconds["total"] == pytest.approx(sum(seconds[stage] for stage in STAGES), abs=0.1)


def test_every_subnet_is_compiled_measured_and_exact(finished):
    counts = record(finished.folder / "summary.json")["counts"]
    assert counts == {"subnets_compiled": SUBNETS, "subnets_measured": TIMED, "subnets_exact_parity": SUBNETS}
    assert len(list((finished.folder / "subnets").glob("*.tflite"))) == SUBNETS
    for table in ("nsr", "size", "latency", "latency-corrected"):
        assert len(values(finished.folder, table)) == SUBNETS
    assert len(stored(finished.folder)) == MEASUREMENTS


def test_the_report_is_one_file(finished):
    page = (finished.folder / "report.html").read_text(encoding="utf8")
    without_code = re.sub(r"<script[^>]*>.*?</script>", "<script></script>", page, flags=re.DOTALL)
    assert "<script></script>" in without_code
    assert not FETCHED.findall(without_code)
    assert not re.findall(r"<script[^>]*\bsrc\s*=", page)
    assert "fast" in without_code and "Kendall" in without_code


def test_a_second_call_touches_no_stage(finished, tmp_path):
    folder = finished.copy(tmp_path)
    before, state = contents(folder), (folder / "state.json").read_bytes()
    started_s = cpu_seconds()
    again = run("loop", *arguments(finished.config, tmp_path))
    assert cpu_seconds() - started_s < 10
    assert again.returncode == 0 and starts(again.stderr) == []
    assert contents(folder) == before and (folder / "state.json").read_bytes() == state
    assert record(folder / "summary.json")["seconds"] == record(finished.folder / "summary.json")["seconds"]


def test_a_changed_setting_redoes_that_stage_and_the_later_ones(finished, tmp_path):
    folder = finished.copy(tmp_path / "runs")
    before, rows = contents(folder), stored(folder)
    state = record(folder / "state.json")["stages"]
    config = write_experiment(tmp_path, {"[retrain]\nsteps = 30": "[retrain]\nsteps = 12"})
    changed = run("loop", *arguments(config, tmp_path / "runs"))
    assert changed.returncode == 0, changed.stderr
    assert starts(changed.stderr) == ["retrain", "ship"]
    after = record(folder / "state.json")["stages"]
    kept = STAGES[: STAGES.index("retrain")]
    assert {stage: after[stage] for stage in kept} == {stage: state[stage] for stage in kept}
    redone = {name for name, stamp in contents(folder).items() if before.get(name) != stamp}
    assert {name.split("/")[0] for name in redone} <= {
        "students", "models", "evaluations", "bundle", "final.json", "state.json", "measurements.sqlite",
        "gallery",
    }  # fmt: skip
    assert not {name for name in redone if "sample" in name}
    assert stored(folder)[: len(rows)] == rows  # append-only
    assert load(folder / "students" / "fast.pt")["step"] == 12
    assert record(folder / "summary.json")["bundle"]["verified"] is True


def test_the_same_tables_give_the_same_search(finished, tmp_path):
    folder = finished.copy(tmp_path)
    found = (folder / "search.json").read_bytes()
    key = record(folder / "state.json")["stages"]["search"]["key"]
    state = (folder / "state.json").read_text().replace(key, "afresh")
    (folder / "state.json").write_text(state)
    (folder / "search.json").unlink()
    again = run("search", *arguments(finished.config, tmp_path))
    assert again.returncode == 0 and starts(again.stderr) == ["search"], again.stderr
    assert (folder / "search.json").read_bytes() == found


def test_two_budgets_may_find_the_same_architecture(finished, tmp_path):
    folder = finished.copy(tmp_path / "runs")
    two = 'latency = 50.0 }, { name = "small", size = 50.0 }]'
    config = write_experiment(tmp_path, {"latency = 50.0 }]": two})
    ended = run("loop", *arguments(config, tmp_path / "runs"))
    assert ended.returncode == 0, ended.stderr
    first, second = record(folder / "summary.json")["models"]
    assert first["subnet"] == second["subnet"] and (first["name"], second["name"]) == ("fast", "small")
    assert first["latency_us"] == second["latency_us"]  # one file, measured once


# Killed, interrupted, started twice


def test_killed_in_every_stage_it_goes_on_and_loses_nothing(finished, tmp_path):
    config, folder = write_experiment(tmp_path), tmp_path / "runs" / "tiny"
    command = ["loop", *arguments(config, tmp_path / "runs")]
    journal, agreed = folder / "subnets" / "nsr.jsonl", PROFILED + (AGREEMENT_MODELS + 1) * AGREEMENT_ROUNDS
    confirmed = (CONFIRMED + 1) * CONFIRM_ROUNDS
    in_the_middle: list[tuple[str, int, Callable[[], bool]]] = [  # a stage, the step at which it waits, when to kill
        ("teacher", 15, (folder / "teacher.pt").exists),
        ("distil", 15, (folder / "supernets.pt").exists),
        ("tables", 8, lambda: journal.exists() and journal.read_bytes().count(b"\n") > 2),
        ("profile", 5, lambda: len(stored(folder)) > 2),
        ("agree", 3, lambda: len(list((folder / "models").glob("*.tflite"))) > 2),
        ("agree", 9, lambda: len(stored(folder)) > PROFILED + 2),
        ("search", 1, lambda: True),
        ("search", 7, lambda: len(stored(folder)) > agreed + 4),
        ("retrain", 15, (folder / "students" / "fast.pt").exists),
        ("ship", 5, lambda: len(stored(folder)) > agreed + confirmed + 1),
        ("ship", 2 + BUDGETS + SHIPPED + 2, (folder / "evaluations" / "teacher_plus.jsonl").exists),
        (
            "ship",
            2 * (2 + BUDGETS) + SHIPPED + 1,
            lambda: any((folder / name).exists() for name in ("bundle", "bundle.part")),
        ),
    ]
    kept: list[tuple[str, str]] = []
    unfinished = STAGES[0]
    for stage, step, middle in in_the_middle:
        process = start(command, eager=True, held=(stage, step))
        process.wait_for(f"{stage}: starts")
        wait_until(middle, process)
        time.sleep(0.02)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL, f"{stage} was over before it was killed"
        expected = STAGES[STAGES.index(unfinished) : STAGES.index(stage) + 1]
        assert starts(process.said) == list(expected), "it did not go on where it had been killed"
        unfinished = stage
        state = record(folder / "state.json")["stages"] if (folder / "state.json").exists() else {}
        assert not state.get(stage, {}).get("done"), stage
        rows = stored(folder)
        assert rows[: len(kept)] == kept, f"killed in {stage}: a measurement was lost or changed"
        kept = rows
    ended = run(*command)
    assert ended.returncode == 0, ended.stderr
    assert starts(ended.stderr) == ["ship"]
    assert values(folder) == values(finished.folder)
    rows = stored(folder)
    assert rows[: len(kept)] == kept and len(rows) == MEASUREMENTS, "something was measured twice, or not at all"
    assert not [p for p in folder.rglob("*") if ".part" in p.name]
    assert names(folder) == names(finished.folder)
    assert record(folder / "summary.json")["bundle"]["verified"] is True


def test_a_training_killed_in_the_middle_ends_with_the_same_weights(finished, tmp_path):
    config = write_experiment(tmp_path)
    command = ["teacher", *arguments(config, tmp_path / "runs")]
    checkpoint = tmp_path / "runs" / "tiny" / "teacher.pt"
    process = start(command, eager=True, held=("teacher", 15))
    wait_until(checkpoint.exists, process)
    process.end(signal.SIGKILL)
    assert 0 < load(checkpoint)["step"] < 30, "killed too late to show anything"
    assert run(*command).returncode == 0
    whole, resumed = load(finished.folder / "teacher.pt"), load(checkpoint)
    assert resumed["step"] == whole["step"] == 30
    different = [n for n, tensor in whole["model"].items() if not tensor.equal(resumed["model"][n])]
    assert not different


def test_ctrl_c_while_it_trains_and_while_it_measures(finished, tmp_path):
    config, folder = write_experiment(tmp_path), tmp_path / "runs" / "tiny"
    command = ["loop", *arguments(config, tmp_path / "runs"), "--until", "profile"]
    for stage, step in (("teacher", 15), ("profile", 5)):
        process = start(command, eager=True, held=(stage, step))
        process.wait_for(f"{stage}: starts")
        done = (folder / "teacher.pt").exists if stage == "teacher" else lambda: len(stored(folder)) > 0
        wait_until(done, process)
        assert process.end(signal.SIGINT, group=True) == 130, process.said
        one_line(process.said, "interrupted", "run the same command to go on")
        assert not record(folder / "state.json")["stages"][stage]["done"]
    rows = stored(folder)
    ended = run(*command)
    assert ended.returncode == 0 and starts(ended.stderr) == ["profile"], ended.stderr
    assert stored(folder)[: len(rows)] == rows and len(stored(folder)) == PROFILED
    assert values(folder) == values(finished.folder)


def test_ctrl_c_before_anything_is_loaded(tmp_path):
    process = start(["loop", *arguments(write_experiment(tmp_path), tmp_path / "runs")])
    maps = Path(f"/proc/{process.process.pid}/maps")
    wait_until(lambda: "libtorch" in maps.read_text(), process)  # importing it has begun, and takes long
    assert process.end(signal.SIGINT, group=True) == 130, process.said
    one_line(process.said, "interrupted")


def test_a_second_process_on_one_run_is_refused(tmp_path):
    command = ["teacher", *arguments(write_experiment(tmp_path), tmp_path / "runs")]
    first = start(command, held=("teacher", 15))
    first.wait_for("teacher: starts")
    try:
        second = run(*command)
    finally:
        first.release()
    assert second.returncode == 2
    one_line(second.stderr, str(tmp_path / "runs" / "tiny"), "another hilnas")
    assert first.finish() == 0
    third = run(*command)
    assert third.returncode == 0 and starts(third.stderr) == []
