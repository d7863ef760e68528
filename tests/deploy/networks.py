"""Small networks with random weights, quantized, for the exactness tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from nas.blocks import SuperBlock
from nas.nsr import BlockData
from nas.quant import simulate
from nas.quant.integer_graph import IntegerGraph
from nas.space import SearchSpace

REPOSITORY = Path(__file__).parents[2]


def space(name: str) -> SearchSpace:
    return SearchSpace.load(REPOSITORY / f"configs/spaces/{name}.toml")


def interpret(content: bytes, q: NDArray[np.int8], kernels: OpResolverType = OpResolverType.AUTO) -> NDArray[np.int8]:
    """What LiteRT answers to one input (1, H, W, C)."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], q)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def simulated(graph: IntegerGraph, q: torch.Tensor) -> NDArray[np.int8]:
    kind = np.int32 if graph.tensors[graph.output].dtype == "int32" else np.int8
    answer = simulate.as_nhwc(simulate.run(graph, q), kind)
    return answer[..., 0] if kind is np.int32 else answer


def trained_like(supernet: SuperBlock, seed: int) -> SuperBlock:
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
