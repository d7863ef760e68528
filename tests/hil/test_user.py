"""A user id that no passwd entry knows, as containers have them: everything works, under a made-up name."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
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


class Container:
    """A folder that a bare user id owns, and commands that it runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = f"/usr/bin/python3.{sys.version_info.minor}"  # ours may lie in somebody's home
        self.python = next((path for path in (sys.executable, own) if self.runs(path, "-c", "import paramiko")), "")

    def done(self, *argv: str) -> subprocess.CompletedProcess[str]:
        paths = f"{ROOT}{os.pathsep}{sysconfig.get_path('purelib')}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            argv, cwd=self.folder, env=environment, user=BARE_UID, group=BARE_UID, extra_groups=[],
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def runs(self, *argv: str) -> bool:
        try:
            return self.done(*argv).returncode == 0
        except OSError:
            return False

    def hilnas(self, *words: str) -> str:
        done = self.done(self.python, "-m", "deploy.cli", *words)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
        return done.stdout


@pytest.fixture
def container() -> Iterator[Container]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user id")
    folder = Path(tempfile.mkdtemp(prefix="hilnas-bare-"))
    os.chown(folder, BARE_UID, BARE_UID)
    container = Container(folder)
    if not container.python:
        pytest.skip(f"other users cannot read {ROOT} and its packages")
    yield container
    shutil.rmtree(folder)


def test_loopback_reservation_and_store_of_a_real_one(container: Container) -> None:
    folder = container.folder
    (folder / "boards.toml").write_text(
        f'[lo]\nkind = "loopback"\nworkdir = "{folder}/work"\nenv.PYTHONPATH = "{sysconfig.get_path("purelib")}"\n'
    )
    tiny_model.int8_add(folder / "add.tflite", constant=1).chmod(0o644)
    assert "model      ran" in container.hilnas("board", "check", "lo")
    assert f"reserved by uid{BARE_UID}@" in container.hilnas("board", "reserve", "lo", "--for", "1h")
    assert "add" in container.hilnas("profile", "add.tflite", "--board", "lo", "--store", "store.sqlite")
    assert (folder / "store.sqlite").stat().st_uid == BARE_UID
    assert container.hilnas("board", "release", "lo") == "lo: released\n"
