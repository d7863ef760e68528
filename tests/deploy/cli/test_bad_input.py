"""Networks that cannot be quantized, disks that are full: one error that names the tensor or file, and the cause."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.cli import main
from deploy.compile.artifact import Artifact, lint_written
from deploy.formats.files import write_atomically
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import load_target
from nas.errors import QuantizationError
from nas.nsr import BlockData, golden_input
from nas.quant import post_training
from nas.quant.float_graph import INPUT, Add, Concat, Conv, Node, Resize
from nas.quant.integer_graph import IntegerGraph, IntTensor, QAdd, QConv
from nas.quant.lower import lower_nodes
from nas.quant.scheme import Scheme
from tests.deploy.inspected_models import TENSOR, edited, written
from tests.deploy.networks import REPOSITORY, interpret, simulated

SHAPE = (6, 8, 4)
SCHEMES = [Scheme(), Scheme("tensor", "mse", equalize=True, bias_correction=True)]


def conv(name: str, x: str = INPUT, outputs: int = 4, inputs: int = 4, kernel: int = 1, **options: object) -> Conv:
    generator = torch.Generator().manual_seed(len(name))
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
    return Conv(name, x, weight, torch.randn(outputs, generator=generator), **options)


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, SHAPE[2], *SHAPE[:2], generator=torch.Generator().manual_seed(seed))


def quantized(nodes: list[Node], scheme: Scheme = SCHEMES[0], x: torch.Tensor | None = None) -> IntegerGraph:
    return post_training.quantize(nodes, [image() if x is None else x], SHAPE, scheme, (-4.0, 4.0))


def _refused(words: tuple[str, ...], nodes: list[Node], scheme: Scheme = SCHEMES[0]) -> None:
    with pytest.raises(QuantizationError) as caught:
        quantized(nodes, scheme)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


# Weights


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_weights_that_are_no_numbers(part, value, scheme):
    node = conv("b1/0/expand")
    getattr(node, part).view(-1)[1] = value
    _refused(("'b1/0/expand'", "NaN or infinity", "retrain it"), [node, conv("b1/0/project", "b1/0/expand")], scheme)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_channel_of_zeros_answers_its_bias(kernel, scheme):
    node = conv("dead", kernel=kernel)
    node.weight[2] = 0
    node.bias[2] = 1.25
    graph = quantized([node], scheme)
    q = np.random.default_rng(0).integers(-128, 128, (1, *SHAPE)).astype(np.int8)
    answer = interpret(write(graph), q)
    np.testing.assert_array_equal(answer, simulated(graph, torch.from_numpy(q.astype(np.float32)).permute(0, 3, 1, 2)))
    y = graph.tensors["dead"]
    channel = (answer[..., 2].astype(float) - y.zero_point) * y.scale
    assert np.ptp(channel) == 0 and abs(channel.flat[0] - 1.25) <= y.scale


# Ranges and scales


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_tensor_that_is_always_zero(scheme):
    node = Conv("none", INPUT, torch.zeros(4, 4, 1, 1), torch.zeros(4))
    _refused(("'none'", "zero on all calibration images", "range 0 to 0"), [node], scheme)


def test_a_range_of_one_value_is_no_matter():
    """It is widened to hold 0."""
    graph = quantized([Conv("same", INPUT, torch.zeros(4, 4, 1, 1), torch.full((4,), 3.0))])
    answer = interpret(write(graph), np.zeros((1, *SHAPE), np.int8))
    y = graph.tensors["same"]
    np.testing.assert_allclose((answer.astype(float) - y.zero_point) * y.scale, 3.0, atol=y.scale)


def test_a_block_of_which_the_input_is_dead():
    dead = torch.zeros(2, *SHAPE[2:], *SHAPE[:2])
    with pytest.raises(QuantizationError, match="'input' is zero on all calibration images"):
        golden_input(BlockData(dead, dead, dead))


def test_calibration_on_what_is_no_number():
    with pytest.raises(QuantizationError, match="'c' holds NaN or infinity"):
        quantized([conv("c")], x=image().fill_(float("nan")))


def test_a_convolution_that_cancels():
    """Weights in hundreds, an output in millionths: LiteRT would not load it."""
    weight = torch.zeros(4, 8, 1, 1)
    weight[:, :4], weight[:, 4:] = 1e6, -1e6
    nodes = [Concat("twice", (INPUT, INPUT)), Conv("cancel", "twice", weight, torch.full((4,), 1e-3))]
    _refused(("'cancel'", "out of TFLite's range (below 256)", "too narrow for its weights"), nodes)


def _addition(ratio: float) -> tuple[dict[str, IntTensor], float]:
    tensors = {INPUT: IntTensor(INPUT, SHAPE, 2.0**-7, 3), "b": IntTensor("b", SHAPE, 2.0**-9, 0)}
    return tensors, float(np.float32(2.0**-7 / ratio))


@pytest.mark.parametrize("ratio", [256.0, 1e6])
def test_an_addition_that_cancels(ratio):
    """LiteRT loads it and answers up to 255 LSB off."""
    tensors, scale = _addition(ratio)
    with pytest.raises(QuantizationError, match=r"'sum'.* out of TFLite's range .*too narrow for its inputs"):
        lower_nodes([Add("sum", INPUT, "b")], tensors, {"sum": (scale, 1)})


@pytest.mark.parametrize("ratio", [2.0**-20, 2.0**-10, 1.0, 255.9])
def test_additions_within_the_range_are_exact(ratio):
    """Down to ratios that leave nothing of the inputs: only the upper end is a limit."""
    tensors, scale = _addition(ratio)
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (4, 1, 1, 4)).astype(np.int8)
    b = QConv("b", INPUT, weight, np.full(4, 2.0**-9, np.float32), np.zeros(4, np.int32), 1, 1, False, "none", 8)
    (add,) = lower_nodes([Add("sum", INPUT, "b")], tensors, {"sum": (scale, 1)})
    assert isinstance(add, QAdd)
    graph = IntegerGraph(tensors, (b, add), INPUT)
    q = rng.integers(-128, 128, (1, *SHAPE)).astype(np.int8)
    images = torch.from_numpy(q.astype(np.float32)).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(interpret(write(graph), q), simulated(graph, images))


# Shapes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [conv("half", stride=2), Add("sum", INPUT, "half")],
            ("addition 'sum'", "'input' 6x8x4, 'half' 3x4x4", "one shape"),
        ),
        ([conv("wide", outputs=3), Add("sum", INPUT, "wide")], ("addition 'sum'", "'wide' 6x8x3")),
        (
            [conv("half", stride=2), Concat("both", (INPUT, "half"))],
            ("concatenation 'both'", "'half' 3x4x4", "one height and width"),
        ),
        (
            [conv("half", stride=2), Resize("up", "half", (7, 9)), Concat("both", (INPUT, "up"))],
            ("concatenation 'both'", "'up' 7x9x4"),
        ),
        ([conv("other", inputs=7)], ("convolution 'other' has weights for 7 channels", "'input' 6x8x4")),
        ([conv("grouped", inputs=3)], ("'grouped'", "the channels of a group must divide those of the map")),
        ([Resize("none", INPUT, (0, 3))], ("'none' leaves an empty map",)),
        ([conv("lost", "nobody")], ("'lost' reads 'nobody', which no operator before it computes",)),
    ],
)
def test_maps_that_do_not_fit_together(nodes, words, scheme):
    _refused(words, nodes, scheme)


# Files to inspect


def _newer(model):
    """As a later schema would have it: an operator, a type and options that this one does not know."""
    code = model.operatorCodes[model.subgraphs[0].operators[2].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode = 4321, 127
    model.subgraphs[0].tensors[model.subgraphs[0].operators[2].outputs[0]].type = 77


def test_an_operator_that_the_schema_does_not_know(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    path = tmp_path / "m.tflite"
    path.write_bytes(edited(written(TENSOR), _newer))
    assert main(["inspect", str(path), "--target", "imx8mp-vx"]) == 0
    said = capsys.readouterr().out
    assert "2 UNKNOWN_4321 v2 1x5x5x6+1x5x5x6 -> 1x5x5x6 INT8 -> UNKNOWN_77" in said
    assert "1 UNKNOWN_4321" in said and "no rule knows it" in said
    assert not lint_written(path.read_bytes(), "m", load_target(None, "imx8mp-vx")).errors


def test_a_custom_operator_without_a_name():
    def unnamed(model):
        code = model.operatorCodes[model.subgraphs[0].operators[2].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode = 32, 32

    found = inspect_model(parse(edited(written(TENSOR), unnamed), "m"))
    assert found.operators[2].name == "CUSTOM" and found.operators_by_kind["CUSTOM"] == 1


# A full disk


WRITING = """
import resource, signal, sys
from deploy.cli import main
import deploy.compile.subnets, deploy.lcpaq.compile  # before files may not grow
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


def _limited(limit_bytes: int, *words: object) -> subprocess.CompletedProcess[str]:
    """`hilnas WORDS` where no file may grow beyond `limit_bytes`."""
    command = [sys.executable, "-c", WRITING, str(limit_bytes), *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _no_model_left(folder: Path, done: subprocess.CompletedProcess[str], named: str) -> None:
    assert done.returncode in (2, 4), done.stderr
    assert re.fullmatch(r"hilnas: .*\n", done.stderr) and named in done.stderr and "File too large" in done.stderr
    left = sorted(path.name for path in folder.iterdir())
    assert not [name for name in left if name.endswith((".tflite", ".part"))], left


def test_compile_into_a_full_disk(tmp_path):
    out = tmp_path / "out"
    subnet = "b4_k3e6-k5e6_w8"
    done = _limited(16_384, "compile", subnet, "--size", "32x32", "--out", out)
    _no_model_left(out, done, f"{subnet}.tflite")


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_storage_forms_into_a_full_disk(tmp_path, command):
    model, packed = tmp_path / "m.tflite", tmp_path / "m.packed"
    model.write_bytes(written(TENSOR))
    assert main(["pack", str(model), "--out", str(packed)]) == 0
    source = {"pack": model, "unpack": packed}[command]
    out = tmp_path / "out"
    out.mkdir()
    done = _limited(512, command, source, "--out", out / "new")
    assert done.returncode in (2, 4) and "File too large" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(out.iterdir())


def test_what_stood_there_stays_when_the_disk_is_full(tmp_path):
    path = tmp_path / "m.tflite"
    write_atomically(path, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(path))):
            write_atomically(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["m.tflite"]
    assert not Artifact.at(tmp_path, "m").exists
