"""~/.ssh/config as OpenSSH's own client reads it (`ssh -G`), and boards.toml before it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.login import Hop, find_login, parse_jump
from hil.boards.ssh_config import host_settings
from hil.errors import UsageError
from hil.user import user_name

FILES = {
    "aliases": "Host evk ev*\n HostName 10.0.0.7\n  User root\n\tPort=2222\nHost b\n User x\nHost *\nUser me\nPort 7\n",
    "first wins": "User one\nHost evk\nUser two\nPort 1\nHost *\nPort 2\nHostName %h.lab\n",
    "negated": "Host * !evk\nUser wrong\nHost ev? !other\nUser right\n",
    "quoted": 'Host "evk" other\nUser "an na"\nIdentityFile "/keys/with space"\nIdentityFile /keys/b\n',
    "comments": "# Host evk\nHost evk # mine\nUser root # of course\nPort 22 #\n",
    "keys": "IdentitiesOnly yes\nHost ev?\nIdentityFile /%h_%r\nUser u\nIdentityFile ~/n\nHost *\nIdentityFile /k/a\n",
    "match": "Match host evk\nUser a\nMatch originalhost evk,b\nPort 5\nMatch user b\nPort 6\nMatch all\nUser c\n",
    "match not": "Match !host evk\nUser wrong\nMatch host * !originalhost other\nUser right\n",
    "jump": "Host evk\nProxyJump anna@gate:2200,inner\nHost *\nProxyJump none\n",
    "command": "Host evk\nProxyCommand nc -X 5 %h %p\nProxyJump gate\n",
    "jump first": "Host evk\nProxyJump gate\nHost *\nProxyCommand nc %h %p\n",
    "no command": "Host evk\nProxyCommand none\nHost *\nProxyJump gate\n",
    "included": "Include {folder}/a*.conf {folder}/none\nUser last\n",
    "in a block": "Host other\nInclude {folder}/a1.conf\nHost evk\nInclude {folder}/a2.conf\nHostName of\nUser out\n",
    "included twice deep": "Host e*\n Include {folder}/deep.conf\n Port 44\n",
    "known hosts": "Host evk\nUserKnownHostsFile /k/one /k/two\nGlobalKnownHostsFile none\nHostKeyAlias board\n",
    "endings": "\ufeffHost evk\r\n  User root\r\n\r\nPort\t22\r\n",
}
INCLUDED = {
    "a1.conf": "User first\nHost evk\nPort 11\nHost other\nPort 12\n",
    "a2.conf": "Port 21\nHost other\nUser never\nHost evk\nHostName inner\n",
    "deep.conf": "Host other\nUser wrong\nInclude {folder}/a1.conf\nHost evk\nInclude {folder}/a2.conf\n",
}


def written(folder: Path, name: str) -> Path:
    for file, text in {**INCLUDED, "config": FILES[name]}.items():
        (folder / file).write_text(text.replace("{folder}", str(folder)), newline="")
    return folder / "config"


def as_ssh_reads_it(path: Path, host: str) -> dict[str, list[str]]:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here: apt install openssh-client")
    done = subprocess.run(["ssh", "-G", "-F", str(path), host], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.system
@pytest.mark.parametrize("name", [name for name in FILES if name != "endings"])  # ssh takes no byte-order mark
@pytest.mark.parametrize("host", ["evk", "other"])
def test_every_file_is_read_as_ssh_reads_it(tmp_path: Path, name: str, host: str) -> None:
    path = written(tmp_path, name)
    theirs, ours = as_ssh_reads_it(path, host), host_settings(host, str(path))
    assert ours.left_out == ()
    assert [ours.host] == theirs["hostname"]
    assert [str(ours.port or 22)] == theirs["port"]
    assert [ours.user or user_name()] == theirs["user"]
    assert ours.proxy_jump.replace("none", "") == theirs.get("proxyjump", [""])[0].replace("none", "")
    expanded = theirs.get("proxycommand", [""])[0].replace("%h", ours.host).replace("%p", str(ours.port or 22))
    assert ours.proxy_command == expanded.replace("none", "")
    assert [ours.host_key_alias] == theirs.get("hostkeyalias", [""])
    assert ours.identities_only == (theirs["identitiesonly"] == ["yes"])
    if ours.identity_files:
        named = [each.replace("~", str(Path.home())).replace("%h", ours.host) for each in theirs["identityfile"]]
        assert [str(each) for each in ours.identity_files] == [each.replace("%r", ours.user) for each in named]
    if name == "known hosts" and host == "evk":
        assert [" ".join(map(str, ours.known_hosts))] == theirs["userknownhostsfile"]


def test_byte_order_mark_and_line_endings_of_other_systems(tmp_path: Path) -> None:
    found = host_settings("evk", str(written(tmp_path, "endings")))
    assert (found.user, found.port, found.left_out) == ("root", 22, ())


@pytest.mark.parametrize(
    "block",
    [
        "Match exec true",
        "Match localnetwork 10.0.0.0/8",
        "Match tagged x",
        "Match host",
        'Match host "',
        'Host "',
        "Match !all",
    ],
)
def test_a_block_that_is_not_decided_here_counts_for_nobody(tmp_path: Path, block: str) -> None:
    path = tmp_path / "config"
    path.write_text(f"{block}\nUser wrong\nProxyJump wrong\nHost evk\nUser right\n")
    found = host_settings("evk", str(path))
    assert (found.user, found.proxy_jump, found.left_out) == ("right", "", (f"{path}:1",))


def test_lines_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"Host evk\nUser\n???\nUser root\nHost b\xfcro\nUser x\xe4\x00y\n")
    found = host_settings("evk", str(path))
    assert (found.user, found.left_out) == ("root", (f"{path}:2", f"{path}:3"))
    login = find_login(BoardConfig("b", "ssh", host="evk", ssh_config=str(path)))
    assert login.notes == (f"{path}:2, {path}:3 cannot be read here and was left out",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Port many", "Port 'many' of host evk is no port"),
        ("Port 70000", "is no port"),
        ("Include config", "lead in a circle"),
        ("CanonicalizeHostname yes", "cannot be read for host evk"),
        ("IdentityFile ~nobody-of-this-name/key", "there is no user nobody-of-this-name"),
        ("ProxyJump evk", "jump hosts lead in a circle"),
        ("ProxyJump gate:port", "is not [USER@]HOST[:PORT]"),
        ("HostName two words", "is no name or address of a host"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    path = tmp_path / ".ssh" / "config"
    path.write_text(f"Host evk\n{text}\n")
    with pytest.raises(UsageError) as caught:
        find_login(BoardConfig("b", "ssh", host="evk"))
    assert said in str(caught.value)


def test_an_include_that_names_no_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(f'Include /\nInclude {tmp_path} "" **/x\nHost evk\nUser root\n')
    found = host_settings("evk", str(path))
    assert found.user == "root" and found.left_out[0] == f"{path}:1"


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fix `ssh_config`"):
        host_settings("evk", str(tmp_path / "none"))


def test_boards_toml_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host evk\nHostName 10.0.0.7\nUser u\nPort 2222\nIdentityFile ~/.ssh/k\nProxyJump gate\n"
        "Host gate\nHostName 10.0.0.1\nUser g\nPort 2200\n"
    )
    login = find_login(BoardConfig("b", "ssh", host="evk"))
    assert (login.config.host, login.config.user, login.config.port) == ("10.0.0.7", "u", 2222)
    assert (login.keys, login.chosen, login.other_keys) == ((tmp_path / ".ssh/k",), False, True)
    assert login.host_key_name == "[10.0.0.7]:2222" and login.known_hosts[0] == tmp_path / ".ssh/known_hosts"
    assert login.via is not None and login.via.where == "board b, jump host gate: 10.0.0.1 port 2200"
    assert [server.host_key_name for server in login.way()] == ["[10.0.0.1]:2200", "[10.0.0.7]:2222"]
    ours = BoardConfig(
        "b", "ssh", host="evk", user="root", port=22, key=str(tmp_path / "key"), known_hosts="/k", jump="none"
    )
    login = find_login(ours)
    assert (login.config.host, login.config.user, login.config.port) == ("10.0.0.7", "root", 22)
    assert (login.keys, login.chosen, login.other_keys, login.via) == ((tmp_path / "key",), True, False, None)
    assert (login.host_key_name, login.known_hosts) == ("10.0.0.7", (Path("/k"),))
    login = find_login(BoardConfig("b", "ssh", host="evk", jump="x@y,gate:9", known_hosts="/k", key="/key"))
    assert [(s.config.user, s.config.host, s.config.port) for s in login.way()] == [
        (user_name() if user == "" else user, host, port)
        for user, host, port in [("x", "y", 22), ("g", "10.0.0.1", 9), ("u", "10.0.0.7", 2222)]
    ]
    assert login.via is not None and login.via.known_hosts[:2] == (Path("/k"), tmp_path / ".ssh/known_hosts")
    assert login.via.keys[0] == Path("/key") and not login.via.chosen


def test_a_board_of_ours_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\nProxyJump gate\nPort 9\nUser u\nHostKeyAlias x\n")
    login = find_login(BoardConfig("l", "loopback", host="127.0.0.1", port=4, user="v", key="/k", known_hosts="/h"))
    assert (login.via, login.config.port, login.config.user, login.host_key_name) == (None, 4, "v", "[127.0.0.1]:4")


def test_how_a_jump_is_written() -> None:
    assert parse_jump("b", "none") == parse_jump("b", "") == ()
    assert parse_jump("b", "a, b@c:22,ssh://d:1/, e@[fe80::1%eth0]:2") == (
        Hop("a", "", 0), Hop("c", "b", 22), Hop("d", "", 1), Hop("fe80::1%eth0", "e", 2),
    )  # fmt: skip
    for wrong in (",", "a,", "a b", "a:99999", "a:", "@a", "a@", "[::1", "::1"):
        with pytest.raises(UsageError, match="fix `jump`"):
            parse_jump("b", wrong)
