from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.board_scripts.script_programs import SCRIPTS


def probe(*arguments: str) -> dict[str, Any]:
    argv = [sys.executable, str(SCRIPTS / "probe.py"), *arguments]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.count("\n") == 1
    return dict(json.loads(said))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_fake_board(tmp_path: Path) -> None:
    proc, sysfs = tmp_path / "proc", tmp_path / "sys"
    write(proc / "device-tree" / "model", "NXP i.MX8MPlus EVK board\0")
    write(proc / "sys" / "kernel" / "osrelease", "6.6.36-lts\n")
    write(proc / "sys" / "kernel" / "random" / "boot_id", "abc\n")
    for cpu in range(4):
        write(sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "performance\n")
    for zone, (kind, temp) in enumerate({"cpu-thermal": "51000", "soc-thermal": "49500", "bad": "x"}.items()):
        write(sysfs / f"class/thermal/thermal_zone{zone}/type", kind + "\n")
        write(sysfs / f"class/thermal/thermal_zone{zone}/temp", temp + "\n")
    write(tmp_path / "delegate.so", "code")
    found = probe("--proc", str(proc), "--sys", str(sysfs), "--delegate", str(tmp_path / "delegate.so"))
    assert found["soc"] == "NXP i.MX8MPlus EVK board"
    assert (found["kernel"], found["boot_id"], found["governor"]) == ("6.6.36-lts", "abc", "performance")
    assert found["temperatures_c"] == {"cpu-thermal": 51.0, "soc-thermal": 49.5}
    assert found["temperature_c"] == 51.0
    assert found["delegate"]["sha256"] == hashlib.sha256(b"code").hexdigest()
    assert found["runtime"] == "ai_edge_litert" and found["runtime_version"][0].isdigit()


def test_the_state_of_a_fake_board(tmp_path: Path) -> None:
    proc, dev = tmp_path / "proc", tmp_path / "dev"
    write(proc / "meminfo", "MemTotal: 9 kB\nMemAvailable: 8 kB\nCmaTotal: 983040 kB\nCmaFree: 12 kB\nOdd\n")
    write(proc / "loadavg", "0.25 0.5 0.7 1/99 123\n")
    write(dev / "galcore", "")
    for pid, target in (("12", dev / "galcore"), ("13", dev / "null")):
        write(proc / pid / "cmdline", f"program{pid}\0--x\0")
        (proc / pid / "fd").mkdir()
        (proc / pid / "fd" / "3").symlink_to(target)
    (proc / "14").mkdir()  # whose files we may not see
    roots = ("--proc", str(proc), "--sys", str(tmp_path), "--dev", str(dev))
    before_s = time.time()
    found = probe(*roots, "--workdir", str(tmp_path / "not" / "made" / "yet"))
    assert before_s <= found["clock_s"] <= time.time()
    assert found["memory_kb"] == {"MemAvailable": 8, "CmaTotal": 983040, "CmaFree": 12}
    assert (found["load"], found["npu_device"]) == (0.25, True)
    assert found["npu_holders"] == [{"pid": 12, "command": "program12 --x"}]
    assert 0 < found["disk"]["free_bytes"] <= found["disk"]["total_bytes"]
    bare = probe("--proc", str(tmp_path / "none"), "--dev", str(tmp_path / "none"))
    assert (bare["memory_kb"], bare["load"], bare["npu_device"], bare["npu_holders"]) == ({}, None, False, [])
    assert bare["disk"] is None


def test_an_empty_board_is_unknown_not_an_error(tmp_path: Path) -> None:
    found = probe("--proc", str(tmp_path), "--sys", str(tmp_path), "--delegate", str(tmp_path / "none.so"))
    assert {found[key] for key in ("soc", "kernel", "governor", "boot_id")} == {"unknown"}
    assert found["temperature_c"] is None
    assert found["delegate"]["exists"] is False


def test_cpuinfo_stands_in_for_a_device_tree_and_cores_may_differ(tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", "processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
    write(tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    write(tmp_path / "devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance")
    found = probe("--proc", str(tmp_path), "--sys", str(tmp_path))
    assert found["soc"] == "Some CPU @ 2 GHz"
    assert found["governor"] == "performance+powersave"
    assert found["delegate"] is None
