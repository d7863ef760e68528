"""SSH servers as on small boards: dropbear, or sshd with another login shell, other tools, other disks.

Each runs in a mount namespace of its own, in which /etc/passwd gives the user `bench` (with our id) a home of the
test's: nobody's own home is read or written. Neither root nor a container's consent is needed, only user namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.loopback import ATTEMPTS, START_TIMEOUT_S, answers, find_sshd, free_port, make_keys, server_environment
from tests.conftest import NO_NAMESPACES

USER = "bench"
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")  # where sshd and dropbear of Debian have it, the latter by a link
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin"

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/home/.ssh/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
Subsystem sftp {sftp}
"""

# $1: the folder, $2, $3: our user and group; then pairs of what to mount and where, up to `--`, and the server
NAMESPACE = """
set -e
folder=$1 user=$2 group=$3
shift 3
mount --bind "$folder/passwd" /etc/passwd
mount --bind "$folder/shells" /etc/shells
while [ "$1" != -- ]; do
    case $1 in
        ro) mount -t tmpfs -o ro,size=1m none "$2" ;;
        /*) mount --bind "$1" "$2" ;;
        *) mount -t tmpfs -o "size=$1,mode=777" none "$2" ;;
    esac
    shift 2
done
shift
if [ "$user" = 0 ]; then exec "$@"; fi
exec unshare --user --map-user="$user" --map-group="$group" -- "$@"
"""


@dataclass(frozen=True)
class Private:
    """What is particular about a server.

    Attributes:
        server: "dropbear" or "sshd".
        sftp: the program of its SFTP server; None: there is none.
        login_shell: of the user.
        bashrc: what that shell, if it is bash, runs first.
        key_options: what stands before the key in authorized_keys.
        mounts: what is mounted where: a path, "ro" for an empty read-only disk, or the size of an empty disk ("64k").
    """

    server: str = "dropbear"
    sftp: Path | None = SFTP_SERVER
    login_shell: str = "/bin/sh"
    bashrc: str = ""
    key_options: str = ""
    mounts: Sequence[tuple[str, Path]] = ()


def find(program: str, package: str) -> str:
    """Its path. Skips the test without it."""
    found = find_sshd() if program == "sshd" else shutil.which(program, path=PLACES)
    if found is None:
        pytest.skip(f"no {program} here: make system, or apt install {package}")
    return found


def unshare() -> list[str]:
    """The command that makes a mount namespace. Skips the test where that is forbidden."""
    argv = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    tried = subprocess.run([*argv, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"{NO_NAMESPACES}: {tried.stderr.strip()}")
    return argv


@contextmanager
def private_board(folder: Path, private: Private, **settings: object) -> Iterator[BoardConfig]:
    """The settings of a board behind such a server, which ends with the context."""
    program = find(private.server, "dropbear-bin" if private.server == "dropbear" else "openssh-server")
    if private.sftp == SFTP_SERVER:
        find(str(SFTP_SERVER), "openssh-sftp-server")
    namespace = [*unshare(), "--", "/bin/sh", "-c", NAMESPACE, "namespace"]
    home = folder / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    make_keys(folder)
    line = f"{private.key_options} {(folder / 'client_key.pub').read_text()}".lstrip()
    (home / ".ssh" / "authorized_keys").write_text(line)
    (home / ".ssh" / "authorized_keys").chmod(0o600)
    (home / ".bashrc").write_text(private.bashrc)
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[2] != str(os.getuid())]
    ours = f"{USER}:x:{os.getuid()}:{os.getgid()}::{home}:{private.login_shell}"
    (folder / "passwd").write_text("\n".join([ours, *others]) + "\n")
    (folder / "shells").write_text(f"/bin/sh\n/bin/bash\n{private.login_shell}\n")
    with _serving(folder, private, program, namespace) as port:
        yield BoardConfig(
            "small", "ssh", host="127.0.0.1", port=port, user=USER, key=str(folder / "client_key"),
            known_hosts=str(folder / "known_hosts"),
            **{"python": sys.executable, "workdir": str(folder / "work"), **settings},  # type: ignore[arg-type]
        )  # fmt: skip


@contextmanager
def _serving(folder: Path, private: Private, program: str, namespace: Sequence[str]) -> Iterator[int]:
    mounts = list(private.mounts)
    if private.server == "dropbear" and private.sftp != SFTP_SERVER and SFTP_SERVER.exists():
        mounts.append((str(private.sftp or "/dev/null"), SFTP_SERVER))
    words = [word for what, where in mounts for word in (what, str(where))]
    for _ in range(ATTEMPTS):
        port = free_port()
        argv = _argv(folder, private, program, port)
        log = folder / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*namespace, str(folder), str(os.getuid()), str(os.getgid()), *words, "--", *argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=server_environment(), cwd="/",
            )  # fmt: skip
        if answers(port, log, time.monotonic() + START_TIMEOUT_S):
            break
        server.kill()
        server.wait()
    else:
        pytest.fail(f"{private.server} does not start: {log.read_text()}")
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    try:
        yield port
    finally:
        server.terminate()
        server.wait(timeout=10)


def _argv(folder: Path, private: Private, program: str, port: int) -> list[str]:
    if private.server == "sshd":
        sftp = private.sftp or "/bin/false"
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, port=port, sftp=sftp))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    converted = folder / "host_key.dropbear"
    convert = [find("dropbearconvert", "dropbear-bin"), "openssh", "dropbear", str(folder / "host_key"), str(converted)]
    if not converted.exists():
        subprocess.run(convert, check=True, capture_output=True, timeout=30)
    return [program, "-F", "-E", "-s", "-r", str(converted), "-p", f"127.0.0.1:{port}", "-P", str(folder / "pid")]
