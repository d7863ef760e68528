"""The board's installer: whole releases, one link, and at every step at which the power may go."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from board_scripts import install_bundle
from hil.scripts import script

A, B, C = (letter * 16 for letter in "abc")
SYSTEM_CALLS = ("fsync", "rename", "replace", "symlink", "unlink", "rmdir", "open")


def upload(root: Path, identity: str) -> None:
    folder = root / "incoming" / identity
    (folder / "golden").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"name": f"model-{identity[0]}"}))
    (folder / "golden" / "input.bin").write_bytes(b"x" * 100)


def call(*arguments: object) -> tuple[int, dict[str, Any]]:
    """As a board runs it."""
    argv = [sys.executable, "-I", "-", *map(str, arguments)]
    done = subprocess.run(argv, input=script("install_bundle.py"), capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def place(root: Path, *identities: str) -> None:
    for identity in identities:
        upload(root, identity)
        (root / "incoming" / f"{identity}.signers").write_text("")
        assert install_bundle.main(["place", str(root), identity]) == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert install_bundle.main(["sweep", str(tmp_path / "to")]) == 0
    return tmp_path / "to"


def names(root: Path) -> list[str]:
    return sorted(path.name[:6] for path in (root / "releases").iterdir())


def test_installed_switched_and_back(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "to"
    assert call("list", root) == (0, {"releases": [], "signed": None, "reason": None}) and not root.parent.exists()
    assert call("sweep", root)[0] == 0
    for identity in (A, B):
        upload(root, identity)
        assert call("place", root, identity)[0] == 0
    first, second = call("list", root)[1]["releases"]
    assert first == {"folder": f"0001-{A}", "bundle": "model-a", "current": False}
    assert second == {"folder": f"0002-{B}", "bundle": "model-b", "current": True}
    assert (root / "current").readlink() == Path("releases") / f"0002-{B}"
    assert call("switch", root, f"0001-{A}")[0] == 0
    assert (root / "current" / "manifest.json").read_text() == '{"name": "model-a"}'


def test_the_one_before_is_kept_and_what_was_rolled_back_from_is_not(root: Path) -> None:
    place(root, A, B, C)
    assert names(root) == ["0002-b", "0003-c"]
    assert install_bundle.main(["switch", str(root), f"0002-{B}"]) == 0
    place(root, A)
    assert names(root) == ["0002-b", "0003-a"] and install_bundle.current_in(str(root)) == 3
    assert not list((root / "incoming").iterdir())


def test_what_is_refused(root: Path) -> None:
    for words in (["place", root, A], ["switch", root, f"0001-{A}"]):
        code, answer = call(*words)
        assert code == 1 and answer["reason"].startswith("no ")
    for words in (["place", root, "../x"], ["switch", root, "../0001"], ["list", root, "more"], ["place", root], ["x"]):
        assert call(*words)[0] == 2
    (root / "current").mkdir()
    upload(root, A)
    code, answer = call("place", root, A)
    assert code == 1 and "current" in answer["reason"]


def test_leftovers_go(root: Path) -> None:
    upload(root, A)
    upload(root, B)
    (root / "incoming" / f"{A}.signers").write_text("")
    (root / "incoming" / "gone-0001").mkdir()
    for path in (root / "incoming" / A, root / "incoming" / f"{A}.signers"):
        os.utime(path, (0, 0))
    assert install_bundle.main(["sweep", str(root)]) == 0
    assert [path.name for path in (root / "incoming").iterdir()] == [B]  # somebody else may be at it


class PowerLost(BaseException):
    pass


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, work: Callable[[], object]) -> list[str]:
    """The calls made up to the one numbered `at`, which and all later ones do nothing."""
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            if len(made) >= at:
                raise PowerLost
            made.append(f"{name} {given[0] if name != 'fsync' else Path(f'/proc/self/fd/{given[0]}').readlink()}")
            return real(*given, **named)

        return call

    with monkeypatch.context() as patched:
        for name in SYSTEM_CALLS:
            patched.setattr(os, name, counted(name))
        with contextlib.suppress(PowerLost):
            work()
    return made


def whole(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "golden" / "input.bin").stat().st_size == 100


@pytest.mark.parametrize("rolled_back", [False, True])
def test_stopped_before_each_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rolled_back: bool
) -> None:
    at, ended = 0, False
    while not ended:
        root = tmp_path / str(at)
        install_bundle.main(["sweep", str(root)])
        place(root, A, B)
        if rolled_back:
            install_bundle.main(["switch", str(root), f"0001-{A}"])
        upload(root, C)
        capsys.readouterr()
        interrupted(monkeypatch, at, lambda root=root: install_bundle.main(["place", str(root), C]))
        ended = bool(capsys.readouterr().out)
        target = (root / "current").resolve()
        assert target.name[5:] in ((C,) if ended else (A if rolled_back else B, C)), at
        assert all(whole(path) for path in (root / "releases").iterdir()), at
        install_bundle.main(["sweep", str(root)])
        if not (root / "incoming" / C).exists():
            upload(root, C)
        assert install_bundle.main(["place", str(root), C]) == 0 and (root / "current").resolve().name[5:] == C
        at += 1
    assert at > 20


def test_all_is_on_the_disk_before_the_link_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(root, A)
    upload(root, B)
    made = interrupted(monkeypatch, 10**6, lambda: install_bundle.main(["place", str(root), B]))
    source, link = f"{root}/incoming/{B}", f"replace {root}/.current.part"
    wanted = [f"{source}/golden/input.bin", f"{source}/golden", f"{source}/manifest.json", source, f"{root}/releases"]
    places = [made.index(f"fsync {path}") for path in wanted]
    assert max(places[:-1]) < made.index(f"rename {source}") < places[-1] < made.index(link)
    assert f"fsync {root}" in made[made.index(link) :]


def test_a_board_without_an_ssh_keygen_that_verifies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(root, A)
    monkeypatch.setenv("PATH", str(root))
    assert install_bundle.signed(str(root), A, "anna") is None
    old = root / "ssh-keygen"
    old.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\nexit 1\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    assert install_bundle.signed(str(root), A, "anna") is None
    old.write_text("#!/bin/sh\necho 'Could not verify signature.' >&2\nexit 255\n")
    assert install_bundle.signed(str(root), A, "anna") is False
