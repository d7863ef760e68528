"""What is given as a key, and what is advised where it is none. Each is tried on a real server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, HilError, Unreachable, UsageError
from tests.hil.ssh_servers import Server, asyncssh_server, ssh_agent, write_key, written_again


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with asyncssh_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without keys, and without an agent."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    return tmp_path / "home"


def reached(config: BoardConfig) -> str:
    with SSHBoard(config) as board:
        return board.run(["echo", "in"], 10).stdout


def refused(config: BoardConfig, kind: type[HilError]) -> str:
    with pytest.raises(kind) as caught:
        reached(config)
    assert "restart" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("style", ["OpenSSH", "TraditionalOpenSSL", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_every_format_of_a_key_is_read(tmp_path: Path, kind: str, style: str) -> None:
    if (kind, style) == ("ed25519", "TraditionalOpenSSL"):
        pytest.skip("there is no such format")
    key = write_key(tmp_path / "a key", kind, style=style)
    key.write_bytes(b"\r\n".join(key.read_bytes().splitlines()) + b"\r\n")  # as an editor of another system saves it
    with asyncssh_server(tmp_path / "server", authorized_client_keys=str(key.with_name("a key.pub"))) as server:
        assert reached(server.config(key=str(key))) == "in\n"


PPK = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: k\nPublic-Lines: 2\nAAAA\n"
SSH2 = "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("k.ppk", PPK, "puttygen {folder}/k.ppk -O private-openssh -o {folder}/k` converts it, then name {folder}/k"),
        ("k", PPK, "-o {folder}/k-openssh`"),
        ("k.pub", "ssh-ed25519 AAAA me", "public half of a key, which belongs on the board: name {folder}/k"),
        ("k.txt", "ssh-rsa AAAA", "which belongs on the board: name the private half"),
        ("k.pub", SSH2, "public half"),
        ("k", "", "is empty: name the file of a private key"),
        ("k", "secret\n", "is no private key (it begins with 'secret')"),
        ("k", "-----BEGIN CERTIFICATE-----\n", "is no private key"),
        ("k", "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n", "is a DSA key, which SSH no longer takes"),
        (
            "k",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "cannot be read as a private",
        ),
        ("k", "-----BEGIN OPENSSH PRIVATE KEY-----", "cannot be read as a private key"),
        ("k", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read as a private key"),
        ("k", b"\xff\xfe\x00\x01" * 40, "is no private key"),
    ],
)
def test_a_file_that_is_no_key_says_what_it_is(
    server: Server, tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused(server.config(key=str(tmp_path / name)), UsageError)
    assert said.format(folder=tmp_path) in message and message.endswith("(`key` in boards.toml)")
    assert message.startswith(f"board evk: {tmp_path / name} is ") or "cannot be read" in message


def test_a_missing_file_and_a_folder(server: Server, tmp_path: Path) -> None:
    assert "does not exist" in refused(server.config(key=str(tmp_path / "none")), UsageError)
    assert "cannot be read (Is a directory)" in refused(server.config(key=str(tmp_path)), UsageError)


def test_a_dsa_key_in_pkcs8(server: Server, tmp_path: Path) -> None:
    key = write_key(tmp_path / "dsa", "dsa", style="PKCS8")
    assert "is no key for SSH" in refused(server.config(key=str(key)), UsageError)


@pytest.mark.parametrize("style", ["OpenSSH", "TraditionalOpenSSL", "PKCS8"])
def test_an_encrypted_key_without_an_agent(server: Server, tmp_path: Path, style: str) -> None:
    key = write_key(tmp_path / "locked", "rsa", locked_by="secret", style=style)
    said = refused(server.config(key=str(key)), UsageError)
    assert f'{key} is encrypted and no ssh-agent runs: run `eval "$(ssh-agent)"`, then `ssh-add {key}`' in said


def test_no_key_at_all(server: Server, home: Path) -> None:
    said = refused(server.config(key=""), Unreachable)
    assert (
        "log in with: no ssh-agent runs, and ~/.ssh has no id_rsa, id_ecdsa, id_ed25519: make one with `ssh-key" in said
    )
    assert f"`ssh-copy-id -p {server.port} " in said


def test_an_encrypted_default_key(server: Server, home: Path) -> None:
    written_again(server.folder / "client_key", home / ".ssh" / "id_ed25519", "secret")
    said = refused(server.config(key=""), Unreachable)
    assert f"no key to log in with: {home}/.ssh/id_ed25519 is encrypted and no ssh-agent runs" in said
    assert "None" not in said


def test_default_keys_are_tried_in_order(server: Server, home: Path) -> None:
    shutil.copy(server.folder / "client_key", home / ".ssh" / "id_ed25519")
    assert reached(server.config(key="")) == "in\n"


def test_an_identity_file_that_is_no_key_is_said_where_nothing_else_lets_us_in(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {tmp_path}/none\nIdentityFile {tmp_path}/k.ppk\n")
    (tmp_path / "k.ppk").write_text(PPK)
    said = refused(server.config(key="", ssh_config=str(config)), Unreachable)
    assert f"private key {tmp_path}/none does not exist" in said and "PuTTY" in said and "boards.toml" not in said
    config.write_text(config.read_text() + f"IdentityFile {server.folder}/client_key\n")
    assert reached(server.config(key="", ssh_config=str(config))) == "in\n"


@pytest.mark.system
class TestAgent:
    @pytest.fixture
    def agent(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        with ssh_agent(tmp_path, server.folder / "client_key") as path:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            yield path

    def test_its_keys_are_tried(self, server: Server, agent: Path) -> None:
        assert reached(server.config(key="")) == "in\n"

    def test_an_encrypted_key_is_taken_from_it(self, server: Server, agent: Path, home: Path, tmp_path: Path) -> None:
        written_again(server.folder / "client_key", tmp_path / "locked", "secret")
        (tmp_path / "locked.pub").unlink()  # OpenSSH's format has the public half in the clear
        assert reached(server.config(key=str(tmp_path / "locked"))) == "in\n"
        written_again(server.folder / "client_key", home / ".ssh" / "id_ed25519", "secret")
        assert reached(server.config(key="")) == "in\n"

    def test_a_public_half_names_one_of_its_keys(self, server: Server, agent: Path, tmp_path: Path) -> None:
        assert reached(server.config(key=f"{server.folder}/client_key.pub")) == "in\n"
        write_key(tmp_path / "other")
        assert "public half" in refused(server.config(key=str(tmp_path / "other.pub")), UsageError)

    def test_an_encrypted_key_that_it_does_not_hold(self, server: Server, agent: Path, tmp_path: Path) -> None:
        key = write_key(tmp_path / "locked", locked_by="secret")
        said = refused(server.config(key=str(key)), UsageError)
        assert f"is encrypted and ssh-agent does not hold it: run `ssh-add {key}`" in said

    def test_identities_only_keeps_its_other_keys_back(self, server: Server, agent: Path, tmp_path: Path) -> None:
        write_key(tmp_path / "other")
        (tmp_path / "config").write_text(f"IdentitiesOnly yes\nIdentityFile {tmp_path}/other\n")
        said = refused(server.config(key="", ssh_config=str(tmp_path / "config")), Unreachable)
        assert f"is not let in with {tmp_path}/other:" in said

    def test_the_file_may_name_the_agent(
        self, server: Server, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "config").write_text(f"IdentityAgent {agent}\n")
        monkeypatch.delenv("SSH_AUTH_SOCK")
        config = server.config(key="", ssh_config=str(tmp_path / "config"))
        assert reached(config) == "in\n"
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        (tmp_path / "config").write_text("IdentityAgent none\n")
        assert "ssh-agent is not asked, and ~/.ssh has no" in refused(config, Unreachable)

    def test_a_key_that_it_does_not_sign_with(
        self, server: Server, agent: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DISPLAY", raising=False)
        subprocess.run(["ssh-add", "-q", "-D"], check=True)
        subprocess.run(
            ["ssh-add", "-q", "-c", str(server.folder / "client_key")], check=True
        )  # asks somebody each time
        said = refused(server.config(key=""), Unreachable)
        assert "does not sign (key cannot be used for signing): see what ssh-agent asks for" in said

    def test_an_agent_that_is_empty(self, server: Server, agent: Path, home: Path) -> None:
        subprocess.run(["ssh-add", "-q", "-D"], check=True)
        assert "no key to log in with" in refused(server.config(key=""), Unreachable)
        written_again(server.folder / "client_key", home / ".ssh" / "id_ed25519", "secret")
        assert "is encrypted and ssh-agent holds no key: run `ssh-add" in refused(server.config(key=""), Unreachable)


def test_an_agent_that_is_gone_or_talks_nonsense(
    server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import threading

    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert "no key to log in with" in refused(server.config(key=""), Unreachable)
    shutil.copy(server.folder / "client_key", home / ".ssh" / "id_ed25519")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "odd"))
        listener.listen()

        def answer() -> None:
            for _ in range(2):
                with listener.accept()[0] as connection:
                    connection.recv(100)
                    connection.sendall(b"\x00\x00\x00\x05\x0c\x00\x00\x00\x09")  # nine keys, and none follows

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "odd"))
        assert reached(server.config(key="")) == "in\n"
        (home / ".ssh" / "id_ed25519").unlink()
        with pytest.raises(BoardError, match="log in with: ssh-agent holds no key, and"):
            reached(server.config(key=""))
