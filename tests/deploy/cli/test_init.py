"""`hilnas init`: a project that works as it stands; nothing is overwritten."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.cli.init import TEMPLATES, write_project
from deploy.run.config import Overrides, load_experiment
from hil.boards.config import load_boards
from hil.errors import UsageError
from tests.conftest import REPOSITORY
from tests.deploy.tiny_experiment import one_line, run

FILES = {".gitignore", "Makefile", "boards.toml", "experiment.toml"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_project_is_written_as_a_whole(tmp_path, capsys):
    folder = tmp_path / "parent" / "my net"
    assert main(["init", str(folder)]) == 0
    assert set(contents(folder)) == FILES
    assert all(name in capsys.readouterr().out for name in ("boards.toml",))
    assert {"loopback", "imx8mp"} <= set(load_boards(folder / "boards.toml"))
    experiment, space = load_experiment(folder / "experiment.toml", Overrides())
    assert (experiment.name, space.name) == ("my-net", "demo")
    assert "RUN    ?= runs/my-net\n" in (folder / "Makefile").read_text()


def test_another_configuration_to_start_from(tmp_path):
    assert main(["init", str(tmp_path / "a"), "--config", "demo-shapes"]) == 0
    assert load_experiment(tmp_path / "a" / "experiment.toml", Overrides())[1].name == "demo-classifier"
    with pytest.raises(UsageError, match="did you mean 'demo-shapes'"):
        write_project(tmp_path / "b", "demo-shape")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine\n")
    ended = run("init", str(tmp_path))
    assert ended.returncode == 2
    one_line(ended.stderr, str(tmp_path / name), "exists already", "name another folder")
    assert contents(tmp_path) == {name: b"mine\n"}


def test_a_second_time_is_refused(tmp_path):
    write_project(tmp_path, "demo-scenes")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        write_project(tmp_path, "demo-scenes")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("place", [Path("file"), Path("file/below")])
def test_a_folder_that_cannot_be(tmp_path, place):
    (tmp_path / "file").write_text("")
    ended = run("init", str(tmp_path / place))
    assert ended.returncode == 2
    one_line(ended.stderr, str(tmp_path / "file"))


def test_what_a_kill_left_half_written_is_completed(tmp_path):
    write_project(tmp_path, "demo-scenes")
    whole = contents(tmp_path)
    for name in ("Makefile", "experiment.toml"):
        (tmp_path / name).unlink()
    assert set(write_project(tmp_path, "demo-scenes")) == {"Makefile", "experiment.toml"}
    assert contents(tmp_path) == whole


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_its_makefile_calls_commands_that_exist(tmp_path):
    """Each target's command line is understood, and the help lists each target."""
    write_project(tmp_path, "demo-scenes")

    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(*words: str) -> str:  # not as a part of the `make test` that runs this
        done = subprocess.run(["make", *words], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
        return done.stdout

    listed = make()
    for target in ("check", "profile", "loop", "agree", "regress", "bundle"):
        assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE)
        program, *words = make("--dry-run", target, "BOARD=imx8mp").split()
        assert program == "hilnas" and "imx8mp" in words
        from deploy.cli import parser

        parser().parse_args(words)


def test_the_checkouts_boards_are_the_templates():
    assert (REPOSITORY / "boards.toml").read_bytes() == (TEMPLATES / "boards.toml").read_bytes()
