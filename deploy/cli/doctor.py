"""`hilnas doctor`: is this machine ready? One line per check, with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.cli import console
from deploy.cli.options import Commands, add_json, bind
from hil.errors import CheckFailed

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "scipy", "ai-edge-litert", "flatbuffers", "paramiko", "SQLAlchemy")
OPTIONAL = {
    "tensorflow": "the reference converter: pip install 'hilnas[tensorflow]'",
    "onnxruntime": "second opinions: pip install 'hilnas[onnx]'",
}
LEAST_FREE_GB = 2  # a run of the demo needs about as much


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    json: bool = False


@dataclass(frozen=True)
class Check:
    """`optional`: without it everything else works."""

    holds: bool
    text: str
    optional: bool = False


def add(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="is this machine ready? what is missing, and what to do",
        description="Looks for the packages, an SSH server and free disk space. Lines with MISS say what to do. "
        "Exits 1 if something is missing that every run needs.",
    )
    add_json(doctor)
    bind(doctor, DoctorOptions, run)


def run(options: DoctorOptions) -> int:
    """`CheckFailed` if something is missing that is not optional."""
    found = list(checks())
    if options.json:
        console.say_json([{"holds": c.holds, "optional": c.optional, "text": c.text} for c in found])
    else:
        for check in found:
            console.say(f"{'ok  ' if check.holds else 'MISS'} {check.text}")
    if failed := [check.text for check in found if not (check.holds or check.optional)]:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise CheckFailed(f"this machine is not ready: {failed[0]}{more}")
    return 0


def checks() -> Iterator[Check]:
    """The packages, the SSH server, the free disk space."""
    for name in PACKAGES:
        version = _version(name)
        yield Check(version is not None, f"{name} {version or 'is missing: run `pip install hilnas` again'}")
    for name, hint in OPTIONAL.items():
        version = _version(name)
        yield Check(version is not None, f"{name} {version or 'is not installed; ' + hint}", optional=True)
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    without = "not found; the loopback board uses asyncssh instead (Debian: openssh-server)"
    yield Check(sshd is not None, f"sshd {sshd or without}", optional=True)
    free_gb = shutil.disk_usage(".").free / 1e9
    enough = free_gb > LEAST_FREE_GB
    advice = "" if enough else f": make room, a run needs about {LEAST_FREE_GB} GB"
    yield Check(enough, f"{free_gb:.1f} GB free here{advice}")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
