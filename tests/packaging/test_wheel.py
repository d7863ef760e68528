"""The wheel, in an environment of its own and an empty folder: everything that the commands read is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.deploy.tiny_experiment import record, write_experiment

pytestmark = pytest.mark.wheel
PACKAGES = ("board_scripts", "deploy", "hil", "nas")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
SUFFIXES = (".py", ".toml", ".typed")


@dataclass(frozen=True)
class Installed:
    """The environment's programs, and the folder that they run in."""

    programs: Path
    folder: Path

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        kept = {name: v for name, v in os.environ.items() if not name.startswith(("HILNAS_", "PYTHON", "VIRTUAL_ENV"))}
        environment = {
            **kept,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self.programs}{os.pathsep}{kept['PATH']}",
            "XDG_CONFIG_HOME": str(self.folder / "none"),
        }
        ended = subprocess.run(
            [shutil.which(program, path=environment["PATH"]) or program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or ended.returncode == 0, ended.stderr
        return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, folder)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder / "wheels"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder)], check=True, timeout=300)
    (built,) = (folder / "wheels").glob("hilnas-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The folder of its programs. The packages that the wheel needs are this environment's, seen through a .pth file.

    That file comes after the installation, or pip would find hilnas there. A checkout that is installed as editable is
    not seen through it: Python reads no .pth files of a folder that a .pth file names.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    programs = folder / "bin"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    subprocess.run([*pip, wheel], check=True, timeout=120, env={**os.environ, "PYTHONPATH": ""})
    (site,) = folder.glob("lib/python*/site-packages")
    ours = dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in ours))
    return programs


@pytest.fixture(scope="module")
def project(environment, tmp_path_factory) -> Iterator[Installed]:
    """A project that `hilnas init` wrote into an empty folder."""
    installed = Installed(environment, tmp_path_factory.mktemp("empty"))
    assert "experiment.toml" in installed.run("hilnas", "init").stdout
    return installed


def test_it_holds_every_module_and_every_data_file(wheel):
    def holds(path: Path) -> bool:
        return path.suffix in SUFFIXES or path.parent.name in ("templates", "c")

    files = {path for package in PACKAGES for path in (REPOSITORY / package).rglob("*") if path.is_file()}
    names = {str(path.relative_to(REPOSITORY)) for path in files if holds(path) and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == names
    assert {f"{package}/py.typed" for package in PACKAGES} < names


def test_it_is_the_wheel_that_is_imported(project):
    names = ", ".join(PACKAGES)
    found = project.run("python", "-c", f"import {names}\nfor m in ({names}): print(m.__file__)").stdout.split()
    assert len(found) == len(PACKAGES)
    assert all(Path(path).is_relative_to(project.programs.parent) for path in found), found


def test_its_version(project):
    declared = next(line for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if line[:7] == "version")
    assert project.run("hilnas", "--version").stdout.split() == ["hilnas", declared.split('"')[1]]


def test_this_machine_and_the_board_are_ready(project):
    assert "torch" in project.run("hilnas", "doctor").stdout
    assert "imx8mp" in project.run("hilnas", "board", "list").stdout
    assert "b1_k3e3-k3e3_w8" in project.run("hilnas", "board", "check", "loopback").stdout


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_projects_makefile(project):
    assert "b1_k3e3-k3e3_w8" in project.run("make", "check").stdout


def test_without_a_project_too(environment, tmp_path):
    bare = Installed(environment, tmp_path)
    assert {"loopback", "qemu"} <= set(bare.run("hilnas", "board", "list").stdout.split())
    refused = bare.run("hilnas", "board", "check", "imx8mp", check=False)
    assert refused.returncode == 2 and "no board 'imx8mp' and no boards.toml in" in refused.stderr


def test_a_model_is_linted(project):
    project.run("hilnas", "compile", "b1_k3e3-k3e3_w8", "--out", "models")
    ended = project.run("hilnas", "lint", "models/b1_k3e3-k3e3_w8.tflite", "--target", "imx8mp-vx", check=False)
    assert ended.returncode in (0, 1) and "imx8mp-vx" in ended.stdout + ended.stderr


def test_a_tiny_loop(project):
    config = write_experiment(project.folder / "tiny")
    project.run("hilnas", "loop", "--config", str(config))
    summary = record(project.folder / "runs" / "tiny" / "summary.json")
    assert summary["models"][0]["name"] == "fast"
    project.run("hilnas", "bundle", "verify", "runs/tiny/bundle")
