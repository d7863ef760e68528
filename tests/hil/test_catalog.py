"""Where boards are looked for, and those that need no entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.boards.catalog import BUILT_IN, all_boards, boards_file, find_board
from hil.errors import UsageError

HERE = '[here]\nkind = "loopback"\n[loopback]\nkind = "loopback"\nthreads = 2\n'
USERS = '[users]\nkind = "loopback"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration folder; the working directory is another, empty one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "hilnas").mkdir(parents=True)
    return tmp_path / "home" / "hilnas"


def test_without_a_file_there_are_the_built_in_boards(home: Path) -> None:
    assert boards_file() is None
    assert all_boards() == BUILT_IN
    assert find_board(None, "loopback").kind == "loopback" and find_board(None, "qemu").kind == "qemu"


def test_the_working_directorys_file_comes_before_the_users(home: Path) -> None:
    (home / "boards.toml").write_text(USERS)
    assert boards_file() == home / "boards.toml"
    assert list(all_boards()) == ["users", "loopback", "qemu"]
    Path("boards.toml").write_text(HERE)
    assert boards_file() == Path("boards.toml").absolute()
    assert list(all_boards()) == ["here", "loopback", "qemu"]


def test_an_entry_comes_before_the_built_in_board_of_its_name(home: Path) -> None:
    Path("boards.toml").write_text(HERE)
    assert find_board(None, "loopback").threads == 2
    assert find_board(None, "qemu") == BUILT_IN["qemu"]


def test_a_file_that_is_named_has_to_exist(home: Path) -> None:
    with pytest.raises(UsageError, match=r"name a boards\.toml that exists"):
        find_board(Path("none.toml"), "loopback")


def test_an_unknown_board_lists_what_there_is_and_where_was_looked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        find_board(None, "imx8mp")
    said = str(caught.value)
    assert "no board 'imx8mp' and no boards.toml in" in said and "there are loopback, qemu" in said
    assert str(Path.cwd()) in said and str(home) in said
    Path("boards.toml").write_text(HERE)
    with pytest.raises(UsageError, match=r"in .*/work/boards\.toml; did you mean 'here'\? there are here, loopback"):
        find_board(None, "hree")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(home))
    Path("boards.toml").unlink()
    with pytest.raises(UsageError, match=str(home / ".config" / "hilnas")):
        find_board(None, "imx8mp")
