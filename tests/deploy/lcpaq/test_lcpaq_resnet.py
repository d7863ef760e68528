"""`hilnas lcpaq --model resnet18w8` on a tiny run: trained, given bits, shipped; what it refuses. And its integers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from deploy.cli import main
from deploy.compile.artifact import quantize
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import read
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from nas.data import open_data
from nas.lcpaq.options import options_of
from nas.lcpaq.policy import Policy, layers_of
from nas.lcpaq.program import solve
from nas.networks.blocks import recalibrate
from nas.networks.resnet import Depth, ResNet, ResNetForm
from nas.quant import simulate, uint8
from nas.quant.float_graph import Weighted
from nas.quant.integer_graph import IntegerGraph, QMaxPool
from nas.quant.scheme import Scheme
from nas.tasks.task import fold
from nas.training.train import load
from tests.deploy.networks import interpret, random_integers, referenced, simulated, trained_like
from tests.deploy.tiny_experiment import arguments, one_line, record, start, write_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSIFY = {
    'spec = "scenes"\nsize = [64, 96]': 'spec = "shapes"\nsize = [32, 40]',
    "head = { channels = 8, rates = [2] }": "head = { features = 32 }",
    "train = 16": "train = 64",
    "val = 4": "val = 20",
}
QUICK = ("--images", "4", "--scoring-images", "16", "--k", "1", "--trials", "2", "--tuning-steps", "2", "--bits", "4,8")
NAME = "resnet18w8"


def whole(size: tuple[int, int], scheme: Scheme, seed: int = 0, depth: Depth = 18) -> IntegerGraph:
    """A narrow network with mixed bits of weights and of what they read, quantized on noise."""
    torch.manual_seed(seed)
    model = trained_like(ResNet(7, size, ResNetForm(depth, 8)), seed).eval()
    images = (torch.randint(0, 256, (2, 3, *size)).float() - 128) / 128
    recalibrate(model, images)
    layers = [node for node in fold(model, size) if isinstance(node, Weighted)]
    widths = {x: 8 - i % 5 for i, x in enumerate(dict.fromkeys(layer.x for layer in layers))}
    policy = Policy(
        {layer.name: 3 + i % 6 for i, layer in enumerate(layers)}, {layer.name: widths[layer.x] for layer in layers}
    )
    return quantize(model, [images], size, scheme=scheme, policy=policy)


@pytest.mark.parametrize(
    ("size", "scheme", "depth"),
    [
        ((32, 40), Scheme(), 18),
        ((70, 90), Scheme("tensor", "mse", equalize=True, bias_correction=True), 18),
        ((64, 66), Scheme(), 50),
    ],
    ids=["small", "large", "50"],
)
def test_litert_answers_the_simulations_bytes(size: tuple[int, int], scheme: Scheme, depth: Depth) -> None:
    graph = whole(size, scheme, depth=depth)
    assert any(isinstance(op, QMaxPool) for op in graph.operators) == (size[0] >= 64)
    for seed in range(3):
        q = random_integers(graph, seed)
        for kernels, expected in (
            (OpResolverType.AUTO, simulated(graph, q)),
            (OpResolverType.BUILTIN_REF, referenced(graph, q)),
        ):
            answer = interpret(write(graph), simulate.as_nhwc(q), kernels)
            assert len(np.unique(answer)) > 1
            np.testing.assert_array_equal(answer, expected.reshape(answer.shape), str(kernels))


@pytest.mark.parametrize("depth", [18, 50])
def test_at_full_width_it_is_given_bits_and_compiled(depth: Depth) -> None:
    """As published, for 1 000 classes: the program is solved and the file holds what it was asked to."""
    torch.manual_seed(depth)
    size = (64, 64)
    model = trained_like(ResNet(1000, size, ResNetForm(depth)), depth).eval()
    images = (torch.randint(0, 256, (2, 3, *size)).float() - 128) / 128
    recalibrate(model, images)
    nodes = fold(model, size)
    layers = layers_of(nodes, (*size, 3))
    noise = {layer.name: {bits: layer.weights * 4.0**-bits for bits in (2, 4, 6, 8)} for layer in layers}
    most = 0.67 * sum(layer.size_bits(8) for layer in layers)
    policy = solve(options_of(layers, [(bits, 8) for bits in (2, 4, 6, 8)], noise), {"size_bits": most})
    graph = quantize(model, [images], size, policy=policy)
    assert 0.95 * most < graph.size_bits <= most
    q = random_integers(graph, depth)
    answer = interpret(write(graph), simulate.as_nhwc(q))
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))


def test_as_uint8_too() -> None:
    graph = whole((64, 72), Scheme("tensor"))
    q = random_integers(graph, 5)
    shifted = simulate.as_nhwc(q + 128, np.int32).astype(np.uint8)
    answer = interpret(write(graph, form=Form(activations="uint8")), shifted)
    np.testing.assert_array_equal(answer.ravel(), simulate.as_nhwc(uint8.run(graph, q) + 128, np.int32).ravel())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("resnet"), CLASSIFY)


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    """LCPAQ's folder after everything."""
    runs = config.parent / "runs"
    assert main(["lcpaq", "run", *arguments(config, runs, *QUICK, "--model", NAME, "--size-limit", "67%")]) == 0
    return runs / "tiny" / "lcpaq" / NAME


def test_a_run_trains_it_and_ends_in_a_verified_bundle_within_the_limit(finished: Path) -> None:
    shipped, solution = record(finished / "shipped.json"), record(finished / "solve.json")
    assert shipped["verified"] and shipped["size_bits"] <= solution["limits"]["size_bits"]
    assert not (finished.parents[1] / "teacher.pt").exists(), "nothing of the loop is needed"
    model = finished / "models" / f"lcpaq-{NAME}.tflite"
    found = inspect_model(read(model))
    assert found.operators_by_kind == {"CONV_2D": 20, "ADD": 8, "MEAN": 1, "FULLY_CONNECTED": 1}
    assert {op.activation for op in found.operators if op.name == "ADD"} == {"RELU"}
    assert found.hilnas is not None and found.hilnas["subnet"] == NAME
    assert found.requested_bits == (4, 8)
    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    right = 0
    for sample in open_data("shapes", "val", (32, 40), count=20):
        interpreter.set_tensor(source["index"], (sample.image.astype(np.int16) - 128).astype(np.int8)[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(scores["index"])[0].argmax()) == int(sample.label)
    assert shipped["int8"] == pytest.approx(100 * right / 20)


def test_the_compiler_takes_it_with_its_policy(config: Path, finished: Path, tmp_path: Path) -> None:
    run = finished.parents[1]
    options = ("--config", str(config), "--weights", str(run), "--out", str(tmp_path))
    assert main(["compile", NAME, *options, "--policy", str(finished / "policy.json")]) == 0
    model = tmp_path / f"lcpaq-{NAME}.tflite"
    image = np.fromfile(model.with_suffix(".input.bin"), np.int8).reshape(1, 32, 40, 3)
    expected = np.fromfile(model.with_suffix(".expected.bin"), np.int8)
    np.testing.assert_array_equal(interpret(model.read_bytes(), image).ravel(), expected)


def test_what_is_done_is_not_done_again_and_another_width_is_another_network(config: Path, finished: Path) -> None:
    kept = ("network.pt", "sensitivity.json", "refine.json", "shipped.json")
    before = {name: (finished / name).stat().st_mtime_ns for name in kept}
    runs = finished.parents[2]
    assert main(["lcpaq", "run", *arguments(config, runs, *QUICK, "--model", NAME)]) == 0
    assert {name: (finished / name).stat().st_mtime_ns for name in kept} == before
    other = finished.with_name("resnet18w4")
    quick = (*QUICK, "--sensitivity", "sqnr")
    assert main(["lcpaq", "sensitivity", *arguments(config, runs, *quick, "--model", other.name)]) == 0
    assert record(other / "sensitivity.json")["key"] != record(finished / "sensitivity.json")["key"]
    assert {name: (finished / name).stat().st_mtime_ns for name in kept} == before


def test_a_killed_training_ends_with_the_same_weights(config: Path, finished: Path, tmp_path: Path) -> None:
    command = ["lcpaq", "sensitivity", *arguments(config, tmp_path, *QUICK, "--model", NAME, "--sensitivity", "sqnr")]
    folder = tmp_path / "tiny" / "lcpaq" / NAME
    started = start(command, eager=True, held=(NAME, 15))
    while not (folder / "network.pt").exists():
        assert started.process.poll() is None, started.said
        time.sleep(0.01)
    assert started.end(9) == -9
    assert load(folder / "network.pt")["step"] < 30
    assert main(command) == 0
    ours, whole = (load(path / "network.pt")["model"] for path in (folder, finished))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, ("--model", NAME), ("resnet18 is a classifier", "data 'scenes' is for segmentation")),
        (CLASSIFY, ("--model", "resnet18w0"), ("0 channels", "give at least 1")),
        (CLASSIFY, ("--model", "resnet34"), ("--model resnet34", "teacher, fast, resnet18, resnet50")),
        (CLASSIFY, ("--model", NAME, "--size-limit", "blocks"), (f"{NAME} has no block bits",)),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    config = write_experiment(tmp_path, changes)
    quick = (*QUICK, "--sensitivity", "sqnr")
    assert main(["lcpaq", "solve", *arguments(config, tmp_path / "runs", *quick, *options)]) == 2
    one_line(capsys.readouterr().err, *words)
