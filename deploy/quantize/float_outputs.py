"""Whether a float network computes something: numbers, and outputs that depend on its input."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.importers.network import ImportedNetwork
from hil.errors import ModelError
from nas.quant.file_order import from_file_order
from nas.quant.float_graph import INPUT, stepwise


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
