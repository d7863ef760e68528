"""Whatever is wrong with the call, the files, the board or the disk: one line, the right exit code, no traceback."""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.deploy.tiny_experiment import (
    HILNAS,
    REPOSITORY,
    Finished,
    arguments,
    environment,
    finished_run,
    one_line,
    record,
    run,
    write_experiment,
)

from deploy.cli import main, parser
from deploy.formats.tflite.read import read
from hil.boards.board import Board
from hil.boards.config import BoardConfig, open_board
from hil.boards.loopback import free_port, make_keys

BOARDS = str(REPOSITORY / "boards.toml")
SUBNET = "b1_k3e2_w8.tflite"
USAGE, BOARD, MODEL = 2, 3, 4

Fails = Callable[..., None]


@pytest.fixture(autouse=True)
def no_redirection(monkeypatch):
    for name in ("HILNAS_BOARD", "HILNAS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture
def fails(capfd) -> Fails:
    """Runs a command that must fail with an exit code and one line with all of `words`."""

    def check(code: int, command: list[Any], *words: str) -> None:
        assert main([str(word) for word in command]) == code, capfd.readouterr().err
        one_line(capfd.readouterr().err, *words)

    return check


@pytest.fixture
def model(finished) -> Path:
    return finished.folder / "subnets" / SUBNET


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Edit a JSON file."""
    content = record(path)
    change(content)
    path.write_text(json.dumps(content))


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


# The command line itself


def helps(of: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from helps(sub, (*words, name))


@pytest.mark.parametrize("words", list(helps(parser())), ids=lambda words: " ".join(words) or "hilnas")
def test_every_help_works(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: {' '.join(('hilnas', *words))} ") and said.err == ""


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_at_once():
    """In seconds of a core: a busy machine may let it wait."""
    seconds = []
    for _ in range(6):
        before = cpu_seconds_of_children()
        subprocess.run([HILNAS, "--help"], check=True, capture_output=True)
        seconds.append(cpu_seconds_of_children() - before)
    assert 0 < statistics.median(seconds[1:]) < 0.3, seconds


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom deploy.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pandas", "pyarrow", "scipy", "paramiko", "sqlalchemy", "pydantic", "rich", "plotly"}
    assert not heavy & set(ended.stderr.split())


@pytest.mark.parametrize("command", [[], ["lopo"], ["loop", "--no-such-option"], ["lut", "speed"]])
def test_a_command_that_there_is_not(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == USAGE
    assert "hilnas" in capsys.readouterr().err.splitlines()[-1]


# Settings


def test_a_missing_configuration(fails, tmp_path):
    fails(USAGE, ["loop", *arguments(tmp_path / "none.toml", tmp_path)], "none.toml", "no such file")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 0", "sede = 0", ("unknown key 'sede'", "did you mean 'seed'?")),
        ("val = 4", "vla = 4", ("unknown key 'data.vla'", "did you mean 'val'?")),
        ("batch_size = 4 }\n\n[distil]", "batchsize = 4 }\n\n[distil]", ("batchsize", "did you mean 'batch_size'?")),
        ("latency = 50.0", "latncy = 50.0", ("latncy", "did you mean 'latency'?")),
        ("size = [64, 96]", "size = [64]", ("data.size",)),
        ("size = [64, 96]", 'size = "large"', ("data.size",)),
        ("train = 16", 'train = "many"', ("data.train",)),
        ('name = "tiny"\n', "", ("name",)),
        (", latency = 50.0", "", ("budget 'fast'", "latency, size or both")),
        ("models = 4", "models = 2", ("agreement.models",)),
        ("[profile]", "[profile", ("TOML",)),
        ("learning_rates = [3e-3]", "learning_rates = [1e-3, 1e-3, 1e-3]", ("distil.learning_rates", "3", "2 blocks")),
        ("space.toml", "spaces.toml", ("spaces.toml", "no such file")),
    ],
)
def test_a_wrong_setting_is_named(fails, tmp_path, old, new, words):
    config = write_experiment(tmp_path, {old: new})
    fails(USAGE, ["loop", *arguments(config, tmp_path / "runs")], *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kernels", "kernel", ("unknown key 'kernel'", "did you mean 'kernels'?")),
        ("channels = 24", "chanels = 24", ("chanels", "did you mean 'channels'?")),
        ("bits = [4, 8]", "bits = [3]", ("bits",)),
        ("expansions = [2, 6]", "expansions = []", ("expansions",)),
    ],
)
def test_a_wrong_space_is_named(fails, tmp_path, old, new, words):
    config = write_experiment(tmp_path)
    space = tmp_path / "space.toml"
    assert old in space.read_text()
    space.write_text(space.read_text().replace(old, new, 1))
    fails(USAGE, ["loop", *arguments(config, tmp_path / "runs")], "space.toml" if "did" in words[-1] else "", *words)


def test_an_unknown_stage(fails, tmp_path):
    command = ["loop", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--until", "profil"]
    fails(USAGE, command, "--until profil", "profile")


@pytest.mark.parametrize("size", ["96", "0x128", "axb", "96x128x3", "-1x4", "1e3x4", "x", "99999x8"])
def test_an_impossible_size(fails, tmp_path, size):
    fails(USAGE, ["compile", "b1_k3e3_w8", f"--size={size}", "--out", tmp_path], f"--size {size}")


@pytest.mark.parametrize("name", ["nonsense", "b9_k3e3_w8", "b1_k3e3_w8", "b1_k3e3-k3e3_w3"])
def test_a_subnet_that_there_is_not(fails, tmp_path, name):
    fails(USAGE, ["compile", name, "--out", tmp_path / "out"], name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("name subnets", "--all")),
        (("b1_k3e3-k3e3_w8", "--all"), ("name subnets", "--all")),
        (("--all", "--jobs", "0"), ("--jobs 0", "at least 1")),
        (("--all", "--jobs", "-2"), ("--jobs -2",)),
        (("--all", "--bits", "3"), ("--bits 3", "4, 5, 6, 7 or 8")),
        (("--all", "--bits", "8,9"), ("--bits 8,9", "4, 5, 6, 7 or 8")),
        (("--all", "--bits", "eight"), ("--bits eight", "4,6,8")),
        (("--all", "--bits", ""), ("--bits ", "4,6,8")),
        (("b1_k3e3-k3e3_w4",), ("b1_k3e3-k3e3_w4", "at 8 bits", "--bits")),
        (("--all", "--activations", "uint8"), ("--granularity tensor",)),
        (("--all", "--activations", "uint8", "--granularity", "tensor", "--few-bits", "int4"), ("leave one out",)),
        (("--all", "--format", "onnx"), ("--format onnx", "single subnets")),
        (("b1_k3e3-k3e3_w8", "--format", "onnx", "--ends", "float"), ("--format onnx", "quantized ends only")),
        (("b1_k3e3-k3e3_w8", "--format", "converter", "--granularity", "tensor"), ("--format converter",)),
        (("b1_k3e3-k3e3_w4", "--bits", "4", "--format", "converter"), ("8 bits wide",)),
        (("--all", "--weights", "none.pt"), ("none.pt", "no such file", "supernets.pt")),
        (("--all", "--config", "demo-scenes"), ("--config", "--weights")),
        (("--all", "--data", "scenes"), ("--data", "--config")),
        (("--all", "--space", "none.toml"), ("none.toml", "no such file")),
    ],
    ids=" ".join,
)
def test_compile_options_that_do_not_go_together(fails, tmp_path, options, words):
    fails(USAGE, ["compile", *options, "--out", tmp_path / "out"], *words)
    assert not (tmp_path / "out").exists()


# Compiling a run's trained weights


def trained(finished: Finished, checkpoint: Path, out: Path, *more: str) -> list[str]:
    space = ("--space", str(finished.config.parent / "space.toml"), "--size", "64x96")
    return ["compile", "--all", "--jobs", "1", "--out", str(out), "--weights", str(checkpoint), *(more or space)]


def with_config(finished: Finished) -> tuple[str, ...]:
    return ("--config", str(finished.config), "--boards", BOARDS)


def test_with_its_configuration_the_files_are_the_runs_own(finished, tmp_path):
    checkpoint = finished.folder / "supernets.pt"
    assert main(trained(finished, checkpoint, tmp_path / "out", *with_config(finished))) == 0
    header, *lines = (tmp_path / "out" / "index.jsonl").read_text().splitlines()
    assert json.loads(header)["library"]["calibration"] == "scenes"
    rows = [row for line in lines for row in json.loads(line)["subnets"]]
    assert len(rows) == 12
    for row in rows:
        ours, theirs = (
            read(path) for path in (tmp_path / "out" / row["file"], finished.folder / f"subnets/{row['subnet']}.tflite")
        )
        assert repr(ours.operators) == repr(theirs.operators)
        for a, b in zip(ours.tensors, theirs.tensors, strict=True):
            assert (a.name, a.shape, bytes(a.data)) == (b.name, b.shape, bytes(b.data))
            np.testing.assert_array_equal(a.scale, b.scale)
            np.testing.assert_array_equal(a.zero_point, b.zero_point)


def test_one_subnet_of_a_run_is_compiled_with_the_runs_golden_pair(finished, tmp_path):
    command = ["compile", "b1_k3e2_w8", "--out", str(tmp_path), "--weights", str(finished.folder / "supernets.pt")]
    assert main([*command, *with_config(finished)]) == 0
    subnets = finished.folder / "subnets"
    assert (tmp_path / "b1_k3e2_w8.input.bin").read_bytes() == (subnets / "b1.input.bin").read_bytes()
    assert (tmp_path / "b1_k3e2_w8.expected.bin").read_bytes() == (subnets / "b1_k3e2_w8.expected.bin").read_bytes()


def test_without_its_configuration_they_are_calibrated_on_noise_and_say_so(finished, tmp_path):
    checkpoint = finished.folder / "supernets.pt"
    assert main(trained(finished, checkpoint, tmp_path / "out")) == 0
    header = json.loads((tmp_path / "out" / "index.jsonl").read_text().splitlines()[0])["library"]
    assert header["calibration"] == "noise"
    assert header["weights"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16]


def test_weights_that_are_no_checkpoint(fails, finished, tmp_path):
    checkpoint, out = tmp_path / "supernets.pt", tmp_path / "out"
    whole = (finished.folder / "supernets.pt").read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not a whole checkpoint")
    torch.save({"key": "", "model": 3}, checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not the supernets of this space")
    torch.save({"key": "", "model": {"call": subprocess.run}}, checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not a whole checkpoint")
    shutil.copyfile(finished.folder / "teacher.pt", checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not the supernets of this space")
    checkpoint.write_bytes(whole)
    demo = ("--space", "demo")
    fails(USAGE, trained(finished, checkpoint, out, *demo), "supernets.pt", "not the supernets of this space")
    assert not out.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(fails, finished, tmp_path, value):
    content = torch.load(finished.folder / "supernets.pt", weights_only=True)
    next(iter(content["model"].values())).view(-1)[3] = value
    torch.save(content, tmp_path / "supernets.pt")
    fails(MODEL, trained(finished, tmp_path / "supernets.pt", tmp_path / "out"), "supernets.pt", "NaN or infinity")


def test_a_run_of_another_configuration(fails, finished, tmp_path):
    checkpoint, out = finished.folder / "supernets.pt", tmp_path / "out"
    other = write_experiment(tmp_path, {"seed = 0": "seed = 1"})
    options = ("--config", str(other), "--boards", BOARDS)
    fails(USAGE, trained(finished, checkpoint, out, *options), "teacher.pt", "other settings")
    fails(USAGE, trained(finished, checkpoint, out, *with_config(finished), "--size", "64x96"), "--size", "leave")
    alone = Path(shutil.copyfile(checkpoint, tmp_path / "supernets.pt"))
    fails(USAGE, trained(finished, alone, out, *with_config(finished)), "teacher.pt", "no such file")


@pytest.mark.parametrize("option", [("--runs", "0"), ("--rounds", "0"), ("--warmup-runs", "-1")])
def test_an_impossible_protocol(fails, tmp_path, model, option):
    fails(USAGE, ["profile", model, "--boards", BOARDS, "--store", tmp_path / "s", *option], "runs and rounds")


# Data sets


def camvid(root: Path, label_size: tuple[int, int]) -> Path:
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (96, 64), (90, 90, 90)).save(root / split / f"{i}.png")
            Image.fromarray(np.full(label_size, 3, np.uint8)).save(root / f"{split}annot" / f"{i}.png")
    return root


def with_data(tmp_path: Path, spec: str) -> list[str]:
    return ["teacher", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--data", spec]


def test_a_missing_data_folder(fails, tmp_path):
    fails(USAGE, with_data(tmp_path, "camvid:/nowhere"), "/nowhere/train", "no such folder")


def test_a_kind_of_data_that_there_is_not(fails, tmp_path):
    fails(USAGE, with_data(tmp_path, "camvd:/nowhere"), "camvd", "camvid")
    fails(USAGE, ["demo", "--data", "camvd:/nowhere"], "camvd", "camvid")


def test_a_label_of_another_size(fails, tmp_path):
    root = camvid(tmp_path / "camvid", (64, 95))
    fails(USAGE, with_data(tmp_path, f"camvid:{root}"), "trainannot", "95x64", "96x64")


def test_an_image_that_is_cut_short(fails, tmp_path):
    root = camvid(tmp_path / "camvid", (64, 96))
    for image in (root / "train").iterdir():
        truncate(image)
    fails(USAGE, with_data(tmp_path, f"camvid:{root}"), "train", "cannot be read as an image")


# The encoder to start from


def with_encoder(tmp_path: Path, encoder: Path) -> list[str]:
    command = arguments(write_experiment(tmp_path), tmp_path / "runs")
    return ["teacher", *command, "--encoder-from", str(encoder)]


def test_a_missing_encoder(fails, tmp_path):
    fails(USAGE, with_encoder(tmp_path, tmp_path / "none.tflite"), "none.tflite", "--encoder-from")


def test_an_encoder_of_other_shapes(fails, tmp_path, finished):
    encoder = finished.folder / "models" / "fast.tflite"
    fails(USAGE, with_encoder(tmp_path, encoder), "convolution", "file's is")


def test_an_encoder_with_too_few_convolutions(fails, tmp_path, model):
    fails(USAGE, with_encoder(tmp_path, model), "convolutions", "the file only")


def test_an_encoder_that_is_no_model(fails, tmp_path, model):
    text = tmp_path / "encoder.tflite"
    text.write_text("not a model at all")
    fails(MODEL, with_encoder(tmp_path, text), "encoder.tflite", "not a TFLite file")
    text.write_bytes(model.read_bytes()[:600])
    fails(MODEL, with_encoder(tmp_path, text), "encoder.tflite", "cut short or corrupt")


# Models to profile


def profile(tmp_path: Path, model: Path, boards: str = BOARDS, board: str = "loopback") -> list[Any]:
    store = tmp_path / "store.sqlite"
    return ["profile", model, "--boards", boards, "--board", board, "--store", store, "--runs", 2, "--rounds", 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a text file\n", "not a TFLite file"), (b"", "not a TFLite file"), (b"\0\0\0\0TFL3", "cut short or corrupt")],
)
def test_a_file_that_is_no_model(fails, tmp_path, content, words):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    fails(MODEL, profile(tmp_path, path), "model.tflite", words)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
def test_a_model_that_is_cut_short(fails, tmp_path, model, share):
    path = Path(shutil.copyfile(model, tmp_path / "model.tflite"))
    truncate(path, share)
    fails(MODEL, profile(tmp_path, path), "model.tflite")


def test_a_model_that_is_missing_or_a_folder(fails, tmp_path):
    fails(USAGE, profile(tmp_path, tmp_path / "none.tflite"), "none.tflite", "No such file")
    fails(USAGE, profile(tmp_path, tmp_path), str(tmp_path), "directory")


def test_a_store_that_is_none(fails, tmp_path, model):
    (tmp_path / "store.sqlite").write_text("not a database, but long enough to look like one" * 40)
    fails(USAGE, profile(tmp_path, model), "store.sqlite", "not a usable store")


def test_a_model_is_named_in_full_where_no_terminal_is(tmp_path, finished, capfd):
    model = finished.folder / "subnets" / "b2_k3e2-k3e6_w8.tflite"
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    assert model.name in capfd.readouterr().out


def test_one_model_under_two_names(tmp_path, model, capfd):
    """Measured once, shown under both."""
    same = Path(shutil.copyfile(model, tmp_path / "same.tflite"))
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    capfd.readouterr()
    first, *others = [str(word) for word in profile(tmp_path, model)]
    assert main([first, str(same), *others, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert sorted(m["model"] for m in shown) == sorted([SUBNET, "same.tflite"])
    assert shown[0]["latencies_us"] == shown[1]["latencies_us"]


# Boards


@pytest.fixture(scope="module")
def server() -> Iterator[Board]:
    with open_board(BoardConfig(name="bench", kind="loopback")) as board:
        yield board


@pytest.fixture
def bench(tmp_path) -> Callable[..., str]:
    """A boards.toml with the SSH board `bench` at a port, whose host key is pinned as one made here."""

    def write(port: int, connect_timeout_s: float = 10.0) -> str:
        keys = tmp_path / "keys"
        keys.mkdir()
        make_keys(keys)
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {(keys / 'host_key.pub').read_text()}")
        path = tmp_path / "boards.toml"
        path.write_text(
            f'[bench]\nkind = "ssh"\nhost = "127.0.0.1"\nport = {port}\nuser = "nobody"\n'
            f"connect_timeout_s = {connect_timeout_s}\n"
            f'key = "{keys / "client_key"}"\nknown_hosts = "{keys / "known_hosts"}"\n'
        )
        return str(path)

    return write


def test_an_unknown_board(fails, tmp_path, model):
    fails(USAGE, profile(tmp_path, model, board="lopback"), "no board 'lopback'", "did you mean 'loopback'?")
    fails(USAGE, ["board", "check", "imx8m", "--boards", BOARDS], "imx8m", "did you mean 'imx8mp'?")
    loop = ["loop", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--board", "lopback"]
    fails(USAGE, loop, "did you mean 'loopback'?")


def test_an_unknown_key_of_a_board(fails, tmp_path):
    (tmp_path / "boards.toml").write_text('[bench]\nkind = "loopback"\nthread = 1\n')
    fails(USAGE, ["board", "list", "--boards", tmp_path / "boards.toml"], "'thread'", "did you mean 'threads'?")
    fails(USAGE, ["board", "list", "--boards", tmp_path / "none.toml"], "none.toml")


def test_nothing_to_trust_about_a_loopback(fails):
    fails(USAGE, ["board", "trust", "loopback", "--boards", BOARDS], "nothing to trust")


def test_a_board_that_refuses(fails, tmp_path, model, bench):
    boards = bench(free_port())
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "board bench", "refused")
    fails(BOARD, ["board", "check", "bench", "--boards", boards], "board bench", "refused")
    fails(BOARD, ["board", "trust", "bench", "--boards", boards], "board bench", "refused")


def test_a_board_that_never_answers(fails, tmp_path, model, bench):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        boards = bench(silent.getsockname()[1], connect_timeout_s=0.5)
        started = time.monotonic()
        fails(BOARD, profile(tmp_path, model, boards, "bench"), "board bench", "accepts connections")
        fails(BOARD, ["board", "trust", "bench", "--boards", boards], "board bench", "accepts connections")
        assert time.monotonic() - started < 20


def test_a_changed_host_key(fails, tmp_path, model, bench, server):
    boards = bench(server.config.port)
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "host key", "SHA256:", "hilnas board trust bench")
    fails(BOARD, ["board", "trust", "bench", "--boards", boards], "host key", "SHA256:")


def test_a_host_key_that_nobody_pinned(fails, tmp_path, model, bench, server):
    boards = bench(server.config.port)
    (tmp_path / "keys" / "known_hosts").unlink()
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "no host key", "hilnas board trust bench")


def test_a_loop_whose_board_is_gone(fails, tmp_path, finished, bench):
    """The trained stages stay done; what is left waits for the board."""
    folder = finished.copy(tmp_path / "runs")
    command = ["loop", *arguments(finished.config, tmp_path / "runs"), "--boards", bench(free_port())]
    fails(BOARD, [*command, "--board", "bench"], "board bench", "refused")
    state = record(folder / "state.json")["stages"]
    assert state["tables"]["done"] and not state["profile"]["done"]


# Files of a run that were damaged


def test_a_run_that_is_not_there(fails, tmp_path):
    for command in (
        ["bundle", "export", "--run", tmp_path, "--out", tmp_path / "out"],
        ["regress", "--run", tmp_path, "--update", "--baselines", tmp_path, "--boards", BOARDS],
    ):
        fails(USAGE, command, "summary.json", "no such file")
    fails(USAGE, ["report", *arguments(write_experiment(tmp_path), tmp_path / "runs")], "no finished run")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]", b"{}", b"null", b'{"teacher": 1, "models": 2}'])
def test_a_summary_that_cannot_be_read(fails, tmp_path, finished, content):
    folder = finished.copy(tmp_path)
    (folder / "summary.json").write_bytes(content)
    fails(USAGE, ["bundle", "export", "--run", folder, "--out", tmp_path / "out"], "summary.json")
    regress = ["regress", "--run", folder, "--baselines", tmp_path, "--boards", BOARDS, "--update"]
    fails(USAGE, regress, "summary.json")


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_state_that_cannot_be_read(fails, tmp_path, finished, content):
    folder = finished.copy(tmp_path)
    (folder / "state.json").write_bytes(content)
    fails(USAGE, ["loop", *arguments(finished.config, tmp_path)], "state.json")


@pytest.mark.parametrize("damage", ["cut", "foreign", "of another network"])
def test_a_checkpoint_that_is_damaged(fails, tmp_path, finished, damage):
    """Distillation, redone for a changed setting, needs the teacher's; the advice in the message must work."""
    folder = finished.copy(tmp_path / "runs")
    checkpoint = folder / "teacher.pt"
    if damage == "cut":
        truncate(checkpoint)
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, checkpoint)
    else:
        shutil.copyfile(folder / "supernets.pt", checkpoint)
    config = write_experiment(tmp_path, {"learning_rates = [3e-3]": "learning_rates = [2e-3]"})
    command = ["distil", *arguments(config, tmp_path / "runs")]
    fails(USAGE, command, "teacher.pt", "delete it to train again")
    checkpoint.unlink()
    again = run(*command)
    assert again.returncode == 0, again.stderr


def test_a_table_that_is_damaged(fails, tmp_path, finished):
    folder = finished.copy(tmp_path)
    table = folder / "tables" / "nsr.parquet"
    truncate(table)
    command = ["lut", "nsr", *arguments(finished.config, tmp_path)]
    fails(USAGE, command, "nsr.parquet", "not a table")
    table.unlink()
    assert main(command) == 0, "deleted, it is to be made again"


def test_a_journal_with_a_damaged_line(tmp_path, finished):
    """As a power cut may leave it; the subnets of the other lines are kept."""
    folder = finished.copy(tmp_path)
    changed(folder / "state.json", lambda state: state["stages"]["tables"].update(done=False))
    journal = folder / "subnets" / "nsr.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\0" * 40 + b"\n", *lines[4:]]))
    assert main(["lut", "nsr", *arguments(finished.config, tmp_path)]) == 0


@pytest.mark.parametrize("name", ["models/fast.tflite", "models/teacher.expected.bin", "bundle/model.tflite"])
def test_a_file_that_is_missing_is_made_again(tmp_path, finished, name):
    """What `regress` and `bundle export` say about a missing model: the loop makes it."""
    folder = finished.copy(tmp_path)
    (folder / name).unlink()
    assert main(["loop", *arguments(finished.config, tmp_path)]) == 0
    assert (folder / name).exists()


def test_an_export_of_a_model_that_is_missing(fails, tmp_path, finished):
    folder = finished.copy(tmp_path)
    (folder / "models" / "fast.tflite").unlink()
    export = ["bundle", "export", "--run", folder, "--out", tmp_path / "out"]
    fails(USAGE, export, "fast.tflite", "missing")
    fails(USAGE, [*export, "--model", "fats"], "no model 'fats'", "fast")
    fails(USAGE, ["regress", "--run", folder, "--update", "--baselines", tmp_path, "--boards", BOARDS], "fast.tflite")


# Folders that cannot be written, a full disk


def test_an_output_folder_that_cannot_be_written(fails, tmp_path, finished):
    file = tmp_path / "file"
    file.write_text("in the way")
    fails(USAGE, ["compile", "b1_k3e3-k3e3_w8", "--out", file], str(file))
    fails(USAGE, ["compile", "b1_k3e3-k3e3_w8", "--out", file / "below"], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", file / "below"], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", file], str(file))
    fails(USAGE, ["bundle", "export", "--run", finished.folder, "--out", finished.folder], "is no bundle")
    fails(USAGE, ["loop", *arguments(finished.config, file)], str(file))
    fails(
        USAGE, ["profile", finished.folder / "subnets" / SUBNET, "--store", file / "s", "--boards", BOARDS], str(file)
    )
    assert file.read_text() == "in the way" and (finished.folder / "summary.json").exists()


@pytest.mark.parametrize("limit_bytes", [0, 8_000, 60_000])
def test_a_full_disk(tmp_path, limit_bytes):
    """A file that cannot grow any further, as on a full disk: the first write, or one in the middle of a checkpoint."""
    command = ["teacher", *arguments(write_experiment(tmp_path), tmp_path / "runs")]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

    ended = subprocess.run(
        [HILNAS, *command],
        check=False,
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=60,
    )
    assert ended.returncode == USAGE, ended.stderr
    one_line(ended.stderr, str(tmp_path / "runs" / "tiny"), "make room")
    again = run(*command)
    assert again.returncode == 0, again.stderr


# Bundles


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
    "one bit of the golden output": (lambda b: flip(b / "golden/output.bin"), "golden/output.bin"),
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


def test_an_exported_bundle_verifies(tmp_path, finished, capfd):
    for name in ("teacher", "fast"):
        out = tmp_path / name
        assert main(["bundle", "export", "--run", str(finished.folder), "--model", name, "--out", str(out)]) == 0
        assert main(["bundle", "verify", str(out), "--boards", BOARDS]) == 0
    assert capfd.readouterr().err == ""


def test_killed_while_an_older_bundle_is_replaced(tmp_path, finished, monkeypatch):
    command = ["bundle", "export", "--run", str(finished.folder), "--out", str(tmp_path / "out")]
    assert main(command) == 0

    def killed(path: Path, **_: object) -> None:
        if Path(path).exists():
            (Path(path) / "manifest.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        assert main(command) == 130
    assert main(command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert main(["bundle", "verify", str(tmp_path / "out"), "--boards", BOARDS]) == 0


def test_a_bundle_goes_to_the_workdir_also_where_none_is_set(tmp_path, bundle, server, capfd, monkeypatch):
    monkeypatch.setattr("deploy.ship.bundle.DEFAULT_WORKDIR", str(tmp_path / "default"))  # /tmp is others' too
    c = server.config
    (tmp_path / "boards.toml").write_text(
        f'[bench]\nkind = "ssh"\nhost = "127.0.0.1"\nport = {c.port}\nuser = "{c.user}"\n'
        f'key = "{c.key}"\nknown_hosts = "{c.known_hosts}"\npython = "{c.python}"\n'
    )
    command = ["bundle", "verify", str(bundle), "--boards", str(tmp_path / "boards.toml"), "--board", "bench"]
    assert main(command) == 0, capfd.readouterr().err
    assert (tmp_path / "default" / "bundles").is_dir() and not Path("/bundles").exists()


# The latency baseline: test_regress.py has the rest


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
