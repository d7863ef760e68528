"""Whether a float network can be run, and computes something: numbers, and outputs that depend on its input."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.importers.network import ImportedNetwork
from hil.errors import ModelError
from nas.quant.file_order import from_file_order
from nas.quant.float_graph import INPUT, inputs_of, stepwise
from nas.quant.shapes import Shape, output_shape

TRIED = 4  # examples are enough to see it
MOST_ELEMENTS = 1 << 26  # of one tensor, and sixteen images are run at once: 4 GB


@torch.no_grad()
def check_float_outputs(network: ImportedNetwork, examples: NDArray[np.float32]) -> None:
    """Run `network` on `examples` (N, ...), in the deployed order of axes.

    Raises `ModelError` naming the first operator that gives NaN or infinity, and an output that is alike for all
    examples, of which two at least differ.
    """
    ends = {value.tensor: name for name, value in network.outputs.items()}
    differ = bool((examples != examples[:1]).any())
    for node, y in stepwise(network.nodes, {INPUT: from_file_order(torch.from_numpy(examples))}):
        if not y.isfinite().all():
            raise ModelError(
                f"'{node.name}' ({type(node).__name__}) gives NaN or infinity on the calibration data: its weights are "
                "no numbers, or the data is not what the network was trained on"
            )
        if node.name in ends and differ and bool((y == y[:1]).all()):
            raise ModelError(
                f"output '{ends[node.name]}' is constant: it is the same for all examples; leave it out, give the "
                "others with --outputs, or train the network again"
            )


def check_sizes(network: ImportedNetwork) -> None:
    """`ModelError` naming a tensor that is too large; a file of a few bytes may name any size."""
    _check_size("the input", network.input.deployed_shape)
    shape = network.input.deployed_shape
    shapes: dict[str, Shape] = {INPUT: (1, 1, *shape) if len(shape) == 1 else shape}
    for node in network.nodes:
        shapes[node.name] = output_shape(node, [shapes[name] for name in inputs_of(node)])
        _check_size(f"'{node.name}' ({type(node).__name__})", shapes[node.name])


def _check_size(what: str, shape: Shape) -> None:
    if prod(shape) > MOST_ELEMENTS:
        raise ModelError(
            f"{what} has {prod(shape)} elements, more than {MOST_ELEMENTS}: give a smaller --input-shape, or export "
            "the network again"
        )
