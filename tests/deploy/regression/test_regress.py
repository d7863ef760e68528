"""`hilnas regress` from the command line, on the real loopback board, with models whose work is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter

from deploy.cli import main
from deploy.regression.regress import LONGEST, Outcome, conclude
from deploy.run.records import (
    AgreementSummary,
    BundleRecord,
    Correction,
    DataSummary,
    GateRecord,
    LatencyRecord,
    MetricRecord,
    ModelRecord,
    SpaceSummary,
    SubnetCounts,
    Summary,
)
from hil.errors import Incomparable, ModelError
from hil.regression import Comparison
from hil.store import Store
from tests.chain_model import SHAPE, conv_chain
from tests.deploy.cli.test_results_command import GOOD

ROUNDS, RUNS = 4, 8
SHORT, LONG = 200, 400
BOARDS = '[bench]\nkind = "loopback"\nfleet = "here"\n[gone]\nkind = "ssh"\nhost = "127.0.0.1"\nport = 9\nuser = "x"\n'


def add_model(folder: Path, name: str, length: int, description: str = "") -> None:
    """NAME.tflite and its golden pair, the answer being the runtime's own."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    path = conv_chain(folder / f"{name}.tflite", length, description=description)
    given = np.random.default_rng(1).integers(-128, 128, SHAPE, dtype=np.int8)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    (folder / f"{name}.input.bin").write_bytes(given.tobytes())
    (folder / f"{name}.expected.bin").write_bytes(answer.tobytes())


def make_run(folder: Path, **lengths: int) -> Path:
    """What `regress` reads of a finished run: the summary, and the models by name."""
    summary_of(*lengths).write(folder / "summary.json")
    for name, length in lengths.items():
        add_model(folder / "models", name, length)
    return folder


def summary_of(teacher: str, *models: str) -> Summary:
    """Of a run with these models."""
    latency = LatencyRecord(1.0, 1.0, 10, (1.0, 1.0))
    records = [
        ModelRecord(name, "teacher", "miou", 50.0, 50.0, 8, None, (8,), (8,), None, 1, None, latency)
        for name in (teacher, *models)
    ]
    return Summary(
        name="run",
        data=DataSummary("scenes", (64, 96), 2, 1, 1),
        task="segmentation",
        metric=MetricRecord("mIoU", "miou"),
        space=SpaceSummary("tiny", "0" * 16, 1),
        teacher=records[0],
        teacher_plus=replace(records[0], name="teacher_plus"),
        models=tuple(records[1:]),
        budgets=(),
        agreement=AgreementSummary(1.0, (1.0, 1.0), 3, 1.0, 1.0),
        correction=Correction(0.0, 3, 1.0, 1.0, 0.0, 0.0, False, {}, {}),
        gate=GateRecord(1.0, "the table as measured", 0.95, override=False, holds=True),
        counts=SubnetCounts(1, 1, 1),
        bundle=BundleRecord("bundle", teacher, True, "here", None),
        conditions=GOOD.conditions,
        seconds={"total": 1.0},
    )


class Bench:
    """The command with one board, and the folders of a test."""

    def __init__(self, folder: Path) -> None:
        self.baselines = folder / "baselines"
        self.boards = folder / "boards.toml"
        self.boards.write_text(BOARDS)

    def regress(self, run: Path, *more: str, board: str = "bench", threshold: str = "0.5") -> int:
        where = ["--board", board, "--boards", str(self.boards), "--baselines", str(self.baselines)]
        effort = ["--rounds", str(ROUNDS), "--runs", str(RUNS), "--threshold", threshold]
        return main(["regress", "--run", str(run), *where, *effort, *more])

    @property
    def suite(self) -> Path:
        return self.baselines / "here"

    def change(self, name: str, **values: object) -> None:
        path = self.suite / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def record(self, name: str) -> dict:
        return json.loads((self.suite / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def updated(tmp_path_factory) -> tuple[Path, Path]:
    """(folder with a baseline, the run that it was made of)."""
    folder = tmp_path_factory.mktemp("updated")
    run = make_run(folder / "run", teacher=LONG, fast=SHORT)
    assert Bench(folder).regress(run, "--update") == 0
    return folder, run


@pytest.fixture
def bench(updated, tmp_path) -> Bench:
    shutil.copytree(updated[0] / "baselines", tmp_path / "baselines")
    return Bench(tmp_path)


@pytest.fixture
def run(updated) -> Path:
    return updated[1]


def test_update_writes_files_and_samples_for_the_kind_of_board(bench, run):
    files = {
        f"{name}{end}" for name in ("teacher", "fast") for end in (".tflite", ".input.bin", ".expected.bin", ".json")
    }
    assert {path.name for path in bench.suite.iterdir()} == files
    assert (bench.suite / "fast.tflite").read_bytes() == (run / "models" / "fast.tflite").read_bytes()
    record = bench.record("fast")
    assert [len(runs) for runs in record["rounds_us"]] == [RUNS] * ROUNDS
    assert record["conditions"]["board"] == "here" and record["threshold"] is None
    assert record["measured_at"].startswith("20") and 0 < record["resolution_us"] < 1


def test_the_very_same_files_are_held_against_the_stored_samples(bench, run, capsys):
    assert bench.regress(run, threshold="5.0") == 0
    said = capsys.readouterr()
    measured = bench.record("fast")["measured_at"][:10]
    assert [line.split()[:4] for line in said.out.splitlines()] == [
        ["ok", "fast", "(stored", measured],
        ["ok", "teacher", "(stored", measured],
    ]
    assert said.err == ""


def test_stored_samples_of_an_earlier_version_have_no_date_and_whole_microseconds(bench, run, capsys):
    """They are compared with unless a microsecond is more than 1 % of them."""
    for name in ("fast", "teacher"):
        record = {k: v for k, v in bench.record(name).items() if k not in ("measured_at", "resolution_us")}
        record["rounds_us"] = [[int(us) for us in runs] for runs in record["rounds_us"]]
        (bench.suite / f"{name}.json").write_text(json.dumps(record))
    bench.change("fast", rounds_us=[[11, 12] * (RUNS // 2)] * ROUNDS)
    assert bench.regress(run, threshold="5.0") == 5
    said = capsys.readouterr()
    assert "fast: its samples (11.5 us) were taken in whole microseconds, too coarse to compare with; --up" in said.out
    assert "ok      teacher (stored at an unknown time):" in said.out
    assert "fast: its samples" in said.err and "too coarse" in said.err


def test_what_is_doubtful_stands_beside_the_comparison(bench, run, tmp_path, capsys):
    # 64 threads on a busy machine took 90 times as long: the flags are what is asked for
    bench.boards.write_text(BOARDS.replace('fleet = "here"', 'fleet = "here"\nthreads = 64'))
    for name in ("fast", "teacher"):
        bench.change(name, conditions={**bench.record(name)["conditions"], "threads": 64})
    assert bench.regress(run, threshold="9000") == 0
    assert all("oversubscribed" in line for line in capsys.readouterr().out.splitlines())
    assert bench.regress(run, "--json", threshold="9000") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert all("oversubscribed" in m["flags"] and m["taken"].startswith("20") for m in models)


def test_a_slower_head_is_measured_twice_and_fails(bench, tmp_path, capsys):
    head = make_run(tmp_path / "run", teacher=LONG, fast=4 * SHORT)  # no neighbour hides that
    bench.change(
        "fast", conditions={**bench.record("fast")["conditions"], "kernel": "1.0"}
    )  # interleaved needs no past
    assert bench.regress(head, "--json", threshold="0.3") == 1
    found = {m["model"]: m for m in json.loads(capsys.readouterr().out)["models"]}
    fast = found["fast"]
    assert fast["status"] == "regressed" and fast["against"] == "interleaved"
    assert all(fast[which]["slower"] and fast[which]["ci95"][0] > 1.3 for which in ("first", "second"))
    assert fast["first"] != fast["second"]
    assert found["teacher"]["against"] == "stored"
    with Store(head / "regress.sqlite") as store:
        done = [m for m in store.all() if m.model.startswith("fast")]
    rounds = fast["first"]["rounds"] + fast["second"]["rounds"]
    assert sorted((m.model, m.round) for m in done) == [(n, r) for n in ("fast", "fast (base)") for r in range(rounds)]
    order = [m.model for m in sorted(done, key=lambda m: m.round)]
    assert all(set(order[i : i + 2]) == {"fast", "fast (base)"} for i in range(0, len(order), 2))


def test_reports_are_written_whatever_the_verdict(bench, tmp_path, capsys):
    head = make_run(tmp_path / "run", teacher=LONG, fast=4 * SHORT)
    files = {option: tmp_path / name for option, name in (("--report", "r.md"), ("--junit", "r.xml"))}
    assert bench.regress(head, *(str(word) for pair in files.items() for word in pair), threshold="0.3") == 1
    assert "2 models, 1 slower" in files["--report"].read_text()
    assert 'tests="2" failures="1"' in files["--junit"].read_text()
    assert "SLOWER" in capsys.readouterr().out
    assert bench.regress(head, "--report", "r.pdf") == 2
    assert bench.regress(head, "--update", "--junit", "r.xml") == 2
    assert "r.pdf: give a file" in (said := capsys.readouterr().err) and "--update compares nothing" in said


def test_an_undecided_comparison_is_measured_longer(bench, run, capsys):
    bench.change("fast", rounds_us=[[1] * RUNS, [10**7] * RUNS] * 2)  # rounds that disagree: faster, or slower?
    bench.change("teacher", threshold=9.0)  # as fast as when the baseline was made, but the machine may be busier
    assert bench.regress(run, "--json") == 0
    first = {m["model"]: m["first"] for m in json.loads(capsys.readouterr().out)["models"]}
    assert first["fast"]["rounds"] == LONGEST * ROUNDS and first["fast"]["ci95"][0] < 1 < first["fast"]["ci95"][1]


def test_nothing_old_answers(bench, run, tmp_path, capsys):
    for _ in range(2):
        assert bench.regress(run, "--store", str(tmp_path / "s.sqlite"), threshold="5.0") == 0
    with Store(tmp_path / "s.sqlite") as store:
        assert len(store.all()) == 2 * 2 * ROUNDS


def test_samples_alone_are_a_baseline_too(bench, run, capsys):
    (bench.suite / "fast.tflite").unlink()
    record = bench.record("fast")
    bench.change("fast", rounds_us=[[us / 10 for us in runs] for runs in record["rounds_us"]])
    assert bench.regress(run) == 1
    assert "SLOWER  fast (stored 20" in capsys.readouterr().out


def test_a_threshold_of_the_models_own_survives_an_update(bench, run, tmp_path, capsys):
    slow = make_run(tmp_path / "run", teacher=LONG, fast=LONG)
    for name in ("fast", "teacher"):
        bench.change(name, threshold=9.0)
    assert bench.regress(slow) == 0
    assert bench.regress(slow, "--update") == 0
    assert bench.record("fast")["threshold"] == 9.0


def test_models_of_a_folder(bench, tmp_path, capsys):
    add_model(tmp_path / "heads", "fast", SHORT, "built again")
    add_model(tmp_path / "heads", "teacher", LONG)
    arguments = ["--board", "bench", "--boards", str(bench.boards), "--baselines", str(bench.baselines)]
    effort = ["--rounds", "4", "--runs", "4", "--threshold", "5", "--store", str(tmp_path / "s.sqlite")]
    assert main(["regress", "--suite", str(tmp_path / "heads"), *arguments, *effort]) == 0
    assert "fast (interleaved)" in capsys.readouterr().out


def test_other_conditions_and_missing_models_are_not_compared(bench, tmp_path, capsys):
    head = make_run(tmp_path / "run", teacher=LONG, new=SHORT)
    bench.change("teacher", conditions={**bench.record("teacher")["conditions"], "kernel": "1.0", "threads": 64})
    assert bench.regress(head) == 5
    said = capsys.readouterr()
    assert "fast: not among today's models" in said.out and "new: no baseline; --update" in said.out
    assert "teacher: its samples were taken under other conditions (kernel, threads)" in said.out
    assert said.err.startswith("hilnas: 3 of 3 models not compared") and said.err.count("\n") == 1


def test_no_baseline_at_all(tmp_path, run, capsys):
    assert Bench(tmp_path).regress(run) == 5
    assert "no baseline there" in capsys.readouterr().err


def test_a_wrong_answer_is_the_models_fault(bench, tmp_path, capsys):
    head = make_run(tmp_path / "run", teacher=LONG, fast=SHORT + 1)
    expected = head / "models" / "fast.expected.bin"
    expected.write_bytes(bytes(len(expected.read_bytes())))
    assert bench.regress(head, threshold="5.0") == 4
    said = capsys.readouterr()
    assert "FAILS   fast: fast: outputs differ" in said.out and "ok      teacher" in said.out
    assert "1 of 2 models fail" in said.err


def test_a_board_that_is_not_there(bench, run, capsys):
    (bench.baselines / "gone").symlink_to(bench.suite)
    assert bench.regress(run, board="gone") == 3
    assert capsys.readouterr().err.startswith("hilnas: board gone")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 0},
        {"more": 1},
        {"rounds_us": [[-1]]},
        {"threshold": -1},
        {"threshold": "5"},
        {"rounds_us": [[1, "2"]]},
        {"resolution_us": 0},
        {"measured_at": 5},
        {"rounds_us": [3]},
        {"conditions": []},
        {"conditions": {"board": "here"}},
    ],
)
def test_a_damaged_baseline_names_its_file(bench, run, capsys, change):
    bench.change("fast", **change)
    assert bench.regress(run) == 2
    assert "here/fast.json" in capsys.readouterr().err


def test_a_baseline_of_an_earlier_version_is_read(bench, run, capsys):
    """It has a format in place of a schema version."""
    record = bench.record("fast")
    record.pop("schema_version")
    (bench.suite / "fast.json").write_text(json.dumps({"format": "hilnas-baseline/2", **record}))
    assert bench.regress(run, threshold="5.0") == 0
    assert "fast (stored 20" in capsys.readouterr().out
    assert bench.regress(run, "--update") == 0
    assert bench.record("fast")["schema_version"] == 1 and "format" not in bench.record("fast")
    (bench.suite / "fast.json").write_text(json.dumps({"format": "hilnas-baseline/1", **record}))
    assert bench.regress(run) == 2
    assert "here/fast.json: no schema version" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_baseline_that_is_no_record(bench, run, capsys, content):
    (bench.suite / "fast.json").write_text(content)
    assert bench.regress(run) == 2
    assert "fast.json" in capsys.readouterr().err


def test_too_few_rounds(bench, run, capsys):
    assert bench.regress(run, "--rounds", "3") == 2
    assert "--rounds 4" in capsys.readouterr().err


def test_only_what_both_measurings_say_is_a_regression():
    slower, same = (
        Comparison(100.0, 100 * r, r, (r - 0.01, r + 0.01), p, 0.05, 4) for r, p in ((1.2, 1e-9), (1.0, 0.5))
    )
    assert slower.slower and not same.slower
    assert conclude([Outcome("a", "stored", slower, same), Outcome("b", "stored", same)]) == 0
    assert conclude([Outcome("a", "stored", slower, slower), Outcome("b", gap="none")]) == 1
    with pytest.raises(Incomparable, match="1 of 2"):
        conclude([Outcome("a", "stored", same), Outcome("b", gap="none")])
    with pytest.raises(ModelError, match="1 of 2"):
        conclude([Outcome("a", "stored", slower, slower), Outcome("b", failure="b: crashed")])
