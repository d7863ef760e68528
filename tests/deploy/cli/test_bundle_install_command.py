"""`hilnas bundle install` over a fleet of loopback boards, of which one cannot run the model; `list`, `--rollback`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.ship.small_bundles import small_bundle
from tests.deploy.tiny_experiment import one_line

BOARDS = """
[a]
kind = "loopback"
workdir = "{folder}/work-a"
[b]                                # whose driver is not there
kind = "loopback"
workdir = "{folder}/work-b"
delegate = "{folder}/libvx_delegate.so"
[c]
kind = "loopback"
workdir = "{folder}/work-c"
"""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs an action of `hilnas bundle` on these boards, which share their disk and so the folder to install in."""
    monkeypatch.delenv("HILNAS_BOARD", raising=False)
    (tmp_path / "boards.toml").write_text(BOARDS.format(folder=tmp_path))

    def run(action: str, *words: object) -> int:
        options = ("--to", str(tmp_path / "to"), "--boards", str(tmp_path / "boards.toml"))
        return main(["bundle", action, *map(str, words), *options])

    return run


def test_a_fleet_stops_where_one_fails_and_goes_on_later(
    bundle: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = small_bundle(tmp_path / "old", 3), small_bundle(tmp_path / "new", 4)
    assert bundle("install", old, "--board", "a") == 0
    capsys.readouterr()

    assert bundle("install", new, "--board", "b", "--board", "a") == 3
    one_line(capsys.readouterr().err, "libvx_delegate.so", "not tried on a")
    assert bundle("list", "--board", "a") == 0
    assert "add-4" not in capsys.readouterr().out  # what was current is current

    assert bundle("install", new, "--board", "a", "--board", "b", "--board", "c") == 3
    ended = capsys.readouterr()
    one_line(ended.err, "libvx_delegate.so", "done on a", "not tried on c")
    assert "a: add-4 (0002-" in ended.out and "is current, before: add-3" in ended.out and "c: " not in ended.out
    assert (tmp_path / "work-a").exists() and not (tmp_path / "work-c").exists()

    (tmp_path / "boards.toml").write_text(BOARDS.format(folder=tmp_path).replace("delegate =", "# delegate ="))
    assert bundle("install", new, "--board", "a", "--board", "b", "--board", "c") == 0
    out = capsys.readouterr().out
    assert all(f"{name}: add-4" in out and "as it was" in out for name in "abc")


def test_back_to_the_release_before(
    bundle: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for constant in (3, 4):
        assert bundle("install", small_bundle(tmp_path / f"add{constant}", constant), "--board", "a") == 0
    assert bundle("install", "--rollback", "--board", "a") == 0
    assert "add-3 (0001-" in capsys.readouterr().out.splitlines()[-1]
    assert bundle("list", "--board", "a", "--json") == 0
    assert '"current": true' in capsys.readouterr().out.split("add-4")[0]
    assert bundle("install", "--rollback", "--board", "a") == 2
    one_line(capsys.readouterr().err, "no release before the current one")


@pytest.mark.parametrize("words", [(), ("--rollback", "FILE")])
def test_a_bundle_or_rollback(bundle: Callable[..., int], words: tuple[str, ...]) -> None:
    assert bundle("install", *words, "--board", "a") == 2
