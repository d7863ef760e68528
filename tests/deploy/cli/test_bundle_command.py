"""`hilnas bundle`: what verifies, and what is refused; a finished run against its own baseline."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.cli.failing import BOARD, BOARDS, MODEL, USAGE, changed, truncate


@pytest.fixture
def bundle(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished.folder / "bundle", tmp_path / "bundle"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def leave(manifest: Path, name: str) -> None:
    changed(manifest, lambda m: m["files"].update({name: m["files"]["labels.txt"]}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit of the model": (lambda b: flip(b / "model.tflite"), "model.tflite"),
    "one bit of the golden output": (lambda b: flip(b / "golden/0.output.bin"), "golden/0.output.bin"),
    "a path that leaves": (lambda b: leave(b / "manifest.json", "../x"), "../x"),
    "an absolute path": (lambda b: leave(b / "manifest.json", "/etc/passwd"), "/etc/passwd"),
    "a file too many": (lambda b: (b / "more.txt").write_text("more"), "more.txt"),
    "a file too few": (lambda b: (b / "labels.txt").unlink(), "labels.txt"),
    "a manifest that is cut": (lambda b: truncate(b / "manifest.json"), "manifest.json"),
    "a manifest of another format": (lambda b: changed(b / "manifest.json", lambda m: m.update(format="x")), "format"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bundle_that_was_changed(fails, bundle, damage):
    change, named = DAMAGES[damage]
    change(bundle)
    fails(MODEL, ["bundle", "verify", bundle, "--boards", BOARDS], str(bundle), named)


def test_a_bundle_without_a_manifest(fails, tmp_path, bundle):
    (bundle / "manifest.json").unlink()
    fails(USAGE, ["bundle", "verify", bundle, "--boards", BOARDS], str(bundle), "no manifest.json")
    fails(USAGE, ["bundle", "verify", tmp_path / "none", "--boards", BOARDS], "none", "no manifest.json")


def test_a_board_whose_python_cannot_verify_is_named(fails, tmp_path, bundle):
    old, boards = tmp_path / "python3", tmp_path / "boards.toml"
    old.write_text("#!/bin/sh\nprintf 'Python 3.8.10' >&2\nexit 79\n")  # what such a Python answers
    old.chmod(0o755)
    boards.write_text(f'[old]\nkind = "loopback"\npython = "{old}"\n[none]\nkind = "loopback"\npython = "/no/python"\n')
    for board, words in (("old", "is Python 3.8.10: set `python`"), ("none", "cannot run /no/python")):
        fails(BOARD, ["bundle", "verify", bundle, "--boards", boards, "--board", board], f"board {board}", words)


def test_an_exported_bundle_verifies(tmp_path, finished, capfd):
    for name in ("teacher", "fast"):
        out = tmp_path / name
        assert main(["bundle", "export", "--run", str(finished.folder), "--model", name, "--out", str(out)]) == 0
        assert main(["bundle", "verify", str(out), "--boards", BOARDS]) == 0
    assert capfd.readouterr().err == ""


def test_killed_while_an_older_bundle_is_replaced(tmp_path, finished, monkeypatch):
    command = ["bundle", "export", "--run", str(finished.folder), "--out", str(tmp_path / "out")]
    assert main(command) == 0

    removed = shutil.rmtree

    def killed(path: Path, *arguments: object, **options: object) -> None:
        if (Path(path) / "manifest.json").exists():
            (Path(path) / "manifest.json").unlink()
            raise KeyboardInterrupt
        removed(path, *arguments, **options)  # folders of others

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        assert main(command) == 130
    assert main(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert main(["bundle", "verify", str(tmp_path / "out"), "--boards", BOARDS]) == 0


def test_a_bundle_goes_to_the_workdir_also_where_none_is_set(tmp_path, bundle, server, capfd, monkeypatch):
    monkeypatch.setattr("deploy.ship.verification.DEFAULT_WORKDIR", str(tmp_path / "default"))  # /tmp is others' too
    c = server.config
    (tmp_path / "boards.toml").write_text(
        f'[bench]\nkind = "ssh"\nhost = "127.0.0.1"\nport = {c.port}\nuser = "{c.user}"\n'
        f'key = "{c.key}"\nknown_hosts = "{c.known_hosts}"\npython = "{c.python}"\n'
    )
    command = ["bundle", "verify", str(bundle), "--boards", str(tmp_path / "boards.toml"), "--board", "bench"]
    assert main(command) == 0, capfd.readouterr().err
    assert (tmp_path / "default" / "bundles").is_dir() and not Path("/bundles").exists()


def test_a_finished_run_against_its_own_baseline(tmp_path, finished, capfd):
    run = finished.copy(tmp_path)
    runs = ("--runs", "5", "--rounds", "4", "--threshold", "5.0", "--boards", BOARDS)
    regress = ["regress", "--run", str(run), "--baselines", str(tmp_path / "baselines"), *runs]
    assert main([*regress, "--update"]) == 0
    names = {path.name.partition(".")[0] for path in (tmp_path / "baselines" / "loopback").iterdir()}
    assert names == {"teacher", "fast"}
    capfd.readouterr()
    assert main(regress) == 0
    assert [line.split()[:2] for line in capfd.readouterr().out.splitlines()] == [["ok", "fast"], ["ok", "teacher"]]
