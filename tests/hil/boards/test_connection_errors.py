"""Servers that we do not get into: each for its own reason, with its own advice."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import asyncssh
import pytest

from hil.boards.config import BoardConfig
from hil.boards.kinds import trust
from hil.boards.ssh import SSHBoard
from hil.errors import Unreachable
from tests.hil.ssh_servers import Server, answering, asyncssh_server, ssh_agent, sshd, write_key


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys of the user's, and without an agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def reached(config: BoardConfig) -> str:
    with SSHBoard(config) as board:
        return board.run(["echo", "in"], 10).stdout


def refused(config: BoardConfig, *, hangs: bool = False) -> str:
    """What is said; "restart it" only of what hangs."""
    with pytest.raises(Unreachable) as caught:
        reached(config)
    said = str(caught.value)
    assert ("restart it" in said) == hangs, said
    assert said.startswith(f"board evk: 127.0.0.1 port {config.port}")
    return said


OLD_SERVERS = [
    (
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
        "KexAlgorithms diffie-hellman-group14-sha1",
        "only old key exchanges",
    ),
    ({"signature_algs": ["ssh-rsa"]}, "HostKeyAlgorithms ssh-rsa", "signatures of its host key"),
    (
        {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
        "Ciphers chacha20-poly1305@openssh.com",
        "as Ciphers in its",
    ),
    (
        {"mac_algs": ["umac-64@openssh.com"], "encryption_algs": ["aes128-ctr"]},
        "MACs umac-64@openssh.com",
        "as MACs in its",
    ),
]


def test_old_and_unknown_algorithms_are_named(tmp_path: Path) -> None:
    for number, (options, _, _) in enumerate(OLD_SERVERS):
        if "signature_algs" in options:
            continue  # asyncssh signs its host key in every way
        with asyncssh_server(tmp_path / str(number), host_key="rsa", **options) as server:
            check_algorithms(server, number)


@pytest.mark.system
def test_old_and_unknown_algorithms_of_openssh(tmp_path: Path) -> None:
    for number, (_, line, _) in enumerate(OLD_SERVERS):
        with sshd(
            tmp_path / str(number), line, *(["Ciphers aes128-ctr"] if "MACs" in line else []), host_key="rsa"
        ) as server:
            check_algorithms(server, number)


def check_algorithms(server: Server, number: int) -> None:
    said = refused(server.config())
    wanted = [
        "offers only key exchanges that are no longer safe (diffie-hellman-group14-sha1): update it to OpenSSH 7.2",
        "offers only signatures of its host key that are no longer safe (ssh-rsa): update it to OpenSSH 7.2, Dropbear "
        "2020.79 or newer, or make it another host key (`ssh-keygen -A` there)",
        "offers only ciphers that are not known here (chacha20-poly1305@openssh.com): allow one of aes128-ctr, ",
        "offers only MACs that are not known here (umac-64@openssh.com): allow one of hmac-sha2-256, ",
    ][number]
    assert wanted in said and "its SSH server (SSH-2.0-" in said
    with pytest.raises(Unreachable) as caught:  # the same cause without a pinned key
        (server.folder / "known_hosts").write_text("")
        list(trust(server.config()))
    assert wanted in str(caught.value)


def test_what_is_no_ssh_server(tmp_path: Path) -> None:
    def web(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with answering(tmp_path / "web", web) as server:
        assert "greets with 'HTTP/1.1 400 Bad Request' and not as an SSH server does: fix `host` or `port`" in refused(
            server.config()
        )
    with answering(tmp_path / "full", lambda connection: connection.sendall(b"Exceeded MaxStartups\r\n")) as server:
        assert "greets with 'Exceeded MaxStartups'" in (said := refused(server.config())) and "wait, or see" in said
    with answering(tmp_path / "closes", lambda connection: None) as server:
        assert "closes them before a word" in refused(server.config())
    with answering(tmp_path / "old", lambda connection: connection.sendall(b"SSH-1.5-OpenSSH_2\n")) as server:
        assert "(SSH-1.5-OpenSSH_2) speaks another SSH than ours" in refused(server.config())
    with answering(tmp_path / "nonsense", lambda c: c.sendall(b"SSH-2.0-x\r\n" + bytes(range(256)) * 40)) as server:
        assert "the key exchange with SSH-2.0-x fails" in refused(server.config())


def test_what_hangs_is_restarted(tmp_path: Path) -> None:
    def silent(connection: socket.socket) -> None:
        connection.settimeout(5)
        while connection.recv(1000):
            pass

    def half(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-half\r\n")
        silent(connection)

    for name, answer, said in (
        ("silent", silent, "accepts connections but sends nothing within 0.5 s"),
        ("half", half, "the key exchange with SSH-2.0-half does not end within 0.5 s"),
    ):
        with answering(tmp_path / name, answer) as server:
            begin = time.monotonic()
            assert said in refused(server.config(connect_timeout_s=0.5), hangs=True)
            assert time.monotonic() - begin < 5


def test_a_key_that_is_not_let_in(tmp_path: Path) -> None:
    write_key(tmp_path / "other")
    with asyncssh_server(tmp_path / "server") as server:
        said = refused(server.config(key=str(tmp_path / "other"), user="root"))
        assert f"root is not let in with {tmp_path}/other: add its public half to authorized_keys there" in said
        assert f"`ssh-copy-id -p {server.port} root@127.0.0.1`" in said and "PermitRootLogin" in said
        unset = refused(server.config(key=str(tmp_path / "other"), user=""))
        assert "no `user` is set, so this machine's " in unset


@pytest.mark.system
def test_what_openssh_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [write_key(tmp_path / f"k{number}") for number in range(4)]
    with sshd(tmp_path / "tries", "MaxAuthTries 3") as server, ssh_agent(tmp_path, *keys) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        said = refused(server.config(key=""))
        assert "ends the connection after ssh-agent's" in said and "Too many authentication failures" in said
        assert "name the right one as `key`" in said
    with sshd(tmp_path / "further", "AuthenticationMethods publickey,password", "PasswordAuthentication yes") as server:
        assert "is taken, but password is wanted as well, which we never give" in refused(server.config())
    with sshd(tmp_path / "password", "PubkeyAuthentication no", "PasswordAuthentication yes") as server:
        assert "takes no keys, only password: set PubkeyAuthentication yes" in refused(server.config())
        assert "takes no keys, only password" in refused(server.config(key=""))
    with sshd(tmp_path / "sha1", "PubkeyAcceptedAlgorithms ssh-rsa") as server:
        rsa = write_key(tmp_path / "rsa", "rsa")
        (server.folder / "authorized_keys").write_text((tmp_path / "rsa.pub").read_text())
        said = refused(server.config(key=str(rsa)))
        assert "may take RSA only with SHA-1, with which we never sign: try an ed25519 key" in said
    (tmp_path / ".ssh").mkdir()
    rsa.rename(tmp_path / ".ssh" / "id_rsa")
    with sshd(tmp_path / "both", "PubkeyAcceptedAlgorithms ssh-rsa,ssh-ed25519") as server:
        (server.folder / "client_key").rename(tmp_path / ".ssh" / "id_ed25519")
        assert reached(server.config(key="")) == "in\n"  # though id_rsa is the first of ssh's names


def test_a_server_that_says_that_it_takes_rsa_only_with_sha1(tmp_path: Path) -> None:
    key = write_key(tmp_path / "rsa", "rsa")
    with asyncssh_server(tmp_path / "sha1", signature_algs=["ssh-rsa", "ssh-ed25519"]) as server:
        said = refused(server.config(key=str(key)))
        assert "takes RSA keys only with SHA-1 signatures" in said and "ssh-keygen -t ed25519" in said


class LetsAnybodyIn(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


def test_a_board_without_a_password_lets_us_in_as_it_does_ssh(tmp_path: Path) -> None:
    with asyncssh_server(tmp_path / "open", server_factory=LetsAnybodyIn) as server:
        assert reached(server.config(key="")) == "in\n"
