"""SSH servers of many kinds on 127.0.0.1, each with keys of its own, and the agent."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hil.boards.asyncssh_server import serve_command
from hil.boards.config import BoardConfig
from hil.boards.loopback import PRIVILEGE_SEPARATION_DIR, find_sshd, free_port
from hil.user import account, user_name

WAIT_S = 15.0
KEYS: dict[str, Callable[[], Any]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "dsa": lambda: dsa.generate_private_key(1024),  # noqa: S505 - SSH has no other
}
SSHD = """\
ListenAddress 127.0.0.1
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Server:
    """One that listens; its folder has host_key, client_key, authorized_keys and known_hosts."""

    port: int
    folder: Path

    def config(self, **changes: object) -> BoardConfig:
        """A board behind it, for which no file of the user's is read."""
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": account() or user_name(),
            "key": str(self.folder / "client_key"),
            "known_hosts": str(self.folder / "known_hosts"),
            "ssh_config": "none",
            "connect_timeout_s": 10.0,
        }
        return BoardConfig(name="evk", kind="ssh", **{**settings, **changes})


def write_key(path: Path, kind: str = "ed25519", *, locked_by: str = "", style: str = "OpenSSH") -> Path:
    """A private key and its .pub; `style` is a name of cryptography's PrivateFormat."""
    key = KEYS[kind]()
    locked = form.BestAvailableEncryption(locked_by.encode()) if locked_by else form.NoEncryption()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(key.private_bytes(form.Encoding.PEM, getattr(form.PrivateFormat, style), locked))
    path.chmod(0o600)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(public + b" somebody@somewhere\n")
    return path


def written_again(path: Path, other: Path, passphrase: str) -> None:
    """The same key at another place, under a passphrase, with its .pub."""
    key = form.load_ssh_private_key(path.read_bytes(), None)
    locked = form.BestAvailableEncryption(passphrase.encode())
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, locked))
    shutil.copy(f"{path}.pub", f"{other}.pub")


def equipped(folder: Path, host_key: str) -> int:
    """A folder with a server's and a client's files; the port that the server shall take."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = free_port()
    write_key(folder / "host_key", host_key)
    write_key(folder / "client_key")
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    return port


@contextmanager
def sshd(folder: Path, *lines: str, host_key: str = "ed25519") -> Iterator[Server]:
    """OpenSSH's, with these lines of sshd_config before ours: the first of a kind counts."""
    program = find_sshd()
    if program is None or not account():
        pytest.skip("no sshd here: apt install openssh-server")
    port = equipped(folder, host_key)
    own = [f"Port {port}", f"HostKey {folder}/host_key", f"AuthorizedKeysFile {folder}/authorized_keys"]
    (folder / "sshd_config").write_text("\n".join([*lines, *own, SSHD]))
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION_DIR.mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log)
    try:
        wait_for(port, lambda: (folder / "log").read_text() if server.poll() is not None else "")
        yield Server(port, folder)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def asyncssh_server(folder: Path, host_key: str = "ed25519", **options: Any) -> Iterator[Server]:
    """asyncssh's, with these options of its `listen`."""
    port = equipped(folder, host_key)
    loop = asyncio.new_event_loop()
    settings: dict[str, Any] = {
        "server_host_keys": [str(folder / "host_key")],
        "authorized_client_keys": str(folder / "authorized_keys"),
        "process_factory": serve_command,
        "encoding": None,
    }

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", port, **{**settings, **options})

    async def end(server: asyncssh.SSHAcceptor) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # until the connections that are gone are noticed

    server = loop.run_until_complete(listen())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Server(port, folder)
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


@contextmanager
def answering(folder: Path, answer: Callable[[socket.socket], None]) -> Iterator[Server]:
    """No SSH server: `answer` has each connection, which is closed afterwards."""
    port = equipped(folder, "ed25519")
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield Server(port, folder)
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def ssh_agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """A socket of an agent that holds these keys (without passphrases)."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here: apt install openssh-client")
    path = folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_S
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True, timeout=WAIT_S
            )
        yield path
    finally:
        agent.terminate()
        agent.wait()


def wait_for(port: int, fault: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as greeted:
            if greeted.recv(4) == b"SSH-":
                return
        said = fault()
        if said:
            raise AssertionError(said)
        time.sleep(0.01)
    raise AssertionError(f"nothing answers on port {port}")
