"""A board behind a second, real sshd: through `jump`, and through what ~/.ssh/config says."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy.cli import main
from hil.boards.config import BoardConfig
from hil.boards.kinds import trust
from hil.boards.loopback import free_port
from hil.boards.ssh import SSHBoard
from hil.errors import HostKeyChanged, HostKeyUnknown, LinkLost, Unreachable
from hil.user import account
from tests.hil.ssh_servers import Server, sshd, write_key

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Bench:
    """A gate that forwards, a board behind it, and a user's ~/.ssh."""

    gate: Server
    board: Server
    ssh: Path

    def alias(self, **changes: object) -> BoardConfig:
        """A board of which boards.toml says next to nothing."""
        return dataclasses.replace(BoardConfig("evk", "ssh", host="evk"), **changes)

    def write_config(self, evk: str, more: str = "") -> None:
        (self.ssh / "config").write_text(
            f"Include others/*\nHost evk\n HostName 127.0.0.1\n Port {self.board.port}\n User {account()}\n"
            f" IdentityFile {self.board.folder}/client_key\n {evk}\n{more}"
        )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("jump")
    with sshd(folder / "gate", "AllowTcpForwarding yes") as gate, sshd(folder / "board") as board:
        yield gate, board


@pytest.fixture
def bench(servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    bench = Bench(*servers, tmp_path / ".ssh")
    (bench.ssh / "others").mkdir(parents=True)
    (bench.ssh / "others" / "gate").write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {bench.gate.port}\n User {account()}\n"
        f" IdentityFile {bench.gate.folder}/client_key\n"
    )
    (bench.ssh / "known_hosts").write_text(
        "".join((server.folder / "known_hosts").read_text() for server in (bench.gate, bench.board))
    )
    bench.write_config("")
    return bench


def said_there(config: BoardConfig, command: str = 'echo "$SSH_CONNECTION"') -> str:
    with SSHBoard(config) as board:
        return board.run(["sh", "-c", command], 10).stdout


def passes(bench: Bench, config: BoardConfig) -> bool:
    """Whether the gate was asked to forward to the board."""
    log = bench.gate.folder / "log"
    before = log.read_text().count("Accepted publickey")
    assert said_there(config).split()[3] == str(bench.board.port)
    return log.read_text().count("Accepted publickey") == before + 1


def test_an_alias_alone_is_enough(bench: Bench) -> None:
    assert not passes(bench, bench.alias())


def test_a_jump_of_boards_toml(bench: Bench) -> None:
    assert passes(bench, bench.alias(jump="gate"))


def test_a_jump_without_any_file(bench: Bench) -> None:
    """The board's key serves the jump host, too; so does its file of host keys."""
    keys = (bench.gate.folder / "authorized_keys").read_text()
    known = str(bench.ssh / "known_hosts")
    with (bench.gate.folder / "authorized_keys").open("a") as file:
        file.write((bench.board.folder / "client_key.pub").read_text())
    try:
        jump = f"{account()}@127.0.0.1:{bench.gate.port}"
        assert passes(bench, bench.board.config(jump=jump, known_hosts=known))
    finally:
        (bench.gate.folder / "authorized_keys").write_text(keys)


def test_a_proxy_jump_and_how_to_undo_it(bench: Bench) -> None:
    bench.write_config("ProxyJump gate")
    assert passes(bench, bench.alias())
    assert not passes(bench, bench.alias(jump="none"))
    assert not passes(bench, bench.board.config())  # ssh_config = "none"


def test_through_two_jump_hosts(bench: Bench) -> None:
    (bench.ssh / "others" / "again").write_text(
        f"Host again\n HostKeyAlias second\n{(bench.ssh / 'others/gate').read_text()[10:]}"
    )
    with (bench.ssh / "known_hosts").open("a") as file:
        file.write(f"second {(bench.gate.folder / 'host_key.pub').read_text()}")
    log = bench.gate.folder / "log"
    before = log.read_text().count("Accepted publickey")
    bench.write_config("ProxyJump gate,again")
    assert said_there(bench.alias()).split()[3] == str(bench.board.port)
    assert log.read_text().count("Accepted publickey") == before + 2


@pytest.mark.parametrize("command", ["ssh", "python"])
def test_a_proxy_command(bench: Bench, command: str) -> None:
    import sys

    if command == "ssh":
        options = f"-F {bench.ssh}/config -o UserKnownHostsFile={bench.ssh}/known_hosts -o BatchMode=yes"
        bench.write_config(f"ProxyCommand ssh {options} -W %h:%p gate")
        assert passes(bench, bench.alias())
        return
    relay = bench.ssh / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def out():\n while data := s.recv(65536): os.write(1, data)\n os._exit(0)\n"
        "threading.Thread(target=out).start()\n"
        "while data := os.read(0, 65536): s.sendall(data)\n"
        "os._exit(0)\n"
    )
    bench.write_config(f"ProxyCommand {sys.executable} {relay} %h %p")
    children = set(psutil.Process().children())
    with SSHBoard(bench.alias()) as board:
        assert board.run(["echo", "in"], 10).stdout == "in\n"
        assert len(set(psutil.Process().children()) - children) == 1
    assert set(psutil.Process().children()) <= children
    bench.write_config("ProxyCommand echo no way >&2; exit 1")
    with pytest.raises(Unreachable, match=r"its ProxyCommand leads nowhere \(no way\): try it in a shell: echo no way"):
        said_there(bench.alias())


def test_files_pass_whole(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 4000)
    with SSHBoard(bench.alias(jump="gate")) as board:
        there = board.run(["mktemp", "-d"], 10).stdout.strip()
        board.put(tmp_path / "sent", f"{there}/file")
        board.get(f"{there}/file", tmp_path / "back")
        board.run(["rm", "-r", there], 10)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_closing_leaves_no_connection_behind(bench: Bench) -> None:
    before = set(threading.enumerate())
    with SSHBoard(bench.alias(jump="gate")) as board:
        board.run(["true"], 10)
        ours = set(threading.enumerate()) - before
        assert ours
    deadline = time.monotonic() + 5
    while any(thread.is_alive() for thread in ours) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(thread.is_alive() for thread in ours)


def test_a_jump_host_that_goes_away_is_a_lost_link(bench: Bench, tmp_path: Path) -> None:
    with sshd(tmp_path / "gate", "AllowTcpForwarding yes") as gate:
        (bench.ssh / "others" / "gate").write_text(
            f"Host gate\n HostName 127.0.0.1\n Port {gate.port}\n IdentityFile {gate.folder}/client_key\n"
        )
        with (bench.ssh / "known_hosts").open("a") as file:
            file.write((gate.folder / "known_hosts").read_text())
        with SSHBoard(bench.alias(jump="gate")) as board:
            board.run(["true"], 10)
            before = [child for child in psutil.Process().children(recursive=True) if "sshd" in child.name()]
            mine = [child for child in before if str(gate.folder) in " ".join(child.cmdline())]
            family = [each for child in mine for each in child.children(recursive=True)]
            threading.Timer(0.5, lambda: [each.kill() for each in family]).start()
            with pytest.raises(LinkLost):
                board.run(["sleep", "30"], 20)
            assert board.run(["echo", "back"], 10).stdout == "back\n"


def test_what_is_wrong_is_said_of_the_right_machine(bench: Bench, tmp_path: Path) -> None:
    off = free_port()
    with pytest.raises(Unreachable, match=rf"board evk, jump host gate: .* port {off}: Connection refused"):
        known = f"[127.0.0.1]:{off} {(bench.gate.folder / 'host_key.pub').read_text()}"
        (bench.ssh / "known_hosts").write_text(known + (bench.ssh / "known_hosts").read_text())
        said_there(bench.alias(jump=f"gate:{off}"))
    with pytest.raises(
        Unreachable, match=rf"jump host gate cannot reach 127.0.0.1 port {off} \(Connect.*on the jump host's"
    ):
        said_there(bench.alias(jump="gate", port=off))
    write_key(tmp_path / "other")
    gate = (bench.ssh / "others" / "gate").read_text()
    (bench.ssh / "others" / "gate").write_text(gate.replace(f"{bench.gate.folder}/client_key", f"{tmp_path}/other"))
    with pytest.raises(Unreachable, match=r"board evk, jump host gate: .* is not let in with .*/other: add"):
        said_there(bench.alias(jump="gate"))
    with sshd(tmp_path / "closed", "AllowTcpForwarding no") as closed:
        shutil.copy(closed.folder / "known_hosts", bench.ssh / "known_hosts2")
        (bench.ssh / "others" / "gate").write_text(
            gate.replace(str(bench.gate.port), str(closed.port)).replace(str(bench.gate.folder), str(closed.folder))
        )
        with pytest.raises(Unreachable, match=r"jump host gate does not lead on to .*set AllowTcpForwarding yes"):
            said_there(bench.alias(jump="gate"))


def test_trust_pins_the_jump_host_first(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.write_config("ProxyJump gate")
    (bench.ssh / "known_hosts").unlink()
    with pytest.raises(
        HostKeyUnknown, match=r"board evk, jump host gate: no host key of .*run `hilnas board trust evk`"
    ):
        said_there(bench.alias())
    (tmp_path / "boards.toml").write_text('[evk]\nkind = "ssh"\nhost = "evk"\n')
    assert main(["board", "trust", "evk", "--boards", str(tmp_path / "boards.toml")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert f"for [127.0.0.1]:{bench.gate.port}, a jump host of evk: compare it with what `ssh-keygen -lf" in first
    assert f"for [127.0.0.1]:{bench.board.port}: compare it" in second
    assert (bench.ssh / "known_hosts").read_text().count("\n") == 2
    assert passes(bench, bench.alias())
    write_key(tmp_path / "other")
    lines = (bench.ssh / "known_hosts").read_text().splitlines()
    (bench.ssh / "known_hosts").write_text(
        f"[127.0.0.1]:{bench.gate.port} {(tmp_path / 'other.pub').read_text()}{lines[1]}\n"
    )
    for use in (said_there, lambda config: list(trust(config))):
        with pytest.raises(HostKeyChanged, match="board evk, jump host gate"):
            use(bench.alias())


def test_the_list_shows_what_boards_toml_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "boards.toml").write_text(
        '[a]\nkind = "ssh"\nhost = "evk"\n[b]\nkind = "ssh"\nhost = "evk"\nuser = "root"\nport = 22\njump = "gate"\n'
    )
    assert main(["board", "list", "--boards", str(tmp_path / "boards.toml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(None, 2)[2] for line in lines[:2]] == ["evk", "root@evk:22 through gate"]
