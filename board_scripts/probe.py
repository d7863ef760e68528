"""Prints one JSON line that says what this board is: hardware, kernel, runtime, delegate, temperature.

Needs Python 3.9 and its standard library. `--sys`, `--proc` name other roots, so that a test brings its own.
What cannot be read is "unknown" (or null for a temperature); nothing here fails for a missing file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import platform
import sys
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


def find_delegate(path: str) -> dict[str, Any] | None:
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return {"path": path, "exists": False, "sha256": None, "reason": error.strerror}
    return {"path": path, "exists": True, "sha256": hashlib.sha256(data).hexdigest(), "reason": None}


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


def probe(proc: Path, sysfs: Path, delegate: str) -> dict[str, Any]:
    runtime, version = find_runtime()
    temperatures = find_temperatures(sysfs)
    return {
        "machine": platform.machine(),
        "soc": find_soc(proc),
        "kernel": read_text(proc / "sys" / "kernel" / "osrelease"),
        "runtime": runtime,
        "runtime_version": version,
        "delegate": find_delegate(delegate),
        "governor": find_governor(sysfs),
        "temperature_c": max(temperatures.values()) if temperatures else None,
        "temperatures_c": temperatures,
        "boot_id": read_text(proc / "sys" / "kernel" / "random" / "boot_id"),
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="print one JSON line about this board")
    parser.add_argument("--sys", type=Path, default=Path("/sys"), help="root of sysfs (default: /sys)")
    parser.add_argument("--proc", type=Path, default=Path("/proc"), help="root of procfs (default: /proc)")
    parser.add_argument("--delegate", default="", help="shared library of the delegate in use")
    options = parser.parse_args(arguments)
    print(json.dumps(probe(options.proc, options.sys, options.delegate)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
