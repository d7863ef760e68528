"""Host keys: which one is pinned for a board, and pinning it. Never automatic, never replaced."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from hil.boards.config import BoardConfig
from hil.boards.ssh_socket import open_socket, quiet_paramiko
from hil.errors import HostKeyChanged, HostKeyUnknown, Unreachable, UsageError


def known_hosts_path(config: BoardConfig) -> Path:
    return Path(config.known_hosts or "~/.ssh/known_hosts").expanduser()


def host_entry(config: BoardConfig) -> str:
    """The board's name in a known_hosts file."""
    return config.host if config.port == 22 else f"[{config.host}]:{config.port}"


def fingerprint(key: Any) -> str:
    """As ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def pinned_keys(config: BoardConfig) -> list[Any]:
    """The keys pinned for this board. Raises UsageError when the file cannot be read."""
    import paramiko

    path = known_hosts_path(config)
    if not path.exists():
        return []
    try:
        found = paramiko.HostKeys(str(path)).lookup(host_entry(config))
    except (OSError, paramiko.SSHException) as error:
        raise UsageError(f"{path}: cannot read known hosts: {error}") from error
    return list(found.values()) if found else []


def require_pinned(config: BoardConfig) -> None:
    """Raises HostKeyUnknown when nothing is pinned: better known before the network is touched."""
    if not pinned_keys(config):
        raise HostKeyUnknown(
            f"board {config.name}: no host key of {host_entry(config)} in {known_hosts_path(config)}: "
            f"run `hilnas board trust {config.name}` and compare the fingerprint on the board's console"
        )


def changed(config: BoardConfig, seen: Any, pinned: Any) -> HostKeyChanged:
    return HostKeyChanged(
        f"board {config.name}: {host_entry(config)} shows host key {fingerprint(seen)} ({seen.get_name()}), "
        f"pinned is {fingerprint(pinned)} ({pinned.get_name()}): another machine or a new image. "
        "Compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console; then remove the "
        f"line from {known_hosts_path(config)} and run `hilnas board trust {config.name}`"
    )


def pin(config: BoardConfig) -> str:
    """Fetches the board's host key, appends it to known_hosts and returns its fingerprint.

    Raises HostKeyChanged when another key is pinned, Unreachable.
    """
    seen = _fetch(config)
    pinned = pinned_keys(config)
    if seen in pinned:
        return fingerprint(seen)
    if pinned:
        raise changed(config, seen, pinned[0])
    path = known_hosts_path(config)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{host_entry(config)} {seen.get_name()} {seen.get_base64()}\n"
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        line = "\n" + line
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(line)
    return fingerprint(seen)


def _fetch(config: BoardConfig) -> Any:
    import paramiko

    quiet_paramiko()
    with open_socket(config) as connection:
        transport = paramiko.Transport(connection)
        transport.banner_timeout = config.connect_timeout_s
        try:
            transport.start_client(timeout=config.connect_timeout_s)
            return transport.get_remote_server_key()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Unreachable(
                f"board {config.name}: {config.host} port {config.port} accepts connections but shows no "
                f"host key ({error or type(error).__name__}): is that an SSH server?"
            ) from error
        finally:
            transport.close()
