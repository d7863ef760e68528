"""A user id that no passwd entry knows, as containers have them: everything works, under a made-up name."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.boards.catalog import configuration_folder
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.boards.loopback import choose_server
from hil.boards.qemu_image import default_folder
from hil.boards.ssh_config import host_settings
from hil.errors import UsageError
from hil.session import owner
from hil.user import account, expanded, home, user_name
from tests.hil import tiny_model

BARE_UID = 47110
ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process without a name and a home, as far as Python knows."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_environment_names_us_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "some body")
    assert user_name() == "some body" and owner().startswith("some_body@")
    assert account() == pwd.getpwuid(os.getuid()).pw_name


def test_a_bare_user_id_has_a_name_and_a_home(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_name() == f"uid{os.getuid()}" and owner().startswith(f"uid{os.getuid()}@")
    assert account() == "" and home() == Path("/")
    assert expanded("~/.ssh/config") == Path("/.ssh/config") and expanded("/a/~b") == Path("/a/~b")
    with pytest.raises(UsageError, match="there is no user nobody-of-this-name here"):
        expanded("~nobody-of-this-name/key")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert configuration_folder() == Path("/.config/hilnas") and default_folder() == Path("/.cache/hilnas/qemu")


def test_ssh_config_is_read_for_a_bare_user_id(nobody: None, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host evk\nHostName %h.lab\nIdentityFile /keys/%u\nMatch localuser x\nPort 1\n")
    found = host_settings("evk", str(tmp_path / "config"))
    assert (found.host, found.identity_files, found.port) == ("evk.lab", (Path(f"/keys/uid{os.getuid()}"),), 0)
    assert "LOGNAME" not in os.environ


def test_a_loopback_of_a_bare_user_id(nobody: None) -> None:
    assert choose_server(BoardConfig("l", "loopback")) == "asyncssh"
    with pytest.raises(UsageError, match=r'no user id without a passwd entry: set server = "asyncssh"'):
        choose_server(BoardConfig("l", "loopback", server="sshd"))
    with open_board(BoardConfig("l", "loopback")) as board:
        assert board.run(["echo", "in"], 10).stdout == "in\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the bare user id owns."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user id")
    path = Path(tempfile.mkdtemp(prefix="hilnas-bare-"))
    os.chown(path, BARE_UID, BARE_UID)
    if bare(path, sys.executable, "-c", "import hil.errors, numpy").returncode:
        pytest.skip(f"{ROOT} is not readable for other users")
    yield path
    shutil.rmtree(path)


def bare(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        argv, cwd=folder, env=environment, user=BARE_UID, group=BARE_UID, extra_groups=[],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def hilnas(folder: Path, *words: str) -> str:
    done = bare(folder, sys.executable, "-m", "deploy.cli", *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout


def test_loopback_reservation_and_store_of_a_real_one(folder: Path) -> None:
    (folder / "boards.toml").write_text(f'[lo]\nkind = "loopback"\nworkdir = "{folder}/work"\n')
    model = tiny_model.int8_add(folder / "add.tflite", constant=1)
    os.chown(model, BARE_UID, BARE_UID)
    assert "model      ran" in hilnas(folder, "board", "check", "loopback")
    assert f"reserved by uid{BARE_UID}@" in hilnas(folder, "board", "reserve", "lo", "--for", "1h")
    assert f"reserved by uid{BARE_UID}@" in hilnas(folder, "board", "list", "--probe")
    assert "add" in hilnas(folder, "profile", "add.tflite", "--board", "lo", "--store", "store.sqlite")
    assert "add" in hilnas(folder, "results", "query", "--store", "store.sqlite")
    assert hilnas(folder, "board", "release", "lo") == "lo: released\n"
