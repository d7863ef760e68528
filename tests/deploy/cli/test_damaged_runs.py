"""Files of a run that were damaged, folders that cannot be written, a full disk."""

from __future__ import annotations

import resource
import shutil
import subprocess

import pytest
import torch

from deploy.cli import main
from tests.deploy.cli.failing import BOARDS, SUBNET, USAGE, changed, truncate
from tests.deploy.tiny_experiment import (
    HILNAS,
    REPOSITORY,
    arguments,
    environment,
    one_line,
    run,
    write_experiment,
)


def test_a_run_that_is_not_there(fails, tmp_path):
    for command in (
        ["bundle", "export", "--run", tmp_path, "--out", tmp_path / "out"],
        ["regress", "--run", tmp_path, "--update", "--baselines", tmp_path, "--boards", BOARDS],
    ):
        fails(USAGE, command, "summary.json", "no such file")
    fails(USAGE, ["report", *arguments(write_experiment(tmp_path), tmp_path / "runs")], "no finished run")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]", b"{}", b"null", b'{"teacher": 1, "models": 2}'])
def test_a_summary_that_cannot_be_read(fails, tmp_path, finished, content):
    folder = finished.copy(tmp_path)
    (folder / "summary.json").write_bytes(content)
    fails(USAGE, ["bundle", "export", "--run", folder, "--out", tmp_path / "out"], "summary.json")
    regress = ["regress", "--run", folder, "--baselines", tmp_path, "--boards", BOARDS, "--update"]
    fails(USAGE, regress, "summary.json")


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_state_that_cannot_be_read(fails, tmp_path, finished, content):
    folder = finished.copy(tmp_path)
    (folder / "state.json").write_bytes(content)
    fails(USAGE, ["loop", *arguments(finished.config, tmp_path)], "state.json")


@pytest.mark.parametrize("damage", ["cut", "foreign", "of another network"])
def test_a_checkpoint_that_is_damaged(fails, tmp_path, finished, damage):
    """Distillation, redone for a changed setting, needs the teacher's; the advice in the message must work."""
    folder = finished.copy(tmp_path / "runs")
    checkpoint = folder / "teacher.pt"
    if damage == "cut":
        truncate(checkpoint)
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, checkpoint)
    else:
        shutil.copyfile(folder / "supernets.pt", checkpoint)
    config = write_experiment(tmp_path, {"learning_rates = [3e-3]": "learning_rates = [2e-3]"})
    command = ["distil", *arguments(config, tmp_path / "runs")]
    fails(USAGE, command, "teacher.pt", "delete it to train again")
    checkpoint.unlink()
    again = run(*command)
    assert again.returncode == 0, again.stderr


def test_a_table_that_is_damaged(fails, tmp_path, finished):
    folder = finished.copy(tmp_path)
    table = folder / "tables" / "nsr.parquet"
    truncate(table)
    command = ["lut", "nsr", *arguments(finished.config, tmp_path)]
    fails(USAGE, command, "nsr.parquet", "not a table")
    table.unlink()
    assert main(command) == 0, "deleted, it is to be made again"


def test_a_journal_with_a_damaged_line(tmp_path, finished):
    """As a power cut may leave it; the subnets of the other lines are kept."""
    folder = finished.copy(tmp_path)
    changed(folder / "state.json", lambda state: state["stages"]["tables"].update(done=False))
    journal = folder / "subnets" / "nsr.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\0" * 40 + b"\n", *lines[4:]]))
    assert main(["lut", "nsr", *arguments(finished.config, tmp_path)]) == 0


@pytest.mark.parametrize("name", ["models/fast.tflite", "models/teacher.expected.bin", "bundle/model.tflite"])
def test_a_file_that_is_missing_is_made_again(tmp_path, finished, name):
    """What `regress` and `bundle export` say about a missing model: the loop makes it."""
    folder = finished.copy(tmp_path)
    (folder / name).unlink()
    assert main(["loop", *arguments(finished.config, tmp_path)]) == 0
    assert (folder / name).exists()


def test_an_export_of_a_model_that_is_missing(fails, tmp_path, finished):
    folder = finished.copy(tmp_path)
    (folder / "models" / "fast.tflite").unlink()
    export = ["bundle", "export", "--run", folder, "--out", tmp_path / "out"]
    fails(USAGE, export, "fast.tflite", "missing")
    fails(USAGE, [*export, "--model", "fats"], "no model 'fats'", "fast")
    fails(USAGE, ["regress", "--run", folder, "--update", "--baselines", tmp_path, "--boards", BOARDS], "fast.tflite")


# Folders that cannot be written, a full disk


def test_an_output_folder_that_cannot_be_written(fails, tmp_path, finished):
    file = tmp_path / "file"
    file.write_text("in the way")
    fails(USAGE, ["compile", "b1_k3e3-k3e3_w8", "--out", file], str(file))
    fails(USAGE, ["compile", "b1_k3e3-k3e3_w8", "--out", file / "below"], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", file / "below"], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", file], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", finished.folder], "is no bundle")
    fails(USAGE, ["loop", *arguments(finished.config, file)], str(file))
    fails(
        USAGE, ["profile", finished.folder / "subnets" / SUBNET, "--store", file / "s", "--boards", BOARDS], str(file)
    )
    assert file.read_text() == "in the way" and (finished.folder / "summary.json").exists()


@pytest.mark.parametrize("limit_bytes", [0, 8_000, 60_000])
def test_a_full_disk(tmp_path, limit_bytes):
    """A file that cannot grow any further, as on a full disk: the first write, or one in the middle of a checkpoint."""
    command = ["teacher", *arguments(write_experiment(tmp_path), tmp_path / "runs")]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

    ended = subprocess.run(
        [HILNAS, *command],
        check=False,
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=60,
    )
    assert ended.returncode == USAGE, ended.stderr
    one_line(ended.stderr, str(tmp_path / "runs" / "tiny"), "make room")
    again = run(*command)
    assert again.returncode == 0, again.stderr
