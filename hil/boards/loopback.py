"""A board made of this machine: a private SSH server on 127.0.0.1, and the very code path of a real board.

The server runs as the ordinary user that we are, with keys made for it alone, in a folder (mode 0700) that
goes when the board is closed. It dies with us: a guard reads a pipe from us, and the end of that pipe, which
even `kill -9` brings, stops the server and removes the folder.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hil.boards.config import BoardConfig
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, Unreachable, UsageError
from hil.user import account, home, user_name

START_TIMEOUT_S = 15.0
ATTEMPTS = 3  # a free port can be taken between our look and the server's bind
PRIVILEGE_SEPARATION_DIR = Path("/run/sshd")

# Runs "$@" in the background; `cat` ends when the pipe from us does, however we ended.
GUARD = 'dir=$1; shift; "$@" & cat >/dev/null; kill -TERM $! 2>/dev/null; wait; rm -rf -- "$dir"'

# /tmp is writable for all (but sticky), which StrictModes would refuse; our folder in it has mode 0700.
SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
AllowUsers {user}
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserRC no
X11Forwarding no
AllowTcpForwarding no
AllowAgentForwarding no
PermitTunnel no
UseDNS no
MaxStartups 100
MaxSessions 100
ClientAliveInterval 15
Subsystem sftp internal-sftp
"""


class LoopbackBoard(SSHBoard):
    """Starts its server when made. Raises UsageError where none is installed, BoardError if none starts."""

    def __init__(self, config: BoardConfig) -> None:
        kind = choose_server(config)
        self._guard: subprocess.Popen[bytes] | None = None
        super().__init__(self._serve(config, kind))
        if config.server == "auto" and kind == "sshd":
            try:
                self._transport()
            except Unreachable:  # sshd refuses some users: a locked account, an odd shell
                self.close()
                super().__init__(self._serve(config, "asyncssh"))

    def _serve(self, config: BoardConfig, kind: str) -> BoardConfig:
        """Starts a server in a folder of its own; the settings that lead to it."""
        self.folder = Path(tempfile.mkdtemp(prefix="hilnas-loopback-"))
        try:
            make_keys(self.folder)
            port = self._start(config.name, kind)
            host_key = (self.folder / "host_key.pub").read_text()
            (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
        except BaseException:
            self._stop()
            raise
        return dataclasses.replace(
            config,
            host="127.0.0.1",
            port=port,
            user=account() or user_name(),
            key=str(self.folder / "client_key"),
            known_hosts=str(self.folder / "known_hosts"),
            python=config.python or sys.executable,
            workdir=config.workdir or str(self.folder / "work"),
        )

    def close(self) -> None:
        super().close()
        if self._guard is not None:
            self._stop()

    def _start(self, name: str, kind: str) -> int:
        """The port that the server answers on."""
        log = self.folder / "server.log"
        for _ in range(ATTEMPTS):
            port = free_port()
            argv = sshd_argv(self.folder, port) if kind == "sshd" else asyncssh_argv(self.folder, port)
            with log.open("wb") as output:
                self._guard = subprocess.Popen(
                    ["/bin/sh", "-c", GUARD, "hilnas-loopback", str(self.folder), *argv],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=server_environment(),
                    start_new_session=True,  # Ctrl-C is for us, who then close in order
                )
            if answers(port, log, time.monotonic() + START_TIMEOUT_S):
                return port
            self._end_guard(keep=True)
        said = log.read_text(errors="replace").strip().splitlines()
        raise BoardError(
            f"board {name}: its own {kind} did not start: {said[-1] if said else 'no output'}: "
            f'try server = "{"asyncssh" if kind == "sshd" else "sshd"}" in boards.toml'
        )

    def _end_guard(self, *, keep: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        kept = self.folder.with_suffix(".kept")
        if keep:
            self.folder.rename(kept)  # the guard removes the folder by its name
        guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guard.wait(timeout=5)
        if guard.poll() is None:
            guard.kill()
            guard.wait()
        if keep:
            kept.rename(self.folder)

    def _stop(self) -> None:
        self._end_guard(keep=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def choose_server(config: BoardConfig) -> str:
    """ "sshd" or "asyncssh". Raises UsageError when the wanted one is not installed."""
    if config.server != "asyncssh" and find_sshd() is not None and account():
        return "sshd"
    if config.server == "sshd":
        if not account():
            raise UsageError(
                f'board {config.name}: sshd lets in no user id without a passwd entry: set server = "asyncssh"'
            )
        raise UsageError(f'board {config.name}: no sshd here: install openssh-server, or set server = "asyncssh"')
    if importlib.util.find_spec("asyncssh") is None:
        raise UsageError(f"board {config.name}: neither sshd nor asyncssh is installed: pip install asyncssh")
    return "asyncssh"


def find_sshd() -> str | None:
    """sshd has to be started by its absolute path, and lives where an ordinary user's PATH does not look."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def sshd_argv(folder: Path, port: int) -> list[str]:
    text = SSHD_CONFIG.format(folder=folder, port=port, user=account() or user_name())
    (folder / "sshd_config").write_text(text)
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION_DIR.mkdir(mode=0o755, exist_ok=True)
    return [find_sshd() or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")]


def asyncssh_argv(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "hil.boards.asyncssh_server", "--folder", str(folder), "--port", str(port)]


def server_environment() -> dict[str, str]:
    """Ours, in which `python -m hil...` is found from any folder, with the home that asyncssh looks for."""
    root = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    path = f"{root}{os.pathsep}{before}" if before else root
    return {"HOME": str(home()), "LOGNAME": user_name(), **os.environ, "PYTHONPATH": path}


def make_keys(folder: Path) -> None:
    """host_key and client_key (ed25519, OpenSSH's format), their .pub, and authorized_keys."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for name in ("host_key", "client_key"):
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
        public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public + b"\n")
    shutil.copyfile(folder / "client_key.pub", folder / "authorized_keys")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, log: Path, deadline: float) -> bool:
    """Whether an SSH server greets us there in time. A server that ended has left its reason in the log."""
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as greeted:
            return greeted.recv(4) == b"SSH-"
        if b"ddress already in use" in log.read_bytes() or b"rror" in log.read_bytes():
            return False
        time.sleep(0.005)
    return False
