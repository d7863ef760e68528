"""The tolerance of golden outputs: what two kernel sets differ by on the worst of all golden images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType

from deploy.compile.artifact import Artifact, golden_pair, save_model
from deploy.ship.manifest import GoldenPair
from deploy.ship.task_output import TASK_OUTPUTS
from deploy.ship.tolerances import spread_text, with_tolerance
from hil.spread import FACTOR
from tests.deploy.networks import interpret, small_segmenter_graph

SIZE = (32, 40)
SEEDS = (2, 0, 1)  # of images; on the first the kernel sets differ least
IMAGES = len(SEEDS)
MAPS, SCORES = TASK_OUTPUTS["segmentation"], TASK_OUTPUTS["classification"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A full network with random weights, whose kernel sets differ much."""
    folder = tmp_path_factory.mktemp("network")
    return save_model(small_segmenter_graph(SIZE), torch.zeros(1, 3, *SIZE), Artifact.at(folder, "random"), {})


@pytest.fixture(scope="module")
def golden(network: Artifact) -> tuple[GoldenPair, ...]:
    graph, folder, pairs = small_segmenter_graph(SIZE), network.model.parent, []
    for number, seed in enumerate(SEEDS):
        noise = torch.randint(-128, 128, (1, 3, *SIZE), generator=torch.Generator().manual_seed(seed)) / 128
        source, output = golden_pair(graph, noise)
        pair = GoldenPair(f"{number}.input.bin", f"{number}.output.bin", MAPS.max_mismatch, None)
        (folder / pair.input).write_bytes(source)
        (folder / pair.output).write_bytes(output)
        pairs.append(pair)
    return tuple(pairs)


def shares(network: Artifact, golden: tuple[GoldenPair, ...]) -> list[float]:
    """Of the pixels, by image, on which the reference kernels differ from the golden outputs."""
    found = []
    for pair in golden:
        source = np.frombuffer((network.model.parent / pair.input).read_bytes(), np.int8).reshape(1, *SIZE, 3)
        classes = interpret(network.model.read_bytes(), source, OpResolverType.BUILTIN_REF)
        expected = np.frombuffer((network.model.parent / pair.output).read_bytes(), np.int32)
        found.append(float(np.mean(classes.ravel() != expected)))
    return found


def test_the_worst_image_decides_for_all(network: Artifact, golden: tuple[GoldenPair, ...]) -> None:
    output, pairs = with_tolerance(network.model, network.model.parent, golden, MAPS)
    measured = shares(network, golden)
    assert [pair.kernel_spread and pair.kernel_spread.share for pair in pairs] == measured
    assert max(measured) > measured[0] and max(measured) > MAPS.max_mismatch
    assert {pair.max_mismatch for pair in pairs} == {output.max_mismatch} == {FACTOR * max(measured)}
    assert output.tolerance_text.startswith(f"at most {100 * output.max_mismatch:.3g} % of the pixels")
    assert spread_text(pairs).startswith(f"Over these {IMAGES} inputs XNNPACK and the reference kernels differ on at ")
    assert f"most {max(measured):.2%} of the pixels.\n" in spread_text(pairs)
    assert all(share <= pairs[0].max_mismatch for share in measured)  # another right kernel set is verified


def test_of_scores_it_is_the_largest_difference(
    tmp_path: Path, golden: tuple[GoldenPair, ...], network: Artifact
) -> None:
    graph = small_segmenter_graph(SIZE)
    logits = graph.until(graph.operators[-2].name)
    saved = save_model(logits, torch.zeros(1, 3, *SIZE), Artifact.at(tmp_path, "logits"), {})
    output, pairs = with_tolerance(saved.model, network.model.parent, golden, SCORES)
    apart = [pair.kernel_spread.max_abs_diff or 0 for pair in pairs if pair.kernel_spread]
    assert len(apart) == IMAGES and max(apart) > apart[0]
    assert {pair.max_abs_diff for pair in pairs} == {output.max_abs_diff} == {int(FACTOR * max(apart))}
    assert f"differ by at most {max(apart):g} steps" in spread_text(pairs)


def test_a_file_that_does_not_run_here_has_the_tasks(tmp_path: Path, golden: tuple[GoldenPair, ...]) -> None:
    (tmp_path / "m.tflite").write_bytes(b"no model")
    for pair in golden:
        (tmp_path / pair.input).write_bytes(b"")
    output, pairs = with_tolerance(tmp_path / "m.tflite", tmp_path, golden, MAPS)
    assert output == MAPS and pairs == golden and spread_text(pairs) == ""
