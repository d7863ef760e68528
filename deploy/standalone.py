"""Commands that work outside a loop: single subnets with random weights, a bundle from a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from deploy.bundle import Contents, export
from deploy.compile import Artifact
from deploy.run import SUMMARY, read_json, write_atomically
from deploy.tflite.writer import write
from hil.errors import UsageError
from nas.blocks import SuperBlock
from nas.nsr import BlockData, Judged, golden_input, walk
from nas.space import Architecture, SearchSpace, Subnet


def block_size(space: SearchSpace, block: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the map that enters `block` when the image is `size`."""
    stride = 2
    for earlier in space.blocks[: block - 1]:
        stride *= earlier.stride
    return -(-size[0] // stride), -(-size[1] // stride)


def random_subnet(space: SearchSpace, subnet: Subnet, size: tuple[int, int], seed: int = 0) -> tuple[Judged, BlockData]:
    """A subnet with random weights, calibrated on noise, for an image of `size`; and the data it was judged on."""
    generator = torch.Generator().manual_seed(seed)
    height, width = block_size(space, subnet.block, size)
    spec = space.blocks[subnet.block - 1]
    x = torch.randn(2, space.input_channels(subnet.block), height, width, generator=generator)
    target = torch.randn(2, spec.channels, -(-height // spec.stride), -(-width // spec.stride), generator=generator)
    torch.manual_seed(seed)
    supernet = SuperBlock(space, subnet.block)
    data = BlockData(x, x, target)
    others = {s for s in space.subnets(subnet.block, subnet.bits) if s != subnet}
    (judged,) = walk(supernet, data, subnet.bits, done=others)
    return judged, data


def compile_subnets(space_file: Path, names: Sequence[str], size: tuple[int, int], out: Path) -> Iterator[Path]:
    """Write each named subnet, with its golden input and output, into `out`; yields the models' paths."""
    space = SearchSpace.load(space_file)
    subnets = [Subnet.parse(name) for name in names]
    for subnet in subnets:
        if not 1 <= subnet.block <= len(space.blocks) or subnet not in set(space.subnets(subnet.block)):
            raise UsageError(f"{subnet} is not in {space_file}: see its blocks, layers, choices and bits")
    for subnet in subnets:
        judged, data = random_subnet(space, subnet, size)
        target = Artifact.at(out, str(subnet))
        write_atomically(target.input, golden_input(data).tobytes())
        write_atomically(target.expected, judged.golden_output.tobytes())
        write_atomically(target.model, write(judged.graph, {"subnet": str(subnet), "weights": "random"}))
        yield target.model


def export_from_run(run: Path, model: str | None, out: Path) -> Path:
    """A bundle of one of a finished run's models, in `out`."""
    summary: dict[str, Any] = read_json(run / "summary.json", SUMMARY)
    name = model or summary["bundle"]["model"]
    by_name = {m["name"]: m for m in (summary["teacher"], *summary["models"])}
    if name not in by_name:
        raise UsageError(f"{run}: no model '{name}'; there are {', '.join(by_name)}")
    record, artifact = by_name[name], Artifact.at(run / "models", name)
    if not artifact.exists:
        raise UsageError(f"{artifact.model}: missing; run the loop again, it makes what is missing")
    chosen: dict[str, Any] = read_json(run / "bundle" / "preprocessing.json")
    labels = (run / "bundle" / "labels.txt").read_text(encoding="utf8").split("\n")[:-1]
    facts = {
        "subnet": record["subnet"],
        "data": summary["data"]["spec"],
        "mIoU (INT8, validation)": f"{record['miou_int8']:.2f} %",
        "size": f"{record['size_bits'] / 8000:.1f} kB of weights",
    }
    if record["subnet"] != "teacher":
        Architecture.parse(record["subnet"])
    measurement = {"latency_us": record["latency_us"], "conditions": summary["conditions"]}
    height, width = chosen["size"]
    return export(Contents(f"{summary['name']}-{name}", artifact, labels, (height, width), measurement, facts), out)
