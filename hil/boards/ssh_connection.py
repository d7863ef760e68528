"""The way to a board's SSH server: connecting, its host key, logging in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hil.boards.config import BoardConfig
from hil.boards.hostkeys import changed, known_hosts_path, require_pinned
from hil.boards.ssh_socket import open_socket, quiet_paramiko
from hil.errors import BoardError, Unreachable, UsageError

CHANNEL_TIMEOUT_S = 15.0
KEEPALIVE_S = 5


def connect(config: BoardConfig) -> Any:
    """A connected paramiko client. Raises Unreachable, HostKeyUnknown, HostKeyChanged, UsageError."""
    import paramiko

    quiet_paramiko()
    require_pinned(config)
    key = str(Path(config.key).expanduser()) if config.key else None
    if key is not None and not Path(key).is_file():
        raise UsageError(f"board {config.name}: private key {key} does not exist: make it or fix `key` in boards.toml")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.load_host_keys(str(known_hosts_path(config)))
    connection = open_socket(config)
    where = f"board {config.name}: {config.host} port {config.port}"
    try:
        client.connect(
            config.host,
            port=config.port,
            username=config.user,
            sock=connection,
            key_filename=key,
            allow_agent=key is None,
            look_for_keys=key is None,
            timeout=config.connect_timeout_s,
            banner_timeout=config.connect_timeout_s,
            auth_timeout=config.connect_timeout_s,
            channel_timeout=CHANNEL_TIMEOUT_S,
        )
        client.get_transport().set_keepalive(KEEPALIVE_S)
        return client
    except paramiko.BadHostKeyException as error:
        problem: BoardError = changed(config, error.key, error.expected_key)
    except paramiko.PasswordRequiredException:
        problem = Unreachable(f"{where}: key {key} is encrypted: add it to ssh-agent and leave `key` out")
    except paramiko.AuthenticationException as error:
        problem = Unreachable(
            f"{where}: {config.user} is not let in with {key or 'the keys of ssh-agent and ~/.ssh'} "
            f"({error}): add the public key to its authorized_keys"
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        problem = Unreachable(
            f"{where} accepts connections but SSH fails "
            f"({error or type(error).__name__}, deadline {config.connect_timeout_s:g} s): restart it"
        )
    client.close()
    connection.close()
    raise problem
