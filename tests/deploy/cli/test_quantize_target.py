"""`hilnas quantize --target`: golden outputs by the arithmetic of the board, and what is said of another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

from deploy.cli import main  # noqa: E402
from tests.deploy.cli.failing import MODEL, USAGE, Fails, profile  # noqa: E402
from tests.deploy.npu_stand_in import npu_delegate  # noqa: E402
from tests.deploy.onnx_files import network, weights  # noqa: E402

UINT8 = ("--scheme", "tensor uint8", "--images", "8")


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loopback ones: `npu` with the stand-in, and a CPU."""
    path = tmp_path_factory.mktemp("boards") / "boards.toml"
    npu = f'delegate = "{npu_delegate(tmp_path_factory)}"\nallow_fallback = true\ntarget = "imx8mp-vx"'
    text = '[{}]\nkind = "loopback"\nserver = "asyncssh"\n{}\n'
    path.write_text(text.format("npu", npu) + text.format("cpu", ""))
    return path


@pytest.fixture(scope="module")
def depthwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of uint8 the builtin kernels of a CPU run its depthwise convolution, which round otherwise."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "d"], ["y"], pads=[1, 1, 1, 1], group=8),
    ]
    folder = tmp_path_factory.mktemp("network")
    return network(folder / "net.onnx", nodes, shape=(1, 3, 32, 32), d=weights(8, 1, 3, 3) / 8)


def quantized(model: Path, out: Path, *options: str) -> Path:
    assert main(["quantize", str(model), "--data", "random", *UINT8, "--out", str(out), *options]) == 0
    return out / "net.uint8.tflite"


def test_a_golden_pair_is_of_one_arithmetic(tmp_path, depthwise, boards, fails: Fails, capfd) -> None:
    cpu, npu = quantized(depthwise, tmp_path / "cpu"), quantized(depthwise, tmp_path / "npu", "--target", "imx8mp-vx")
    capfd.readouterr()  # noise is warned of
    for model, own, other, words in (
        (npu, "npu", "cpu", "made for imx8mp-vx, and this board has no delegate: quantize without --target"),
        (cpu, "cpu", "npu", "made for a CPU, whose uint8 rounds otherwise than an NPU's: make it again with"),
    ):
        assert main([str(word) for word in profile(tmp_path / own, model, str(boards), own)]) == 0
        fails(MODEL, profile(tmp_path / own, model, str(boards), other), "outputs differ", words)
    fails(MODEL, profile(tmp_path, cpu, str(boards), "npu"), "`hilnas quantize --target imx8mp-vx`")
    record = json.loads((tmp_path / "npu" / "quantization.json").read_text())
    assert record["origin"]["target"] == "imx8mp-vx" and "--target imx8mp-vx" in record["origin"]["command"]


def test_all_golden_examples_are_of_it(tmp_path, depthwise) -> None:
    for name, options in (("cpu", ()), ("cpu too", ("--target", "cpu-xnnpack")), ("npu", ("--target", "imx8mp-vx"))):
        quantized(depthwise, tmp_path / name, *options)
    for number in range(8):
        outputs = {
            name: (tmp_path / name / "net.uint8.golden" / f"{number}.output.bin").read_bytes()
            for name in ("cpu", "cpu too", "npu")
        }
        assert outputs["cpu"] == outputs["cpu too"] != outputs["npu"]


def test_int8_is_the_same_everywhere(tmp_path, depthwise, boards) -> None:
    command = ["quantize", depthwise, "--data", "random", "--target", "imx8mp-vx", "--out", tmp_path]
    assert main([str(word) for word in command]) == 0
    for board in ("npu", "cpu"):
        words = profile(tmp_path / board, tmp_path / "net.int8.tflite", str(boards), board)
        assert main([str(word) for word in words]) == 0


def test_a_target_that_there_is_not(tmp_path, depthwise, fails: Fails) -> None:
    fails(USAGE, ["quantize", depthwise, "--data", "random", "--out", tmp_path, "--target", "npu9"], "npu9")


def test_a_bundle_says_so_too(tmp_path, depthwise, boards, fails: Fails, capfd) -> None:
    """Exact outputs are not asked for there: the golden ones of this one are changed beyond the tolerance."""
    quantized(depthwise, tmp_path / "q")
    short = ["--runs", "2", "--rounds", "1", "--boards", str(boards)]
    export = ["bundle", "export", str(tmp_path / "q"), *short, "--out", str(tmp_path / "net")]
    assert main([*export, "--board", "cpu"]) == 0
    manifest = json.loads((tmp_path / "net/manifest.json").read_text())
    manifest["golden"] = [{**pair, "max_abs_diff": 0} for pair in manifest["golden"]]
    (tmp_path / "net/manifest.json").write_text(json.dumps(manifest))
    capfd.readouterr()
    verify = ["bundle", "verify", str(tmp_path / "net"), "--boards", str(boards)]
    fails(MODEL, [*verify, "--board", "npu"], "not verified: golden", "`hilnas quantize --target imx8mp-vx`")
    assert main([*verify, "--board", "cpu"]) == 0
