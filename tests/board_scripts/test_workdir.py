from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from board_scripts import workdir
from board_scripts.kernel_log import KernelLog
from board_scripts.workdir import Busy, Workdir, only_one, pinned_governor
from tests.board_scripts.script_programs import Runner

JOB = {"id": "one", "model": "m", "runs": 3}
ANSWER = {"id": "one", "ok": True, "latencies_us": [1, 2, 3]}


def test_an_answer_is_kept_for_this_very_job(tmp_path: Path) -> None:
    work = Workdir(str(tmp_path))
    assert work.kept(JOB) is None
    work.keep(JOB, ANSWER)
    assert untimed(Workdir(str(tmp_path)).kept(dict(reversed(JOB.items())))) == ANSWER
    assert work.kept({**JOB, "runs": 4}) is None
    work.forget(["two", "one", "one"])
    assert work.kept(JOB) is None and not list((tmp_path / "spool").iterdir())


def untimed(kept: dict[str, Any] | None) -> dict[str, Any]:
    assert kept is not None and kept["kept_s"] >= 0
    return {name: value for name, value in kept.items() if name != "kept_s"}


@pytest.mark.parametrize(("passed_s", "wanted_s"), [(3600.0, 3600.0), (-5.0, 0.0), (1e9, 7 * 86400.0)])
def test_a_kept_answer_has_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed_s: float, wanted_s: float
) -> None:
    """By the board's clock, which somebody may have set meanwhile."""
    work, now = Workdir(str(tmp_path)), time.time()
    monkeypatch.setattr(workdir.time, "time", lambda: now)
    work.keep(JOB, ANSWER)
    monkeypatch.setattr(workdir.time, "time", lambda: now + passed_s)
    assert work.kept(JOB) == {**ANSWER, "kept_s": pytest.approx(wanted_s)}


def test_what_an_older_runner_kept_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Workdir(str(tmp_path))
    monkeypatch.setattr(workdir, "ANSWERS", workdir.ANSWERS - 1)
    work.keep(JOB, ANSWER)
    monkeypatch.undo()
    assert work.kept(JOB) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"job": 1}', '{"answer": {}}', "\xff"])
def test_a_spoilt_spool_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    work = Workdir(str(tmp_path))
    (tmp_path / "spool/one.json").write_text(text, encoding="latin-1")
    assert work.kept(JOB) is None


def test_a_disk_that_is_full_costs_the_spool_only(tmp_path: Path) -> None:
    work = Workdir(str(tmp_path))
    (tmp_path / "spool/one.json.part").symlink_to("/dev/full")
    work.keep(JOB, ANSWER)
    assert work.kept(JOB) is None


def test_what_nobody_fetched_is_swept(tmp_path: Path) -> None:
    work = Workdir(str(tmp_path))
    for name in ("old", "new"):
        work.keep({**JOB, "id": name}, ANSWER)
    (tmp_path / "spool/half.json.part").write_text("{")
    for name in ("incoming-old", "incoming-new", "objects"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    week_ago = time.time() - 8 * 86400
    for name in ("spool/old.json", "incoming-old", "objects"):
        os.utime(tmp_path / name, (week_ago, week_ago))
    work.sweep()
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["new.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["incoming-new", "objects", "spool"]


def test_files_elsewhere_are_refused(tmp_path: Path) -> None:
    work = Workdir(str(tmp_path / "work"))
    (tmp_path / "work/link").symlink_to("/etc")
    assert work.refusal({"model": f"{work.path}/objects/m", "input": None}) is None
    for path in (
        "/etc/passwd",
        f"{work.path}/../x",
        f"{work.path}",
        f"{work.path}-2/x",
        f"{work.path}/link/passwd",
        "m",
    ):
        assert "lies outside" in str(work.refusal({"model": path}))
        assert "input" in str(work.refusal({"model": f"{work.path}/m", "input": path}))


def test_one_at_a_time(tmp_path: Path) -> None:
    with only_one(str(tmp_path), "mine", "ann@lab"):
        for token in ("", "other"):
            with (
                pytest.raises(Busy, match=rf"in use by ann@lab since 2.*Z \(process {os.getpid()} there\)"),
                only_one(str(tmp_path), token, "bob@lab"),
            ):
                pass
        assert json.loads((tmp_path / "runner.lock").read_text())["owner"] == "ann@lab"
        assert "mine" not in (tmp_path / "runner.lock").read_text()  # its hash only
        for spoilt in ("{", "[]", ""):
            (tmp_path / "runner.lock").write_text(spoilt)
            with pytest.raises(Busy, match="in use by somebody"), only_one(str(tmp_path), "mine", "bob@lab"):
                pass
    with only_one(str(tmp_path), "other", "bob@lab"):
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_our_own_last_runner_is_reaped_and_nobody_elses(tmp_path: Path, hangs: bool) -> None:
    arguments = ("--workdir", str(tmp_path / "work"), "--token")
    first = Runner(tmp_path / "first.pyz", *arguments, "mine")
    if hangs:
        first.process.send_signal(signal.SIGSTOP)
    other = Runner(tmp_path / "other.pyz", *arguments, "other")
    assert (other.hello["ready"], other.hello["busy"], other.close()) == (False, True, 1)
    assert first.process.poll() is None
    second = Runner(tmp_path / "second.pyz", *arguments, "mine")
    assert second.hello["ready"]
    assert first.process.wait(5) == (-signal.SIGKILL if hangs else 143)
    assert (first.close(), second.close()) == (first.process.returncode, 0)


def test_governors_are_given_back_one_by_one(tmp_path: Path) -> None:
    cores = [tmp_path / f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_governor" for i in range(2)]
    for core, governor in zip(cores, ("powersave", "ondemand"), strict=True):
        core.parent.mkdir(parents=True)
        core.write_text(governor + "\n")
    with pytest.raises(KeyError), pinned_governor("performance", str(tmp_path / "sys"), str(tmp_path)):
        assert {core.read_text() for core in cores} == {"performance"}
        raise KeyError
    assert [core.read_text() for core in cores] == ["powersave", "ondemand"]
    assert not (tmp_path / "governors.json").exists()
    with pinned_governor("", str(tmp_path / "sys"), str(tmp_path)):
        assert [core.read_text() for core in cores] == ["powersave", "ondemand"]


def test_the_kernels_complaints_since_then(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("3,1,1,-;before\n")
    with KernelLog(str(log)) as kernel:
        assert kernel.complaints() == ""
        with log.open("a") as file:
            file.write("6,2,2,-;chatter\nodd line\n 12,3;half\n")
            file.writelines(f"{level},3,3,-;galcore {level}\n" for level in (3, 4, 11, 2, 5))
        assert kernel.complaints() == "; the kernel's log meanwhile: galcore 4 | galcore 11 | galcore 2"
    with KernelLog(str(tmp_path / "none")) as kernel:
        assert kernel.complaints() == ""
