"""`hilnas profile`: models, protocols and stores that cannot be used; names in full."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.cli.profile_table import notes, rows_of
from hil.measurement import Measurement
from tests.chain_model import conv_chain
from tests.deploy.cli.failing import BOARDS, MODEL, SUBNET, USAGE, profile, truncate
from tests.deploy.cli.test_results_command import BAD, CONDITIONS, GOOD


@pytest.mark.parametrize("option", [("--runs", "0"), ("--rounds", "0"), ("--warmup-runs", "-1")])
def test_an_impossible_protocol(fails, tmp_path, model, option):
    fails(USAGE, ["profile", model, "--boards", BOARDS, "--store", tmp_path / "s", *option], "runs and rounds")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a text file\n", "not a TFLite file"), (b"", "not a TFLite file"), (b"\0\0\0\0TFL3", "cut short or corrupt")],
)
def test_a_file_that_is_no_model(fails, tmp_path, content, words):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    fails(MODEL, profile(tmp_path, path), "model.tflite", words)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
def test_a_model_that_is_cut_short(fails, tmp_path, model, share):
    path = Path(shutil.copyfile(model, tmp_path / "model.tflite"))
    truncate(path, share)
    fails(MODEL, profile(tmp_path, path), "model.tflite")


def test_a_model_that_is_missing_or_a_folder(fails, tmp_path):
    fails(USAGE, profile(tmp_path, tmp_path / "none.tflite"), "none.tflite", "No such file")
    fails(USAGE, profile(tmp_path, tmp_path), str(tmp_path), "directory")


def test_a_store_that_is_none(fails, tmp_path, model):
    (tmp_path / "store.sqlite").write_text("not a database, but long enough to look like one" * 40)
    fails(USAGE, profile(tmp_path, model), "store.sqlite", "not a usable store")


def test_a_model_is_named_in_full_where_no_terminal_is(tmp_path, finished, capfd):
    model = finished.folder / "subnets" / "b2_k3e2-k3e6_w8.tflite"
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    assert model.name in capfd.readouterr().out


def test_one_model_under_two_names(tmp_path, model, capfd):
    """Measured once, shown under both."""
    same = Path(shutil.copyfile(model, tmp_path / "same.tflite"))
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    capfd.readouterr()
    first, *others = [str(word) for word in profile(tmp_path, model)]
    assert main([first, str(same), *others, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert sorted(m["model"] for m in shown) == sorted([SUBNET, "same.tflite"])
    assert shown[0]["latencies_us"] == shown[1]["latencies_us"]


def shown(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `hilnas profile` prints on the loopback board."""
    assert main([str(word) for word in arguments]) == 0, capfd.readouterr().err
    return capfd.readouterr().out


def row(table: str, name: str) -> list[str]:
    (found,) = [line for line in table.splitlines() if line.startswith("│") and line.split("│")[1].strip() == name]
    return [cell.strip() for cell in found.split("│")[1:-1]]


def chains(folder: Path, **lengths: int) -> list[Path]:
    """`NAME/model.tflite`, each with its own work."""
    for name in lengths:
        (folder / name).mkdir()
    return [conv_chain(folder / name / "model.tflite", length) for name, length in lengths.items()]


def test_files_of_one_name_are_told_apart_by_the_shortest_path(tmp_path, capfd):
    short, long = chains(tmp_path, short=2, long=400)
    other = conv_chain(tmp_path / "other.tflite", 3)
    command = profile(tmp_path, short)
    table = shown(capfd, *command[:2], long, other, *command[2:])
    names = ("short/model.tflite", "long/model.tflite", "other.tflite")
    medians = {name: float(row(table, name)[1]) for name in names}
    assert medians["long/model.tflite"] > 10 * max(medians["short/model.tflite"], medians["other.tflite"])
    found = json.loads(shown(capfd, *command[:2], long, *command[2:], "--json"))
    by_name = {m["model"]: m for m in found}
    assert set(by_name) == set(names[:2]) and [by_name[name]["path"] for name in names[:2]] == [str(short), str(long)]
    first_ms = {name: f"{by_name[name]['first_us'] / 1000:.2f}" for name in by_name}
    assert all(row(table, name)[5] == text for name, text in first_ms.items())  # its own, not its namesake's
    capfd.readouterr()
    sizes = json.loads(shown(capfd, *command[:2], long, *command[2:], "--memory", "--json"))
    assert [one["model"] for one in sizes] == list(names[:2])


def test_a_file_named_twice_is_one_row(tmp_path, monkeypatch, capfd):
    (path,) = chains(tmp_path, a=2)
    monkeypatch.chdir(tmp_path)
    command = profile(tmp_path, path)
    table = shown(capfd, *command[:2], "a/model.tflite", "./a/model.tflite", *command[2:])
    assert len([line for line in table.splitlines() if "model.tflite" in line]) == 1


def test_copies_are_measured_once_and_no_sample_counts_twice(tmp_path, capfd):
    (path,) = chains(tmp_path, a=2)
    (tmp_path / "b").mkdir()
    copy = Path(shutil.copyfile(path, tmp_path / "b" / "model.tflite"))
    command = profile(tmp_path, path)
    table = shown(capfd, *command[:2], copy, *command[2:])
    rows = [row(table, f"{folder}/model.tflite") for folder in "ab"]
    assert rows[0][1:] == rows[1][1:] and rows[0][4].split("x")[0] == "2"


def test_what_comes_from_the_store_is_marked_with_its_date(tmp_path, capfd):
    old, new = chains(tmp_path, old=2, new=3)
    command = profile(tmp_path, old)
    assert "stored" not in shown(capfd, *command)
    day = datetime.now(UTC).date().isoformat()
    table = shown(capfd, *command[:2], new, *command[2:])
    assert row(table, "old/model.tflite")[7].startswith(f"stored {day}") and row(table, "new/model.tflite")[7] == "now"
    assert "1 of 2 models with samples from" in table and "store.sqlite, not measured now; --no-skip-existing" in table
    mixed = shown(capfd, *command, "--rounds", "3")
    assert row(mixed, "model.tflite")[7].endswith("(1 of 3 rounds)") and "all models with samples from" in mixed
    found = json.loads(shown(capfd, *command, "--rounds", "4", "--json"))
    assert [m["stored"] for m in sorted(found, key=lambda m: m["round"])] == [True, True, True, False]
    again = shown(capfd, *command, "--no-skip-existing")
    assert "stored" not in again and "measured" not in again


def test_every_model_that_failed_is_named(fails, tmp_path):
    good, *bad = chains(tmp_path, good=2, a=3, b=4)
    for path in bad:  # a golden pair of another model
        path.with_name("model.input.bin").write_bytes(b"\0")
        path.with_name("model.expected.bin").write_bytes(b"\0")
    command = profile(tmp_path, good)
    words = ("2 of 3 models failed: ", "a/model.tflite failed on loopback: ", " | b/model.tflite failed on loopback: ")
    fails(MODEL, [*command[:2], *bad, *command[2:]], *words)


def test_a_driver_without_a_graph_cache_is_said(tmp_path, capfd):
    boards = tmp_path / "boards.toml"
    folder = tmp_path / "graphs"
    boards.write_text(f'[npu]\nkind = "loopback"\n[npu.env]\nVIV_VX_CACHE_BINARY_GRAPH_DIR = "{folder}"\n')
    (path,) = chains(tmp_path, a=2)
    assert "no graph cache" not in shown(capfd, *profile(tmp_path, path))
    assert "no graph cache: one is configured" in shown(capfd, *profile(tmp_path, path, str(boards), "npu"))


def test_more_threads_than_cores_are_said_beside_the_number(tmp_path, capfd):
    boards = tmp_path / "boards.toml"
    boards.write_text('[crowd]\nkind = "loopback"\nthreads = 64\n')
    (path,) = chains(tmp_path, a=2)
    table = shown(capfd, *profile(tmp_path, path, str(boards), "crowd"))
    assert "oversubscribed" in row(table, "model.tflite")[-1]
    assert f"oversubscribed: 64 threads on {len(os.sched_getaffinity(0))} cores: set `threads` of crowd to it" in table


def test_a_model_that_failed_in_one_round_has_no_number():
    rounds = [replace(GOOD, job_id=str(n), round=n) for n in range(2)]
    broken = replace(BAD, job_id="b", model="broken", round=1)
    rows = rows_of([*rounds, replace(rounds[0], job_id="c", model="broken", model_sha256="b" * 64), broken], "2027")
    assert [r.name for r in rows] == [GOOD.model]


def test_the_advice_follows_from_what_timed_too_coarsely():
    old = replace(GOOD, latencies_us=(11.0, 12.0), flags=("coarse", "neighbours"), others_busy=0.25)
    program = replace(old, conditions=replace(CONDITIONS, driver="benchmark_model"), cores=4)
    jiffies = replace(old, cores=4, clock_ns=4_000_000, calls=100)

    def said(measurement: Measurement) -> list[str]:
        return list(notes(rows_of([measurement], "2027")))

    assert said(old)[0].startswith("neighbours: other processes had up to 25% of the cores: end them")
    assert said(old)[1].startswith("coarse: timed in steps of 1 us, more than 1 % of the latency: an earlier version")
    assert said(program)[1].endswith('driver = "python" times in nanoseconds')
    assert "steps of 40 us" in said(jiffies)[1] and "no fine timers" in said(jiffies)[1]
