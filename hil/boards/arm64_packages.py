"""Debian's arm64 packages, and wheels for them, fetched and opened on any machine: nothing is installed, no root.

apt gets a package state of its own beside the machine's sources, keys and proxy, and verifies what it fetches.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hil.errors import UsageError

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
SETTINGS = """\
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "";
Debug::NoLocking "true";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}";
Dir::Cache::archives "{state}/archives";
"""


def fetch(kernel: str, packages: Sequence[str], wheels: Sequence[str], into: Path, state: Path) -> None:
    """Into debian/ the .deb files of `packages` and all that they need, into kernel/ that of the kernel which the
    metapackage `kernel` stands for, into wheels/ the wheels. In `state`, a stopped download goes on.

    Raises UsageError with the last line of apt or pip.
    """
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = state / "apt.conf"
    settings.write_text(SETTINGS.format(state=state))
    environment = {**os.environ, "APT_CONFIG": str(settings), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    for folder in ("debian", "kernel", "wheels"):
        (into / folder).mkdir(parents=True)
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends"]
    listed = run([*install, "--print-uris", *packages], environment)  # 'URI' FILE SIZE SHA256:...
    run([*install, "--download-only", *packages], environment)
    for line in listed.splitlines():
        name = line.split()[1]
        os.link(state / "archives" / name, into / "debian" / name)
    depends = re.search(r"Depends: (linux-image-\S+)", run(["apt-cache", "depends", kernel], environment))
    if depends is None:
        raise UsageError(f"apt knows no package behind {kernel}: does /etc/apt have Debian's main section?")
    run(["apt-get", "download", "-qq", depends[1]], environment, into / "kernel")
    python = re.search(r"libpython(3\.\d+)-stdlib", listed)
    wanted = ["--only-binary=:all:", "--python-version", python[1] if python else "3"]
    wanted += [f"--platform={name}" for name in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into / "wheels")]
    run([*pip, *wanted, *wheels], dict(os.environ))
    shutil.rmtree(state)


@contextmanager
def opened(package: Path) -> Iterator[tarfile.TarFile]:
    """The files of a .deb."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacked:
        try:
            with tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive:
                yield archive
        except tarfile.TarError as error:
            raise UsageError(f"{package}: cannot be unpacked ({error}): remove it and build again") from error
        finally:
            unpacked.kill()


def members(package: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with opened(package) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member, file.read()


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """stdout of a program. Raises UsageError with its last line of output."""
    done = subprocess.run(
        [which(argv[0]) or argv[0], *argv[1:]],
        capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
        env=environment, cwd=cwd,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise UsageError(f"`{' '.join(argv[:3])} ...` failed (exit {done.returncode}): {said[-1]}")
    return done.stdout


def which(program: str) -> str | None:
    """mke2fs lives where an ordinary user's PATH does not look."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
