"""`--input-shape` from the command line, on the real loopback board."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from hil.store import Store
from tests.deploy.cli.failing import MODEL, USAGE, Fails, profile
from tests.deploy.formats.test_open_sizes import opened
from tests.deploy.inspected_models import edited, written
from tests.hil import tiny_model

BOARDS = '[bench]\nkind = "loopback"\nfleet = "here"\n[other]\nkind = "loopback"\nfleet = "here"\n'


@pytest.fixture
def open_model(tmp_path: Path) -> Path:
    return tiny_model.int8_open(tmp_path / "open.tflite")


@pytest.fixture
def open_network(tmp_path: Path) -> Path:
    path = tmp_path / "network.tflite"
    path.write_bytes(edited(written(), opened(1, -1, -1, 4)))
    return path


@pytest.fixture
def boards(tmp_path: Path) -> str:
    (tmp_path / "boards.toml").write_text(BOARDS)
    return str(tmp_path / "boards.toml")


def golden(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(-100, 100, shape, np.int8)
    (folder / f"{name}.input.bin").write_bytes(x.tobytes())
    (folder / f"{name}.expected.bin").write_bytes((x + np.int8(3)).tobytes())


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_model_without_a_size_is_refused_with_the_option(fails: Fails, tmp_path: Path, open_model: Path) -> None:
    words = ("open.tflite", "'x' [1, -1, -1, 16]", "add --input-shape x=1xHxWx16, with your sizes")
    fails(USAGE, profile(tmp_path, open_model), *words)
    fails(USAGE, [*profile(tmp_path, open_model), "--memory"], *words)
    assert not (tmp_path / "store.sqlite").exists()  # before any board is used


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("x=1x16x8x8", ("x=1x16x8x8 contradicts the file", "[1, -1, -1, 16]")),
        ("y=1x8x8x16", ("no model has an input 'y'", "there is 'x'")),
        ("x=1,8,8,16", ("x=1,8,8,16", "write NAME=1x224x224x3")),
        ("1x8x8x16", ("write NAME=1x224x224x3",)),
        ("x=1x0x8x16", ("sizes of 1 or more",)),
    ],
)
def test_shapes_that_do_not_fit(
    fails: Fails, tmp_path: Path, open_model: Path, option: str, words: tuple[str, ...]
) -> None:
    fails(USAGE, [*profile(tmp_path, open_model), "--input-shape", option], *words)
    fails(USAGE, ["inspect", open_model, "--input-shape", option], *words)


def test_it_is_timed_at_the_size_beside_a_model_that_has_one(
    tmp_path: Path, open_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    golden(tmp_path, "open", (1, 8, 8, 16))
    static = tiny_model.int8_add(tmp_path / "static.tflite")
    name, *others = profile(tmp_path, open_model)
    command = [name, static, *others, "--input-shape", "x=1x8x8x16"]
    assert run(*command) == 0
    said = capfd.readouterr().out
    assert "open.tflite x=1x8x8x16" in said and "static.tflite " in said
    assert run(*command, "--json") == 0
    found = {m["model"]: m["conditions"].get("input_shapes", "") for m in json.loads(capfd.readouterr().out)}
    assert found == {"open.tflite": "x=1x8x8x16", "static.tflite": ""}
    with Store(tmp_path / "store.sqlite") as store:
        assert len(store.all()) == 2
        assert {m.conditions.input_shapes: m.parity is not None for m in store.all()} == {"x=1x8x8x16": True, "": False}
    assert run("results", "query", "--store", tmp_path / "store.sqlite") == 0
    assert "open.tflite x=1x8x8x16" in capfd.readouterr().out
    out = tmp_path / "samples.csv"
    assert run("results", "export", "--store", tmp_path / "store.sqlite", "--format", "csv", "--out", out) == 0
    header, *rows = out.read_text().splitlines()
    column = header.split(",").index('"input_shapes"')
    assert {row.split(",")[column] for row in rows} == {'"x=1x8x8x16"', '""'}


def test_the_size_that_a_file_has_already_is_the_same_measurement(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    static = tiny_model.int8_add(tmp_path / "static.tflite")
    assert run(*profile(tmp_path, static)) == 0
    assert run(*profile(tmp_path, static), "--input-shape", "x=1x8x8x16") == 0
    with Store(tmp_path / "store.sqlite") as store:
        assert len(store.all()) == 1


def test_a_fleet_takes_it(tmp_path: Path, open_model: Path, boards: str, capfd: pytest.CaptureFixture[str]) -> None:
    command = profile(tmp_path, open_model, boards, "bench,other")
    assert run(*command, "--input-shape", "x=1x8x8x16") == 0
    assert "open.tflite x=1x8x8x16" in capfd.readouterr().out


def test_memory_takes_it(tmp_path: Path, open_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*profile(tmp_path, open_model), "--memory", "--input-shape", "x=1x8x8x16", "--json") == 0
    assert json.loads(capfd.readouterr().out)[0]["peak_bytes"] > 0


def test_inspect_shows_what_is_open(open_network: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", open_network) == 0
    said = capfd.readouterr().out
    assert "in  in [1, -1, -1, 4] INT8" in said
    assert "note: sizes that are left open (-1) count as 1 here; --input-shape in=1xHxWx4 gives them yours" in said
    assert run("inspect", open_network, "--json") == 0
    (end,) = json.loads(capfd.readouterr().out)["inputs"]
    assert (end["shape"], end["signature"]) == ([1, 1, 1, 4], [1, -1, -1, 4])


def test_inspect_shows_a_model_at_a_size(open_network: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", open_network, "--input-shape", "in=1x18x20x4") == 0
    said = capfd.readouterr().out
    assert "in  in [1, 18, 20, 4] INT8" in said and "1x18x20x4 -> 1x9x10x6" in said and "note:" not in said
    macs = 9 * 10 * (6 * 3 * 3 * 4 + 6 * 5 * 5 + 3 * 6)
    assert f"{macs / 1e6:.3f} MMACs" in said.splitlines()[-1]


def test_lint_counts_no_shares_at_a_size_that_nobody_means(fails: Fails, open_network: Path) -> None:
    command = ["lint", open_network, "--target", "cpu-xnnpack"]
    fails(USAGE, command, "network.tflite", "add --input-shape in=1xHxWx4")
    assert run(*command, "--input-shape", "in=1x18x20x4") == 0


def test_regress_compares_one_size(
    fails: Fails, tmp_path: Path, open_model: Path, boards: str, capfd: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    open_model.rename(suite / "open.tflite")
    golden(suite, "open", (1, 8, 8, 16))
    command = ["regress", "--suite", suite, "--board", "bench", "--boards", boards, "--baselines", tmp_path / "base"]
    command += ["--store", tmp_path / "s.sqlite", "--rounds", 4, "--runs", 4, "--threshold", 50]
    fails(USAGE, [*command, "--update"], "add --input-shape x=1xHxWx16")
    sized = ["--input-shape", "x=1x8x8x16"]
    assert run(*command, *sized, "--update") == 0
    record = json.loads((tmp_path / "base/here/open.json").read_text())
    assert record["conditions"]["input_shapes"] == "x=1x8x8x16"
    capfd.readouterr()
    assert run(*command, *sized) == 0
    assert "open (stored " in capfd.readouterr().out
    tiny_model.int8_open(suite / "open.tflite", name="renamed")
    assert run(*command, "--input-shape", "renamed=1x8x8x16") == 0
    assert "open (interleaved)" in capfd.readouterr().out
    golden(suite, "open", (1, 4, 4, 16))
    assert run(*command, "--input-shape", "renamed=1x4x4x16") == 5
    assert "other conditions (input_shapes); --update" in capfd.readouterr().out


def test_a_baseline_of_before_is_made_anew(fails: Fails, tmp_path: Path, open_model: Path, boards: str) -> None:
    """One that an earlier version measured at 1x1."""
    suite, base = tmp_path / "suite", tmp_path / "base" / "here"
    for folder in (suite, base):
        folder.mkdir(parents=True)
        (folder / "open.tflite").write_bytes(open_model.read_bytes())
        golden(folder, "open", (1, 1, 1, 16))
    static = tiny_model.int8_add(suite / "open.tflite")
    golden(suite, static.stem, tiny_model.SHAPE)
    command = ["regress", "--suite", suite, "--board", "bench", "--boards", boards, "--baselines", tmp_path / "base"]
    command += ["--store", tmp_path / "s.sqlite", "--rounds", 4, "--runs", 4]
    assert run(*command, "--update") == 0
    (base / "open.tflite").write_bytes(open_model.read_bytes())
    fails(USAGE, command, "here/open.tflite", "measured at 1; --update")


def test_another_signature_is_not_timed_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    def with_decoder(model: schema.ModelT) -> None:
        model.subgraphs.append(model.subgraphs[0])
        model.signatureDefs = []
        for index, key in enumerate((b"encode", b"decode")):
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.subgraphIndex = key, index
            signature.inputs, signature.outputs = [], []
            model.signatureDefs.append(signature)

    path = tmp_path / "two.tflite"
    path.write_bytes(edited(tiny_model.int8_add(path).read_bytes(), with_decoder))
    assert run(*profile(tmp_path, path)) == 0
    assert "only its first subgraph is run, without the signatures decode" in capfd.readouterr().err


def test_a_model_compiled_for_another_npu(fails: Fails, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def compiled(model: object) -> None:
        code = model.operatorCodes[0]  # type: ignore[attr-defined]
        code.builtinCode = code.deprecatedBuiltinCode = 32
        code.customCode = b"edgetpu-custom-op"

    path = tmp_path / "m_edgetpu.tflite"
    path.write_bytes(edited(tiny_model.int8_add(path).read_bytes(), compiled))
    words = ("compiled for a Coral Edge TPU: its operator edgetpu-custom-op", "board loopback has no delegate",
             "give the model that edgetpu_compiler was given, or name that NPU's delegate in boards.toml")  # fmt: skip
    fails(MODEL, profile(tmp_path, path), *words)
    assert run("inspect", path) == 0
    assert "note: compiled for a Coral Edge TPU" in capfd.readouterr().out
    boards = tmp_path / "tpu.toml"
    boards.write_text('[tpu]\nkind = "loopback"\ndelegate = "/usr/lib/libedgetpu.so.1"\n')
    fails(3, profile(tmp_path, path, str(boards), "tpu"), "libedgetpu.so.1")  # a board for it: the board's word counts
