"""Small networks with random weights, quantized, for the exactness tests."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from deploy.compile.artifact import quantize
from nas.networks.blocks import MBConv, recalibrate
from nas.networks.segmenter import Head, student
from nas.nsr import BlockData
from nas.quant import reference, simulate, splice
from nas.quant.float_graph import INPUT
from nas.quant.folding import fold_layers
from nas.quant.integer_graph import IntegerGraph, QConv, Weighted
from nas.quant.lower import lower
from nas.quant.ranges import calibrate, minmax
from nas.quant.scheme import Granularity, Scheme
from nas.space import SearchSpace, Subnet

REPOSITORY = Path(__file__).parents[2]
Module = TypeVar("Module", bound=torch.nn.Module)


def space(name: str) -> SearchSpace:
    return SearchSpace.load(REPOSITORY / f"nas/spaces/{name}.toml")


def interpret(content: bytes, q: NDArray[np.int8], kernels: OpResolverType = OpResolverType.AUTO) -> NDArray[np.int8]:
    """What LiteRT answers to one input (1, H, W, C), at its size."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], q.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], q)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def simulated(graph: IntegerGraph, q: torch.Tensor) -> NDArray[np.int8]:
    kind = np.int32 if graph.tensors[graph.output].dtype == "int32" else np.int8
    answer = simulate.as_nhwc(simulate.run(graph, q), kind)
    return answer[..., 0] if graph.tensors[graph.output].rank == 3 else answer


def referenced(graph: IntegerGraph, q: torch.Tensor) -> NDArray[np.int32]:
    """What the reference kernels should answer, shaped as `simulated`."""
    answer = simulate.as_nhwc(reference.run(graph, q), np.int32)
    return answer[..., 0] if graph.tensors[graph.output].rank == 3 else answer


def random_integers(graph: IntegerGraph, seed: int) -> torch.Tensor:
    """Any int8 input of `graph`, (1, C, H, W)."""
    height, width, channels = graph.tensors[graph.input].shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, (1, channels, height, width), generator=generator).float()


def quantized_subnet(
    of: SearchSpace, subnet: Subnet, size: tuple[int, int], granularity: Granularity = "channel", seed: int = 0
) -> IntegerGraph:
    """A subnet with random weights for an input map of `size`, whose ranges a small map of noise gave."""
    torch.manual_seed(seed)
    geometries = [of.layer_geometry(subnet.block, i) for i in range(len(subnet.choices))]
    layers = [MBConv(geometry, choice) for geometry, choice in zip(geometries, subnet.choices, strict=True)]
    network = trained_like(torch.nn.Sequential(*layers), seed).eval()
    x = torch.randn(4, of.input_channels(subnet.block), 12, 12) * 2
    recalibrate(network, x)
    nodes = fold_layers(layers, f"b{subnet.block}", INPUT, subnet.bits)
    ranges = calibrate(nodes, [x]) | {INPUT: minmax(x)}
    return lower(nodes, ranges, (*size, x.shape[1]), granularity)


def trained_like(supernet: Module, seed: int) -> Module:
    """Batch norms with scales and shifts as training leaves them: uneven, some channels nearly dead."""
    generator = torch.Generator().manual_seed(seed)
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) ** 2 * 2)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
    return supernet


def block_data(of: SearchSpace, block: int, size: tuple[int, int], seed: int = 0) -> BlockData:
    """Noise with the shapes of block number `block` for an input map of `size`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, of.input_channels(block), *size, generator=generator) * 2
    stride = of.blocks[block - 1].stride
    shape = (3, of.blocks[block - 1].channels, -(-size[0] // stride), -(-size[1] // stride))
    return BlockData(x, x.flip(0), torch.randn(shape, generator=generator))


def block_of(reference: IntegerGraph, block: int) -> IntegerGraph:
    """Block number `block` of a full graph, isolated: reads `INPUT`, as a subnet that is quantized separately does."""
    span, entry, _ = splice._boundaries(reference, block)
    source = replace(entry, name=INPUT)
    return splice._graph(source, splice._reading(reference.operators[span], entry, source), reference)


def widest_span(op: Weighted) -> int:
    """The most steps between the lowest and the highest integer of one output's weights."""
    axis = 3 if isinstance(op, QConv) and op.depthwise else 0
    rows = np.moveaxis(op.weight.astype(int), axis, 0).reshape(op.weight.shape[axis], -1)
    return int((rows.max(1) - rows.min(1)).max())


def small_segmenter_graph(
    size: tuple[int, int] = (32, 40), classes: int = 11, granularity: Granularity = "tensor"
) -> IntegerGraph:
    """A whole segmenter of the demo's space with random weights, as integers."""
    torch.manual_seed(0)
    demo = space("demo")
    model = student(demo, demo.sample(random.Random(0)), classes, Head(8, (2,))).eval()
    images = (torch.randint(0, 256, (2, 3, *size)).float() - 128) / 128
    recalibrate(model, images)
    return quantize(model, [images], size, scheme=Scheme(granularity))
