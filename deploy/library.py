"""Every subnet of a space as a file: in parallel, resumable, one flat folder with an index.

The weights are random: such a library times an idea on a board before anything is trained. A run compiles its trained
subnets itself (deploy/stages/tables.py). Files are named by their sha256, `index.jsonl` names the subnet of each;
a sub-tree (block, bits, first layer's choice) is in the index when all of it is on disk.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from deploy.run import write_atomically
from deploy.standalone import block_size
from deploy.tflite.writer import write
from hil.errors import UsageError
from nas.blocks import SuperBlock
from nas.quant.float_graph import INPUT, fold_mbconv, run
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator
from nas.quant.lower import lower_nodes, parameters_of
from nas.quant.ranges import activation_parameters, observe
from nas.space import Choice, SearchSpace, Subnet

CALIBRATION_SIZE = (8, 8)  # ranges of random weights do not depend on the map's size
INDEX = "index.jsonl"


@dataclass(frozen=True)
class Branch:
    """A sub-tree of one block: everything whose first layer is `first`."""

    block: int
    bits: int
    first: Choice

    def __str__(self) -> str:
        return f"b{self.block}_{self.first}_w{self.bits}"


@dataclass(frozen=True, eq=False)
class _Prefix:
    choices: tuple[Choice, ...]
    name: str
    x: Tensor
    tensors: dict[str, IntTensor]
    operators: tuple[Operator, ...]


@cache
def _supernet(space: SearchSpace, block: int) -> SuperBlock:
    torch.set_num_threads(1)
    torch.manual_seed(block)
    return SuperBlock(space, block).eval()


def _extend(space: SearchSpace, branch: Branch, prefix: _Prefix, choice: Choice) -> _Prefix:
    depth = len(prefix.choices)
    layer = _supernet(space, branch.block).layer(depth, choice)
    nodes = fold_mbconv(layer, f"b{branch.block}/{depth}", prefix.name, branch.bits)
    env = {prefix.name: prefix.x}
    x = run(nodes, env)
    tensors = dict(prefix.tensors)
    ranges = {node.name: observe(env[node.name], node.name) for node in nodes}
    operators = (*prefix.operators, *lower_nodes(nodes, tensors, parameters_of(ranges)))
    return _Prefix((*prefix.choices, choice), nodes[-1].name, x, tensors, operators)


def _descend(space: SearchSpace, branch: Branch, prefix: _Prefix) -> Iterator[tuple[Subnet, IntegerGraph]]:
    depth = len(prefix.choices)
    if depth == space.blocks[branch.block - 1].layers:
        yield Subnet(branch.block, prefix.choices, branch.bits), IntegerGraph(prefix.tensors, prefix.operators, INPUT)
        return
    for choice in space.choices if depth else (branch.first,):
        yield from _descend(space, branch, _extend(space, branch, prefix, choice))


def write_branch(space: SearchSpace, branch: Branch, size: tuple[int, int], out: Path) -> list[dict[str, object]]:
    """Compile one sub-tree into `out`; a row for each subnet. A file that is there already is kept."""
    channels = space.input_channels(branch.block)
    x = torch.randn(1, channels, *CALIBRATION_SIZE, generator=torch.Generator().manual_seed(0))
    shape = (*block_size(space, branch.block, size), channels)
    source = IntTensor(INPUT, shape, *activation_parameters(*observe(x, INPUT)))
    rows = []
    for subnet, graph in _descend(space, branch, _Prefix((), INPUT, x, {INPUT: source}, ())):
        content = write(graph, {"weights": "random", "requested_bits": branch.bits, "space": space.digest})
        name = hashlib.sha256(content).hexdigest()
        if not (out / f"{name}.tflite").exists():
            write_atomically(out / f"{name}.tflite", content, durable=False)
        rows.append(
            {
                "subnet": str(subnet),
                "file": f"{name}.tflite",
                "bytes": len(content),
                "size_bits": graph.size_bits,
                "macs": graph.macs,
            }
        )
    return rows


def branches(space: SearchSpace) -> list[Branch]:
    """All sub-trees, the largest blocks first, so that the last ones to run are short."""
    found = [
        Branch(b, bits, choice)
        for b in range(1, len(space.blocks) + 1)
        for bits in space.bits
        for choice in space.choices
    ]
    return sorted(found, key=lambda branch: -space.blocks[branch.block - 1].layers)


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's to handle; a worker ends its sub-tree and then finds no other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_all(space: SearchSpace, size: tuple[int, int], out: Path, jobs: int) -> Iterator[tuple[int, int]]:
    """Compile every subnet with `jobs` processes; yields (subnets written, all). Goes on where it was stopped.

    Raises `UsageError` if `out` holds the library of another space or size.
    """
    out.mkdir(parents=True, exist_ok=True)
    key, index = f"{space.digest} {size[0]}x{size[1]}", out / INDEX
    lines = index.read_bytes().rpartition(b"\n")[0].splitlines() if index.exists() else []
    records = [json.loads(line) for line in lines]
    if records and records[0].get("library") != key:
        raise UsageError(f"{out}: holds the library of another space or size; give another --out")
    if not records:
        records = [{"library": key}]
    write_atomically(index, "".join(json.dumps(record) + "\n" for record in records))
    done = {record["branch"] for record in records[1:]}
    written = sum(len(record["subnets"]) for record in records[1:])
    yield written, space.count()
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts) as pool,
        index.open("a") as file,
    ):
        tasks = {pool.submit(write_branch, space, b, size, out): b for b in branches(space) if str(b) not in done}
        try:
            for task in as_completed(tasks):
                rows = task.result()
                file.write(json.dumps({"branch": str(tasks[task]), "subnets": rows}) + "\n")
                file.flush()
                written += len(rows)
                yield written, space.count()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
