"""How far two kernel sets are apart on a full network's file, and the board's verdict that follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType

from deploy.cli import main
from deploy.compile.artifact import Artifact, save_model
from deploy.compile.kernel_spread import kernel_spread
from deploy.compile.tails import classes_of
from deploy.formats.tflite.operators import Form
from deploy.ship.task_output import TASK_OUTPUTS
from hil.input_shape import InputShape
from hil.spread import KernelSpread
from nas.quant import simulate
from nas.quant.tails import in_file
from tests.deploy.networks import interpret, quantized_subnet, referenced, simulated, small_segmenter_graph, space
from tests.deploy.tiny_experiment import one_line

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (32, 40)
KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)
BOARDS = """
[second]            # another right kernel set than the one that the outputs are expected of
kind = "loopback"
server = "asyncssh"
kernels = "reference"
parity_max_abs_diff = 2
parity_max_mismatch = 0.02
"""


def image() -> torch.Tensor:
    return torch.randint(-128, 128, (1, 3, *SIZE), generator=torch.Generator().manual_seed(1)) / 128


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A full network with random weights, and the boards beside it."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "boards.toml").write_text(BOARDS)
    return save_model(small_segmenter_graph(SIZE), image(), Artifact.at(folder, "random"), {})


def test_it_is_what_the_two_simulations_differ_by(network: Artifact) -> None:
    graph = small_segmenter_graph(SIZE)
    q = simulate.quantize(image(), graph.tensors[graph.input])
    share = float(np.mean(simulated(graph, q) != referenced(graph, q)))
    assert kernel_spread(network.model, network.input) == KernelSpread(share) and share > 0.02


def test_of_scores_it_is_a_distance(tmp_path: Path) -> None:
    graph = small_segmenter_graph(SIZE)
    logits = graph.until(graph.operators[-2].name)
    for form in (Form(), Form(activations="uint8")):
        saved = save_model(logits, image(), Artifact.at(tmp_path, form.activations), {}, form=form)
        found = kernel_spread(saved.model, saved.input)
        assert found is not None and found.max_abs_diff and 1 <= found.max_abs_diff < 128
        if form == Form():
            q = simulate.quantize(image(), graph.tensors[graph.input])
            apart = np.abs(simulated(logits, q).astype(int) - referenced(logits, q).astype(int))
            assert found == KernelSpread(float(np.mean(apart != 0)), float(apart.max()))


def test_at_other_sizes_than_the_files(tmp_path: Path) -> None:
    graph = small_segmenter_graph(SIZE)
    stem = graph.until(graph.operators[3].name)  # the head resizes to sizes of its own
    saved = save_model(stem, image(), Artifact.at(tmp_path, "stem"), {})
    larger = torch.rand(1, 3, 2 * SIZE[0], 2 * SIZE[1], generator=torch.Generator().manual_seed(0))
    q = simulate.as_nhwc(simulate.quantize(larger, graph.tensors[graph.input]))
    (tmp_path / "larger").write_bytes(q.tobytes())
    shape = (InputShape(graph.input, q.shape),)
    assert kernel_spread(saved.model, tmp_path / "larger") is None
    found = kernel_spread(saved.model, tmp_path / "larger", shape)
    answers = [interpret(saved.model.read_bytes(), q, kernels) for kernels in KERNELS]
    apart = np.abs(answers[0].astype(int) - answers[1].astype(int))
    assert found == KernelSpread(float(np.mean(apart != 0)), float(apart.max())) and apart.any()


def test_of_a_file_that_leaves_its_class_map_to_the_cpu_it_is_the_maps(tmp_path: Path) -> None:
    graph = small_segmenter_graph(SIZE)
    logits, sizes = in_file(graph, "logits")
    assert sizes is not None
    saved = save_model(graph, image(), Artifact.at(tmp_path, "logits"), {}, tail="logits")
    q = simulate.quantize(image(), graph.tensors[graph.input])
    fast, slow = (classes_of(answer, sizes) for answer in (simulated(logits, q), referenced(logits, q)))
    assert kernel_spread(saved.model, saved.input) == KernelSpread(float(np.mean(fast != slow)))


def test_only_full_networks_have_one(network: Artifact, tmp_path: Path) -> None:
    block = quantized_subnet(space("demo"), next(space("demo").subnets(2, 8)), (8, 10))
    x = torch.rand(1, block.tensors[block.input].shape[2], 8, 10)
    saved = save_model(block, x, Artifact.at(tmp_path, "block"), {})
    assert kernel_spread(saved.model, saved.input) is None
    (tmp_path / "short").write_bytes(network.input.read_bytes()[:-1])
    assert kernel_spread(network.model, tmp_path / "short") is None
    (tmp_path / "no.tflite").write_bytes(b"no model")
    assert kernel_spread(tmp_path / "no.tflite", network.input) is None


def test_a_second_kernel_set_is_right_on_random_weights_and_a_wrong_output_is_not(
    network: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spread = kernel_spread(network.model, network.input)
    boards = ["--boards", str(network.model.parent / "boards.toml"), "--runs", "1", "--rounds", "1"]

    def profile(model: Path) -> tuple[int, str, str]:
        code = main(["profile", str(model), "--board", "second", *boards, "--store", str(tmp_path / "store.sqlite")])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = profile(network.model)
    assert code == 0, err
    assert f"spread: up to {spread.share:.1%} of the elements: outputs differ by more than the board's tolerance" in out

    wrong = Artifact.at(tmp_path, "wrong")
    wrong.model.write_bytes(network.model.read_bytes())
    wrong.input.write_bytes(network.input.read_bytes())
    classes = np.frombuffer(network.expected.read_bytes(), np.int32)
    wrong.expected.write_bytes(((classes + 5) % 11).astype(np.int32).tobytes())
    code, _, err = profile(wrong.model)
    assert code == 4
    one_line(err, "allowed: 0.02 of the elements", f"or {spread}")


def test_a_bundle_allows_what_two_kernel_sets_differ_by() -> None:
    maps, scores = TASK_OUTPUTS["segmentation"], TASK_OUTPUTS["classification"]
    for spread in (None, KernelSpread(0.01), KernelSpread(0.2, 1.0)):
        assert maps.within(spread) == maps and "at most 2 % of the pixels" in maps.tolerance_text
    wider = maps.within(KernelSpread(0.1))
    assert (wider.max_mismatch, wider.max_abs_diff) == (pytest.approx(0.15), None)
    assert "at most 15 % of the pixels" in wider.tolerance_text
    assert scores.within(KernelSpread(1.0, 2.0)) == scores and "off by 3\nsteps" in scores.tolerance_text
    assert scores.within(KernelSpread(1.0, 5.0)).max_abs_diff == 7
