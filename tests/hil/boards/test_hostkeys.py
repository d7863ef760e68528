"""known_hosts: whose lines count, and that others' lines, whatever they hold, do no harm."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.hostkeys import known_keys
from hil.boards.kinds import trust
from hil.boards.login import find_login
from hil.boards.ssh import SSHBoard
from hil.errors import HostKeyChanged, HostKeyRevoked, HostKeyUnknown, UsageError
from tests.hil.ssh_servers import Server, asyncssh_server, sshd, write_key

OTHERS = [
    b"@cert-authority *.lab ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmW7hBkMXHsTrJPuQ4pFv4f6F7sjkOX2dnyhPDeg2Oq ca",
    b"@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmW7hBkMXHsTrJPuQ4pFv4f6F7sjkOX2dnyhPDeg2Oq",
    b"@marker-of-tomorrow other ssh-ed25519 AAAA",
    b"other ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
    b"other ssh-ed25519 no/base64!",
    b"other",
    b"other 1024 35 1234567890",  # SSH 1
    b"b\xfcro.lab ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmW7hBkMXHsTrJPuQ4pFv4f6F7sjkOX2dnyhPDeg2Oq l\xe4uft",
    b"\xff\xfe\x00binary\x00",
    b"|1|bm8gc2FsdA==|bm8gaGFzaA== ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ==",
    b"|2|x|y ssh-rsa AAAA",
    b"|1|not base64|| ssh-rsa AAAA",
    b"other sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA==",
    b"# a comment",
    b"",
]


@pytest.fixture(scope="module", params=["asyncssh", pytest.param("sshd", marks=pytest.mark.system)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    start = {"asyncssh": asyncssh_server, "sshd": sshd}[request.param]
    with start(tmp_path_factory.mktemp("server")) as started:
        yield started


def reached(config: BoardConfig) -> str:
    with SSHBoard(config) as board:
        return board.run(["echo", "in"], 10).stdout


def pinned_in(server: Server, path: Path, *lines: bytes, after: bool = True) -> BoardConfig:
    """The server's own line among others."""
    own = (server.folder / "known_hosts").read_bytes().strip()
    path.write_bytes(b"\n".join([*lines, own] if after else [own, *lines]) + b"\n")
    return server.config(known_hosts=str(path))


@pytest.mark.parametrize("after", [True, False])
def test_lines_about_others_do_no_harm(server: Server, tmp_path: Path, after: bool) -> None:
    assert reached(pinned_in(server, tmp_path / "known_hosts", *OTHERS, after=after)) == "in\n"


def test_and_they_pin_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    config = server.config(known_hosts=str(path))
    for line in OTHERS:
        path.write_bytes(line)
        assert not known_keys(find_login(config)).pinned
    path.write_bytes(b"\n".join(OTHERS)[:-1])
    with pytest.raises(HostKeyUnknown, match="hilnas board trust evk"):
        reached(config)
    (pinned,) = trust(config)
    assert reached(config) == "in\n"
    assert path.read_bytes().startswith(b"\n".join(OTHERS)[:-1])
    assert list(trust(config)) == [pinned]


def test_a_revoked_key_is_refused(server: Server, tmp_path: Path) -> None:
    kind, key = (server.folder / "host_key.pub").read_text().split()[:2]
    revoked = f"@revoked [127.0.0.1]:{server.port} {kind} {key}".encode()
    for pattern in (revoked, f"@revoked *\t{kind} {key}".encode(), f"@revoked *,!*.lab {kind} {key} gone".encode()):
        config = pinned_in(server, tmp_path / "known_hosts", pattern)
        with pytest.raises(HostKeyRevoked, match=r"but one that .*known_hosts:1 has revoked: make a new one"):
            reached(config)
        with pytest.raises(HostKeyRevoked, match=r"SHA256:.*known_hosts:1 has revoked"):
            list(trust(config))


def test_a_revoked_key_of_somebody_else_is_theirs(server: Server, tmp_path: Path) -> None:
    kind, key = (server.folder / "host_key.pub").read_text().split()[:2]
    others = ["other", "[127.0.0.2]:22", f"*,![127.0.0.1]:{server.port}"]
    lines = [f"@revoked {names} {kind} {key}".encode() for names in others]
    assert reached(pinned_in(server, tmp_path / "known_hosts", *lines)) == "in\n"


def test_a_revoked_key_beside_the_pinned_one(server: Server, tmp_path: Path) -> None:
    write_key(tmp_path / "stolen")
    stolen = f"[127.0.0.1]:{server.port} {(tmp_path / 'stolen.pub').read_text()}".encode()
    config = pinned_in(server, tmp_path / "known_hosts", stolen, b"@revoked " + stolen)
    assert reached(config) == "in\n"
    known = known_keys(find_login(config))
    assert len(known.pinned) == len(known.revoked) == 1


def test_a_damaged_line_about_this_host_is_named(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# mine\n[127.0.0.1]:{server.port} ssh-ed25519 AAAAC3Nz\n")
    with pytest.raises(
        HostKeyUnknown, match=r"known_hosts:2 should have it but is damaged: remove that line, then run"
    ):
        reached(server.config(known_hosts=str(path)))


def test_a_certificate_authority_of_this_host_is_named(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(OTHERS[0].replace(b"*.lab", b"*"))
    with pytest.raises(HostKeyUnknown, match=r"@cert-authority in .*known_hosts:1 does not help"):
        reached(server.config(known_hosts=str(path)))


def test_how_a_host_can_be_named(tmp_path: Path) -> None:
    line = (write_key(tmp_path / "key").with_name("key.pub")).read_text().strip()
    name, salt = "[127.0.0.1]:22022", os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    hashed = "|1|" + "|".join(base64.b64encode(raw).decode() for raw in (salt, digest))
    login = find_login(
        BoardConfig("b", "ssh", host="127.0.0.1", port=22022, known_hosts=f"{tmp_path}/k", ssh_config="none")
    )
    for names, count in (
        *((each, 1) for each in (name, f"other,{name}", "[127.0.0.?]:22022", "[127.*]:*", hashed, "*")),
        *((each, 0) for each in ("127.0.0.1", f"!{name},*", "[127.0.0.1]", "0", f"{name}0", hashed[:-4] + "AAA=")),
    ):
        (tmp_path / "k").write_text(f"  {names}   {line} and more\r\n")
        assert len(known_keys(login).pinned) == count, names


@pytest.mark.system
def test_ssh_keygen_finds_the_same_lines(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here: apt install openssh-client")
    write_key(tmp_path / "key")
    key = (tmp_path / "key.pub").read_text()
    path = tmp_path / "known_hosts"
    names = ["board", "a,board", "!board,*", "b?ard", "[board]:22", "BOARD", "*", "boar", "@revoked board", "b*d,!boa*"]
    path.write_text("".join(f"{each} {key}" for each in names))
    found = subprocess.run(["ssh-keygen", "-F", "board", "-f", str(path)], capture_output=True, text=True, check=False)
    theirs = {int(line.split(" line ")[1].split()[0]) for line in found.stdout.splitlines() if " line " in line}
    ours = set()
    for number, each in enumerate(names, start=1):
        path.write_text(f"{each} {key}")
        known = known_keys(find_login(BoardConfig("b", "ssh", host="board", known_hosts=str(path), ssh_config="none")))
        if known.pinned or known.revoked:
            ours.add(number)
    assert ours == theirs


def test_a_file_that_cannot_be_read_or_written_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read known hosts: Is a directory: see `known_hosts`"):
        reached(server.config(known_hosts=str(tmp_path)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/known_hosts: .*name a file that can be written"):
        list(trust(server.config(known_hosts=str(tmp_path / "file" / "known_hosts"))))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys of two kinds, of which known_hosts has RSA."""
    folder = tmp_path_factory.mktemp("both")
    write_key(folder / "rsa_key", "rsa")
    keys = [str(folder / "server" / "host_key"), str(folder / "rsa_key")]
    with asyncssh_server(folder / "server", server_host_keys=keys) as started:
        line = f"[127.0.0.1]:{started.port} {(folder / 'rsa_key.pub').read_text()}"
        (started.folder / "known_hosts").write_text(line)
        yield started


def test_the_pinned_kind_is_asked_for(both: Server) -> None:
    before = (both.folder / "known_hosts").read_text()
    assert reached(both.config()) == "in\n"
    (pinned,) = trust(both.config())
    assert "ssh_host_rsa_key.pub" in pinned.compare
    assert (both.folder / "known_hosts").read_text() == before


def test_a_kind_that_is_gone_is_said_to_be(both: Server, tmp_path: Path) -> None:
    write_key(tmp_path / "ecdsa", "ecdsa")
    path = tmp_path / "known_hosts"
    path.write_text(f"[127.0.0.1]:{both.port} {(tmp_path / 'ecdsa.pub').read_text()}")
    for use in (reached, lambda config: list(trust(config))):
        with pytest.raises(HostKeyChanged, match=r"It has no ecdsa-sha2-nistp256 key any more.*remove the line .*:1"):
            use(both.config(known_hosts=str(path)))


def test_another_key_of_the_pinned_kind_is_a_change(both: Server, tmp_path: Path) -> None:
    write_key(tmp_path / "rsa", "rsa")
    path = tmp_path / "known_hosts"
    path.write_text(f"[127.0.0.1]:{both.port} {(tmp_path / 'rsa.pub').read_text()}")
    with pytest.raises(HostKeyChanged) as caught:
        reached(both.config(known_hosts=str(path)))
    assert str(caught.value).count("(ssh-rsa)") == 2 and "any more" not in str(caught.value)


def test_the_machines_file_counts_too(server: Server, tmp_path: Path) -> None:
    """As with `ssh`: ~/.ssh/config says where the files are, and a revocation in any of them holds."""
    kind, key = (server.folder / "host_key.pub").read_text().split()[:2]
    (tmp_path / "revoked").write_text("")
    (tmp_path / "config").write_text(
        f"UserKnownHostsFile {tmp_path}/mine {server.folder}/known_hosts\nGlobalKnownHostsFile {tmp_path}/revoked\n"
    )
    config = dataclasses.replace(server.config(), known_hosts="", ssh_config=str(tmp_path / "config"))
    assert reached(config) == "in\n"
    (tmp_path / "revoked").write_text(f"@revoked * {kind} {key}\n")
    with pytest.raises(HostKeyRevoked):
        reached(config)
