"""Every command of the documentation: there is one of that name with those options, and it runs as it stands.

Each page's commands run in order, in a folder in which what they name exists: a small run called `demo`, models,
images, and in the place of the boards loopback ones of their names. What does not run is in `not_run.toml`, with the
reason.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.cli import main, parser
from reference.commands import subcommands
from tests.conftest import REPOSITORY
from tests.deploy.camvid_files import write_camvid
from tests.deploy.tiny_experiment import Finished, finished_run
from tests.reference.documented import PAGES, Block, blocks, commands, mentioned

NOT_RUN = {
    command: reason
    for reason, listed in tomllib.loads(Path(__file__).with_name("not_run.toml").read_text(encoding="utf8")).items()
    for command in listed
}
EXIT_CODES = {
    "hilnas lint runs/demo/bundle/model.tflite --target imx8mp-vx": 1,  # per-channel: off the NPU's fast cores
    "hilnas lint MODEL.tflite --target imx8mp-vx": 1,
    "hilnas lint int8/ch_ppocr_mobile_v2.0_cls_infer.int8.tflite --target imx8mp-vx": 1,
}
MEASURED = {
    "hilnas lint int8/network.int8.tflite --target imx8mp-vx",  # of the scheme that was faster here
}
BOARDS = """
[{}]
kind = "loopback"
fleet = "{}"
target = "cpu-xnnpack"
"""


def write_project(folder: Path, finished: Finished) -> None:
    """What the documentation's commands find: `make demo` has run there, and files of the names that it uses exist."""
    run = folder / "runs" / "demo"
    shutil.copytree(finished.folder, run)
    (folder / "configs").mkdir()
    shutil.copy(finished.config.parent / "space.toml", folder / "configs")
    settings = finished.config.read_text(encoding="utf8").replace('name = "tiny"', 'name = "demo"')
    (folder / "configs" / "demo-scenes.toml").write_text(settings, encoding="utf8")
    boards = {"loopback": "", "imx8mp": "", "imx8mp-1": "imx8mp", "imx8mp-2": "imx8mp"}
    (folder / "boards.toml").write_text("".join(BOARDS.format(*board) for board in boards.items()), encoding="utf8")
    (folder / "models").mkdir()
    for model, name in (("fast", "MODEL"), ("teacher", "OTHER")):
        for suffix in (".tflite", ".input.bin", ".expected.bin"):
            shutil.copy(run / "models" / f"{model}{suffix}", folder / f"{name}{suffix}")
            shutil.copy(run / "models" / f"{model}{suffix}", folder / "models")
    for device in ("npu", "cpu"):
        shutil.copy(run / "tables" / "latency-corrected.parquet", folder / f"{device}.parquet")
    write_camvid(folder / "FOLDER", (48, 64), train=2, val=2)
    if find_spec("onnx"):
        write_networks(folder)


def write_networks(folder: Path) -> None:
    """Float networks and images for them; one stands where a wheel would put its own."""
    from tests.deploy.onnx_files import DEEPER, OF_DEEPER, network, write_images

    models = folder / "ocr" / "rapidocr_onnxruntime" / "models"
    models.mkdir(parents=True)
    network(models / "ch_ppocr_mobile_v2.0_cls_infer.onnx", shape=("batch", 3, "height", "width"))
    network(folder / "network.onnx", DEEPER, shape=(1, 3, 32, 32), **OF_DEEPER)
    write_images(folder / "photos", count=3)
    for split in ("train", "val"):
        (folder / "pets" / split).mkdir(parents=True)
        for label in range(5):
            write_images(folder / "pets" / split / f"pet {label}", count=2)


def arguments(command: str, folder: Path) -> list[str]:
    """The words behind `hilnas`, with patterns as a shell expands them."""
    words = shlex.split(command)[1:]
    found = ([str(path.relative_to(folder)) for path in sorted(folder.glob(w))] if "*" in w else [w] for w in words)
    return [word for each in found for word in each]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


def exit_codes(command: str) -> tuple[int, ...]:
    """Those that it may end with: on a busy machine either where latencies decide, as of those against a baseline."""
    compares = command.startswith("hilnas regress") and "--update" not in command
    return (0, 1) if compares or command in MEASURED else (EXIT_CODES.get(command, 0),)


def runnable(page: Path) -> Iterator[Block]:
    """The blocks that are a file, or have a command that is run."""
    return (block for block in blocks(page) if block.file or set(block.commands) - set(NOT_RUN))


@pytest.mark.parametrize("page", [page for page in PAGES if list(runnable(page))], ids=lambda page: page.stem)
def test_the_commands_of_a_page(page, finished, tmp_path, monkeypatch, capfd):
    if any(".onnx" in command for block in runnable(page) for command in block.commands):
        pytest.importorskip("onnx", reason="needs the extra: pip install 'hilnas[onnx]'")
    write_project(tmp_path, finished)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("HILNAS_BOARD", raising=False)
    for block in runnable(page):
        if block.file:
            (tmp_path / block.file).parent.mkdir(exist_ok=True)
            (tmp_path / block.file).write_text(block.text, encoding="utf8")
        for command in block.commands:
            if command not in NOT_RUN:
                code = main(arguments(command, tmp_path))
                said = f"{page.name}: {command}: {capfd.readouterr().err}"
                assert code in exit_codes(command), said


def test_what_is_not_run_is_documented_and_has_a_reason():
    assert set(NOT_RUN) <= {command for _, command in commands()}
    assert all(len(reason) > 10 for reason in NOT_RUN.values())
    assert MEASURED | set(EXIT_CODES) <= {command for _, command in commands()} - set(NOT_RUN)


HILNAS_COMMANDS = sorted({command for _, command in commands() if command.startswith("hilnas ")})


@pytest.mark.parametrize("command", HILNAS_COMMANDS)
def test_a_command_can_be_read(command, tmp_path):
    """Those that are not run too."""
    parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", sorted({command for _, command in mentioned()}))
def test_what_a_sentence_mentions_is_there(command):
    """The command, its action and its options; what it needs besides may be left out in a sentence."""
    wrong = unknown(parser(), command.split()[1:])
    assert not wrong, f"{command}: no {wrong}"


def unknown(within: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The first words up to the command and its action, and the options, that are none."""
    for actions in subcommands(within):
        if words and not words[0].startswith("-"):
            return unknown(actions.choices[words[0]], words[1:]) if words[0] in actions.choices else [words[0]]
    options = {option for action in within._actions for option in action.option_strings}
    return [word for word in words if re.match(r"--?[a-z]", word) and word not in options]


def test_a_command_that_there_is_not_is_noticed():
    assert unknown(parser(), ["loop", "--explian"]) == ["--explian"]
    assert unknown(parser(), ["board", "trsut", "imx8mp"]) == ["trsut"]
    assert not unknown(parser(), ["board", "trust", "imx8mp"])
    lines = "hilnas board trust imx8mp      # why\n- run: hilnas doctor\nb1 | hilnas of course\n"
    assert list(Block(lines).commands) == ["hilnas board trust imx8mp", "hilnas doctor"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("command", sorted({c for _, c in commands() if re.match("make (?!-C)", c)}))
def test_a_make_target_calls_commands_that_can_be_read(command):
    """With what the documentation sets: make prints its recipe and runs nothing."""
    ended = subprocess.run(
        [*shlex.split(command), "--dry-run", "--assume-old=.venv/.installed", "--assume-old=.venv/.installed-dev"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    called = re.findall(r"^\S*bin/hilnas (.*)$", ended.stdout, re.M)
    assert called or "bin/python -m" in ended.stdout, ended.stdout
    for line in called:
        parser().parse_args(shlex.split(line))
