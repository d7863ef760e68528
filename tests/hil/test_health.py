"""Is a board ready? Checked on a board like the i.MX8M Plus, made of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hil.boards.config import BoardConfig, load_boards
from hil.boards.kinds import open_board
from hil.boards.loopback import LoopbackBoard
from hil.errors import BoardBusy, BoardError, UsageError
from hil.facts import Disk
from hil.health import Finding, clock, evaluate_facts, examine, facts
from hil.reservation import occupancy, release, reserve, seconds_of
from hil.session import Session
from tests.hil.loopback_boards import loopback

Findings = dict[str, Finding]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def imx8mp(root: Path) -> Path:
    """A tree of sys, proc, etc and dev as that board's, idle and cool; returns its delegate."""
    proc, sysfs = root / "proc", root / "sys"
    write(proc / "device-tree" / "model", "NXP i.MX8MPlus EVK board\0")
    write(proc / "sys/kernel/osrelease", "6.6.36-lts-next\n")
    write(proc / "sys/kernel/random/boot_id", "0b5e55ed-0000\n")
    write(proc / "meminfo", "MemTotal: 6000000 kB\nMemAvailable: 5000000 kB\nCmaTotal: 983040 kB\nCmaFree: 900000 kB\n")
    write(proc / "loadavg", "0.02 0.10 0.20 1/200 4711\n")
    write(sysfs / "module/galcore/version", "6.4.11.p2.745085\n")
    write(sysfs / "kernel/debug/gc/clk", "gpu0 mc: 1000 MHz\nml_core: 1000000000\n")
    write(sysfs / "devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    write(sysfs / "class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(sysfs / "class/thermal/thermal_zone0/temp", "47000\n")
    write(root / "etc/os-release", 'PRETTY_NAME="NXP i.MX Release Distro 6.6-scarthgap"\n')
    write(root / "dev/galcore", "")
    write(root / "libvx_delegate.so", "code")
    return root / "libvx_delegate.so"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    folder = tmp_path_factory.mktemp("machine")
    with open_board(loopback("asyncssh", workdir=str(folder / "work"))) as board:
        yield board


@pytest.fixture
def look(machine: LoopbackBoard, tmp_path: Path) -> Callable[..., Findings]:
    """What is found on the fake board, with these settings."""
    delegate = imx8mp(tmp_path)

    def found(**settings: Any) -> Findings:
        wanted = {"root": str(tmp_path), "delegate": str(delegate), **settings}
        before, machine.config = machine.config, replace(machine.config, **wanted)
        try:
            return {finding.check: finding for finding in examine(machine)}
        finally:
            machine.config = before

    return found


def test_a_healthy_board(look: Callable[..., Findings]) -> None:
    found = look()
    assert {finding.state for finding in found.values()} == {"ok"}, found
    assert not any(finding.todo for finding in found.values())
    for word in (
        "i.MX8MPlus",
        "6.6.36-lts-next",
        "scarthgap",
        "galcore 6.4.11.p2.745085",
        "ml_core 1000000000",
        "0b5e",
    ):
        assert word in found["identity"].said
    assert hashlib.sha256(b"code").hexdigest()[:12] in found["delegate"].said
    assert found["runtime"].said.startswith("ai_edge_litert ")
    assert found["npu"].said.endswith("opened by nobody")
    assert found["heat"].said == "cpu-thermal 47 C"
    assert found["cma"].said == "878 of 960 MB free"
    assert "connected in" in found["reach"].said
    json.dumps([finding.to_json() for finding in found.values()])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (("sys/class/thermal/thermal_zone0/temp", "91000"), ("heat", "advice", "may throttle")),
        (("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand"), ("governor", "advice", "performance")),
        (("proc/meminfo", "CmaTotal: 983040 kB\nCmaFree: 9000 kB\n"), ("cma", "failed", "8 of 960 MB free: end who")),
        (("proc/loadavg", "7.50 1 1 1/1 1"), ("load", "advice", "see `top`")),
        (("sys/kernel/debug/gc/clk", ""), ("npu", "advice", "mount debugfs")),
    ],
)
def test_what_is_amiss_is_found_with_what_to_do(
    look: Callable[..., Findings], tmp_path: Path, changed: tuple[str, str], expected: tuple[str, str, str]
) -> None:
    (tmp_path / changed[0]).write_text(changed[1])
    found, (check, state, words) = look(), expected
    assert found[check].state == state and words in str(found[check])
    assert {name for name, finding in found.items() if finding.state != "ok"} == {check}


def test_who_holds_the_npu_is_named(look: Callable[..., Findings], tmp_path: Path) -> None:
    write(tmp_path / "proc/4711/cmdline", "python3\0demo.py\0")
    (tmp_path / "proc/4711/fd").mkdir()
    (tmp_path / "proc/4711/fd/5").symlink_to(tmp_path / "dev/galcore")
    npu = look()["npu"]
    assert npu.state == "advice" and "python3 demo.py (process 4711)" in npu.said


def test_settings_decide_too(look: Callable[..., Findings], tmp_path: Path) -> None:
    assert look(max_temperature_c=45.0)["heat"].state == "failed"
    assert look(delegate_sha256="0123456789")["delegate"].state == "failed"
    assert "quota_mb" in look(quota_mb=10**9)["disk"].todo
    assert look(governor="performance")["governor"].said.endswith("pinned to performance while we measure")
    (tmp_path / "dev/galcore").unlink()
    assert "modprobe galcore" in look()["npu"].todo
    assert look(delegate="/no/libvx_delegate.so")["delegate"].state == "failed"
    program = look(driver="benchmark_model", benchmark_model="/no/benchmark_model")["runtime"]
    assert program.state == "failed" and "/no/benchmark_model" in program.said


def test_a_board_without_instruments_is_no_fault(machine: LoopbackBoard) -> None:
    bare = replace(facts(machine), temperature_c=None, temperatures_c={}, memory_kb={}, load=None, governor="unknown")
    assert {f.state for f in evaluate_facts(machine.config, bare)} == {"ok"}
    full = {f.check: f for f in evaluate_facts(machine.config, replace(bare, disk=Disk(10 << 20, 1 << 30)))}
    assert full["disk"].state == "failed" and "10 MB free" in full["disk"].said
    none = {
        f.check: f for f in evaluate_facts(machine.config, replace(bare, runtime=None, runtime_version="no module"))
    }
    assert none["runtime"].state == "failed" and "ai-edge-litert" in none["runtime"].todo


def test_the_clocks_are_compared() -> None:
    assert clock(100.0, 99.0, 101.0).state == "ok"
    assert clock(103.5, 99.0, 101.0).said == "2 s ahead of ours"
    assert "3600 s behind ours" in str(clock(0.0, 3600.0, 3601.0))


def test_a_python_that_is_not_there(machine: LoopbackBoard) -> None:
    before, machine.config = machine.config, replace(machine.config, python="python9")
    try:
        with pytest.raises(BoardError, match="cannot run python9"):
            list(examine(machine))
        with pytest.raises(BoardError, match="cannot run python9"):
            facts(machine)
    finally:
        machine.config = before


def test_a_reservation_stops_others_and_not_ourselves(
    machine: LoopbackBoard, look: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = reserve(machine, 600, "tonight's run")
    assert held.left_s > 590 and str(occupancy(machine)).startswith(f"reserved by {held.owner} (tonight's run) until")
    with Session(machine):
        assert "in use by" in str(occupancy(machine))
        assert look()["neighbours"].state == "ok"
        monkeypatch.setenv("LOGNAME", "somebody")
        assert "in use by" in look()["neighbours"].said
    with pytest.raises(BoardBusy, match=r"reserved by .*tonight's run.* wait, or ask them"), Session(machine):
        pass
    with pytest.raises(BoardBusy, match="wait, or ask them"):
        reserve(machine, 60)
    with pytest.raises(BoardBusy, match="--force"):
        release(machine)
    assert look()["neighbours"].state == "failed"
    release(machine, force=True)
    assert str(occupancy(machine)) == "free"
    with Session(machine) as session:
        assert session.conditions.kind == "loopback"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("2d", 172800)])
def test_times(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1h 30m", "0s", "31d", "1.5h", "2h!"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="give for example 45m"):
        seconds_of(text)


def test_power_settings_are_checked(tmp_path: Path) -> None:
    for line, said in (
        ("power = 'x'", "list of texts"),
        ("power = ['x', 1]", "list of"),
        ("return_deadline_s = -1", "times are within 0"),
    ):
        (tmp_path / "boards.toml").write_text(f'[a]\nkind = "loopback"\n{line}\n')
        with pytest.raises(UsageError, match=said):
            load_boards(tmp_path / "boards.toml")
    (tmp_path / "boards.toml").write_text('[a]\nkind = "loopback"\npower = ["uhubctl", "-p", "3", "-a"]\n')
    assert load_boards(tmp_path / "boards.toml")["a"] == BoardConfig(
        "a", "loopback", power=("uhubctl", "-p", "3", "-a")
    )
