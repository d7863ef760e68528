"""Prints one JSON line about what this board is, and in what state: heat, memory, disk, who else is at work.

Needs Python 3.9 and its standard library. `--sys`, `--proc`, `--etc`, `--dev` name other roots, so that a test brings
its own. What cannot be read is "unknown" (or null where a number is missing); nothing here fails for a missing file.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import importlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUNTIMES = ("ai_edge_litert", "tflite_runtime", "tensorflow")
CPU_NAMES = ("model name", "Hardware", "Model", "CPU part")
UNKNOWN = "unknown"


def read_text(path: Path, default: str = UNKNOWN) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\0", " ").strip() or default
    except OSError:
        return default


def find_soc(proc: Path) -> str:
    """The device tree's model (every Yocto board has one), else the CPU's name."""
    model = read_text(proc / "device-tree" / "model", "")
    if model:
        return model
    names: dict[str, str] = {}
    for line in read_text(proc / "cpuinfo", "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            names.setdefault(key.strip(), value.strip())
    return next((names[key] for key in CPU_NAMES if names.get(key)), UNKNOWN)


def find_runtime() -> tuple[str | None, str]:
    """(name, version) of the first runtime that imports, or (None, why not)."""
    reasons = []
    for name in RUNTIMES:
        try:
            importlib.import_module(name + (".lite" if name == "tensorflow" else ".interpreter"))
        except Exception as error:  # a broken installation raises anything
            reasons.append(f"{name}: {error}")
            continue
        return name, runtime_version(name)
    return None, "; ".join(reasons)


def runtime_version(name: str) -> str:
    from importlib import metadata

    for distribution in (name, name.replace("_", "-"), name + "-nightly"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return str(getattr(importlib.import_module(name), "__version__", UNKNOWN))


def hash_of_runtime(name: str | None) -> str:
    """sha256 over the runtime's shared libraries: two builds may carry one version."""
    if name is None:
        return UNKNOWN
    folder = Path(str(importlib.import_module(name).__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.so")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_bsp(etc: Path) -> str:
    for line in read_text(etc / "os-release", "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return UNKNOWN


def find_npu(sysfs: Path) -> str:
    """VeriSilicon's driver version and the clock of its ml_core, or "none"."""
    version = read_text(sysfs / "module" / "galcore" / "version", "")
    words = [f"galcore {version}"] if version else []
    for line in read_text(sysfs / "kernel" / "debug" / "gc" / "clk", "").splitlines():
        name, _, clock = line.partition(":")
        if "ml_core" in name or "mc" in name.split():
            words.append(" ".join(f"{name.strip()} {clock.strip()}".split()))
    return "; ".join(words) or "none"


def find_delegate(path: str) -> dict[str, Any] | None:
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return {"path": path, "exists": False, "sha256": None, "reason": error.strerror}
    return {"path": path, "exists": True, "sha256": hashlib.sha256(data).hexdigest(), "reason": None}


def find_program(pattern: str) -> dict[str, Any] | None:
    """The program that matches; of several, that of the highest version in its path."""
    found = [path for path in glob.glob(pattern) if os.path.isfile(path) and os.access(path, os.X_OK)]
    if not found:
        return None
    path = max(found, key=lambda name: [(int(part or 0), text) for part, text in re.findall(r"(\d*)(\D*)", name)])
    return {"path": path, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def find_governor(sysfs: Path) -> str:
    """One word when all cores agree, else each one's."""
    found = sorted(sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    return "+".join(sorted({read_text(path) for path in found})) or UNKNOWN


def find_temperatures(sysfs: Path) -> dict[str, float]:
    """{zone type: degrees Celsius}. Their numbers change from boot to boot, their types do not."""
    temperatures: dict[str, float] = {}
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        raw = read_text(zone / "temp", "")
        try:
            temperatures.setdefault(read_text(zone / "type", zone.name), int(raw) / 1000)
        except ValueError:
            continue
    return temperatures


def find_memory(proc: Path) -> dict[str, int]:
    """MemAvailable, CmaTotal and CmaFree in kB, those that there are: the NPU's buffers come out of the CMA."""
    rows = [line.split() for line in read_text(proc / "meminfo", "").splitlines()]
    wanted = {"MemAvailable:", "CmaTotal:", "CmaFree:"}
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[0] in wanted and row[1].isdecimal()}


def find_disk(workdir: str) -> dict[str, int] | None:
    """Bytes of the disk that holds the workdir, or will; None where none is named."""
    folder = Path(workdir) if workdir else None
    while folder is not None:
        try:
            disk = os.statvfs(folder)
            return {"free_bytes": disk.f_bavail * disk.f_frsize, "total_bytes": disk.f_blocks * disk.f_frsize}
        except OSError:
            folder = folder.parent if folder != folder.parent else None
    return None


def find_load(proc: Path) -> float | None:
    """How many processes ran or waited to run, over the last minute."""
    try:
        return float(read_text(proc / "loadavg", "").split()[0])
    except (IndexError, ValueError):
        return None


def find_holders(proc: Path, device: Path) -> list[dict[str, Any]]:
    """The processes that have the device open, as far as we may see."""
    holders = []
    for folder in sorted(proc.glob("[0-9]*")):
        try:
            opened = {os.readlink(fd) for fd in (folder / "fd").iterdir()}
        except OSError:
            continue  # another user's, or gone
        if str(device) in opened:
            holders.append({"pid": int(folder.name), "command": read_text(folder / "cmdline")})
    return holders


def probe(options: argparse.Namespace) -> dict[str, Any]:
    proc, sysfs, npu = options.proc, options.sys, options.dev / "galcore"
    runtime, version = find_runtime()
    temperatures = find_temperatures(sysfs)
    return {
        "machine": platform.machine(),
        "soc": find_soc(proc),
        "kernel": read_text(proc / "sys" / "kernel" / "osrelease"),
        "bsp": find_bsp(options.etc),
        "npu": find_npu(sysfs),
        "runtime": runtime,
        "runtime_version": version,
        "runtime_sha256": hash_of_runtime(runtime),
        "delegate": find_delegate(options.delegate),
        "program": find_program(options.program),
        "governor": find_governor(sysfs),
        "temperature_c": max(temperatures.values()) if temperatures else None,
        "temperatures_c": temperatures,
        "boot_id": read_text(proc / "sys" / "kernel" / "random" / "boot_id"),
        "python": platform.python_version(),
        "memory_kb": find_memory(proc),
        "disk": find_disk(options.workdir),
        "cores": os.cpu_count() or 1,
        "load": find_load(proc),
        "npu_device": npu.exists(),
        "npu_holders": find_holders(proc, npu) if npu.exists() else [],
        "clock_s": time.time(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="print one JSON line about this board")
    parser.add_argument("--sys", type=Path, default=Path("/sys"), help="root of sysfs (default: /sys)")
    parser.add_argument("--proc", type=Path, default=Path("/proc"), help="root of procfs (default: /proc)")
    parser.add_argument("--etc", type=Path, default=Path("/etc"), help="folder of os-release (default: /etc)")
    parser.add_argument("--dev", type=Path, default=Path("/dev"), help="folder of the NPU's device (default: /dev)")
    parser.add_argument("--workdir", default="", help="the folder whose disk is looked at")
    parser.add_argument("--delegate", default="", help="shared library of the delegate in use")
    parser.add_argument("--program", default="", help="path or glob of a benchmark_model")
    options = parser.parse_args(arguments)
    print(json.dumps(probe(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
