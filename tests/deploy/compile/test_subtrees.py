"""The tables' sub-trees as tasks: the same tables and files on every engine, whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.compile.subtrees import Population, SubTree, boundaries, sub_trees
from deploy.pipeline.tables import _check_files
from nas.engine.local import Local
from nas.engine.open import open_engine
from nas.engine.protocol import Engine
from nas.errors import EngineError
from nas.networks.blocks import SuperBlock
from nas.networks.segmenter import Head, teacher
from nas.nsr import evaluate
from nas.quant.scheme import DEFAULT
from nas.space import Block, SearchSpace
from nas.table import Table
from nas.training.distil import supernets
from nas.training.threads import one_thread
from tests.deploy.tiny_experiment import SUBNETS, arguments, finished_run, run, start, write_experiment

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 12, 2, 1), Block(1, 16, 3, 1)), kernels=(3, 5), expansions=(2, 3), bits=(4, 8)
)


@dataclass(frozen=True)
class Mortal(Population):
    """Its first worker to come to the sub-tree `fatal` is killed there."""

    fatal: str = ""

    def __call__(self, sub_tree: SubTree) -> dict:
        if str(sub_tree) == self.fatal and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sub_tree)


def populated(folder: Path, engine: Engine, fatal: str = "") -> tuple[dict, dict[str, bytes]]:
    """Every NSR, and every file but the inputs."""
    torch.manual_seed(0)
    task = Mortal(SPACE, DEFAULT, folder, "key", fatal)
    blocks = [block for block in supernets(SPACE) if isinstance(block, SuperBlock)]
    images = torch.randn(9, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    task.prepare(teacher(SPACE, 4, Head(8, (2,))).eval(), blocks, images[:5].split(2), images[5:].split(3))
    found = {}
    for sub_tree, nsrs in engine.each(task, sub_trees(SPACE, ())):
        _check_files(folder, sub_tree)
        found |= nsrs
    shutil.rmtree(task.inputs)
    return found, {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "killed"}


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> tuple[dict, dict[str, bytes]]:
    return populated(tmp_path_factory.mktemp("serial"), Local(1))


def test_sub_trees_are_all_subnets_once_the_largest_first(serial):
    trees = sub_trees(SPACE, ())
    assert [str(tree) for tree in trees] == [f"b{b}_{choice}" for b in (2, 1) for choice in SPACE.choices]
    assert sorted(s for tree in trees for s in tree.subnets) == sorted(SPACE.all_subnets())
    done = {subnet for subnet in SPACE.subnets(2) if subnet.choices[0] == SPACE.choices[1]}
    done.add(next(SPACE.subnets(1)))
    left = sub_trees(SPACE, done)
    assert [str(tree) for tree in left] == [str(tree) for tree in trees if str(tree) != f"b2_{SPACE.choices[1]}"]
    assert {s for tree in left for s in tree.subnets} == set(SPACE.all_subnets()) - done
    assert serial[0].keys() == set(SPACE.all_subnets())
    assert len(serial[1]) == 2 * SPACE.count() + len(SPACE.blocks)


def test_maps_are_written_batch_by_batch_and_read_from_disk(tmp_path):
    torch.manual_seed(0)
    model, task = teacher(SPACE, 4, Head(8, (2,))).eval(), Population(SPACE, DEFAULT, tmp_path, "key")
    images = torch.randn(7, 3, 40, 56)
    blocks = [block for block in supernets(SPACE) if isinstance(block, SuperBlock)]
    task.prepare(model, blocks, images[:3].split(2), images.split(2))
    with one_thread():
        calibration, evaluation = (
            [torch.cat(maps) for maps in zip(*boundaries(model, part.split(2)), strict=True)]
            for part in (images[:3], images)
        )
    for block, supernet in enumerate(blocks, start=1):
        data = task.data(block)
        assert torch.equal(data.x_calibration, calibration[block - 1])
        assert torch.equal(data.x_evaluation, evaluation[block - 1]) and torch.equal(data.target, evaluation[block])
        wanted = list(SPACE.subnets(block))[::7]
        with one_thread():
            direct = {judged.subnet: judged.noise for judged in evaluate(supernet, data, wanted)}
        assert task(SubTree(block, SPACE.choices[0], tuple(wanted))) == direct
    assert isinstance(np.load(task.inputs / "evaluation0.npy", mmap_mode="r"), np.memmap)


def test_processes_with_one_killed_give_the_same_bit_for_bit(serial, tmp_path):
    assert populated(tmp_path, Local(2), fatal="b2_k5e2") == serial
    assert (tmp_path / "killed").exists()


@pytest.mark.ray
def test_a_ray_cluster_with_a_worker_killed_gives_the_same_bit_for_bit(serial, tmp_path):
    pytest.importorskip("ray", reason="needs the extra: pip install 'hilnas[ray]'")
    assert populated(tmp_path, open_engine("ray", 2), fatal="b1_k3e3") == serial
    assert (tmp_path / "killed").exists()


def test_files_that_a_worker_wrote_elsewhere_are_missed(tmp_path):
    tree = sub_trees(SPACE, ())[0]
    with pytest.raises(EngineError, match=rf"{tmp_path}: a worker's {tree.subnets[0]}\.tflite is not here.*share"):
        _check_files(tmp_path, tree)


def test_two_workers_killed_in_the_middle_and_one_that_goes_on(tmp_path_factory, tmp_path):
    """As `hilnas lut nsr`, kill -9 once a sub-tree is in the journal, then on with another number of workers."""
    finished = finished_run(tmp_path_factory)
    folder, config = finished.copy(tmp_path / "runs"), write_experiment(tmp_path)
    shutil.rmtree(folder / "subnets")
    shutil.rmtree(folder / "tables")
    journal = folder / "subnets" / "nsr.jsonl"
    command = ["lut", "nsr", *arguments(config, tmp_path / "runs")]
    process = start([*command, "--workers", "2"], held=("tables", SUBNETS))
    while not (journal.exists() and journal.stat().st_size):
        assert process.process.poll() is None, process.said
        time.sleep(0.002)
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    kept = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in kept if line.endswith(b"\n")][: SUBNETS // 2]  # as if killed earlier
    journal.write_bytes(b"".join(kept) + b'{"subnet": "b2_k3')
    ended = run(*command)
    assert ended.returncode == 0 and ended.stderr.count(": starts") == 1, ended.stderr
    assert journal.read_bytes().startswith(b"".join(kept)) and journal.read_bytes().count(b"\n") == SUBNETS
    tables = (Table.load(path / "tables" / "nsr.parquet").entries for path in (folder, finished.folder))
    assert next(tables) == next(tables)
    theirs = {path.name: path.read_bytes() for path in (finished.folder / "subnets").glob("*.tflite")}
    assert {path.name: path.read_bytes() for path in (folder / "subnets").glob("*.tflite")} == theirs
    assert not (folder / "subnets" / "inputs").exists()
