"""`hilnas board characterize` on a loopback board: killed half-way it goes on, and its own target agrees with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.targets.placement import load_target
from hil.store import Store
from tests.deploy.tiny_experiment import REPOSITORY

FILES, ROUNDS = 58, 4
WORDS = ["--size", "24x32", "--runs", "4", "--warmup-runs", "1", "--rounds", str(ROUNDS), "--json"]


def command(folder: Path, *options: str) -> list[str]:
    places = ["--boards", f"{folder}/boards.toml", "--out", f"{folder}/targets", "--store", f"{folder}/s.sqlite"]
    return ["board", "characterize", "here", *places, *WORDS, *options]


def stored(folder: Path) -> dict[str, str]:
    """When each job was measured."""
    if not (folder / "s.sqlite").exists():
        return {}
    with Store(folder / "s.sqlite") as store:
        found = store.all()
    assert len({m.job_id for m in found}) == len(found)
    return {m.job_id: m.started_at for m in found}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder whose command was killed in the middle, and what it had measured."""
    folder = tmp_path_factory.mktemp("characterize")
    (folder / "boards.toml").write_text('[here]\nkind = "loopback"\nserver = "asyncssh"\ntarget = "cpu-xnnpack"\n')
    argv = [sys.executable, "-m", "deploy.cli", *command(folder)]
    started = subprocess.Popen(argv, cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(stored(folder)) < 20 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    return folder, stored(folder)


def test_it_goes_on_where_it_was_killed_and_writes_a_target(killed, capsys):
    folder, before = killed
    assert 20 <= len(before) < FILES * ROUNDS and not (folder / "targets").exists()
    code = main(command(folder))
    said = capsys.readouterr()
    after = stored(folder)
    assert code in (0, 1) and len(after) == FILES * ROUNDS and before.items() <= after.items()
    found = {fact["fact"]: fact for fact in json.loads(said.out)["facts"]}
    right = [fact["verdict"] for name, fact in found.items() if name.startswith("resize")]
    assert right == ["agrees"] * 10
    assert found["rounding of uint8"]["verdict"] == "agrees"
    assert {fact["mismatched"] for fact in found.values()} == {0.0, None}
    assert found["depthwise: 7x7"]["claim"]["slower"] and found["depthwise: 7x7"]["ratio"] > 1
    assert found["graph cache"]["verdict"] == "no rule"
    target = load_target(folder / "targets", "here")
    resize = next(
        rule for rule in target.rules if "RESIZE_BILINEAR" in (rule.operators or ()) and rule.reason == "XNNPACK"
    )
    assert resize.evidence == "board" and target.fast_place == "CPU" and target.safe_resize_factors == ()


def test_its_own_target_agrees_with_the_same_measurements(killed, capsys):
    folder, _ = killed
    main(command(folder))
    before = stored(folder)
    capsys.readouterr()
    assert main(command(folder, "--target", "here")) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert "disagrees" not in {fact["verdict"] for fact in facts} and stored(folder) == before
