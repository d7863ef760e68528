"""The roofline's counting held to a walk over every prefix, and the GPU's code on a processor."""

from __future__ import annotations

import pytest
import torch

from deploy.compile.weights import Origin
from nas.quant.integer_graph import Weighted
from nas.space import Block, SearchSpace
from tests.benchmarks import gpu_table
from tests.benchmarks.roofline import Peaks, block_least_seconds, block_work

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 3, 1), Block(1, 16, 1, 1)), kernels=(3, 5), expansions=(2, 3))
ORIGIN = Origin(SPACE, (32, 48))


@pytest.mark.parametrize("block", [1, 2])
def test_every_step_of_the_walk_is_counted_once_for_every_prefix(block):
    """The last layer of each distinct prefix: its operators' work."""
    prefixes, macs, values, weights = set(), 0, 0, 0
    for subnet, graph in ORIGIN.graphs(list(SPACE.subnets(block, 8))):
        for op in graph.operators:
            prefix = subnet.choices[: int(op.name.split("/")[1]) + 1]
            if (prefix, op.name) in prefixes:
                continue
            prefixes.add((prefix, op.name))
            maps = {op.name, *((op.a, op.b) if hasattr(op, "a") else (op.x,))}
            values += sum(h * w * c for h, w, c in (graph.tensors[name].shape for name in maps))
            if isinstance(op, Weighted):
                macs += op.macs(graph.tensors[op.name])
                weights += op.weight.nbytes + op.bias.nbytes
    found = list(block_work(ORIGIN, block))
    assert sum(work.times * work.macs for work in found) == macs
    assert sum(work.times * work.values for work in found) == values
    assert sum(work.times * work.weights for work in found) == weights


def test_the_slower_of_memory_and_products_counts():
    """An expansion by 2 of 8 channels, k3, at 16 x 24, by hand; the other three choices alike."""
    memory = block_least_seconds(ORIGIN, 2, Peaks(1.0, float("inf")), 5, 0)
    products = block_least_seconds(ORIGIN, 2, Peaks(float("inf"), 1.0), 5, 0)
    both = block_least_seconds(ORIGIN, 2, Peaks(1.0, 1.0), 5, 0)
    height, width = ORIGIN.map_size(2)
    macs = moved = 0
    for kernel in (3, 5):
        for wide in (24, 36):
            macs += 5 * height * width * (12 * wide + kernel**2 * wide + wide * 16)
            moved += 5 * height * width * (12 + wide + wide + wide + wide + 16)
            moved += 12 * wide + kernel**2 * wide + wide * 16 + 4 * (wide + wide + 16)  # weights and biases
            moved += 5 * height * width * 16 * (1 + 4)  # the leaf: its result, and the teacher's map in float32
    assert (memory, products) == (moved, macs)
    assert max(memory, products) < both < memory + products
    calibrated = block_least_seconds(ORIGIN, 2, Peaks(1.0, float("inf")), 5, 7) - memory
    assert calibrated == sum(2 * 7 * 4 * work.values for work in block_work(ORIGIN, 2))


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_table.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sees no GPU" in line


def test_the_same_code_on_a_processor(tmp_path, monkeypatch, capsys):
    path = tmp_path / "space.toml"
    path.write_text(
        'name = "tiny"\nstem_channels = 8\nfirst_channels = 8\nkernels = [3, 5]\nexpansions = [2, 3]\n'
        "blocks = [{ stride = 2, channels = 12, layers = 2, teacher_layers = 1 }]\n"
    )
    monkeypatch.setattr(gpu_table, "SPACE", path)
    given = ["--device", "cpu", "--size", "32x48", "--images", "3", "--calibration", "2", "--batch", "2"]
    assert gpu_table.main([*given, "--tb-per-s", "2", "--tops", "100"]) == 0
    block, last = capsys.readouterr().out.splitlines()
    assert block.startswith("block 1: 16 subnets, ") and "roofline" in block
    assert last.startswith("16 subnets, 3 images of 32x48 on one core") and "(2 TB/s, 100 TOPS)" in last
