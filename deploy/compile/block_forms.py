"""The forms in which a block can be compiled and timed: isolated, after or between its neighbours, in a full model.

An isolated block pays for the graph's input and output (transposes, int8-uint8 copies, an activation that folds into
nothing), and a latency table's sum pays for them once per block. `bounded` minus its `boundary` leaves them out;
`exchanged` minus the full model is what a block changes where it will run. `preceded` has the whole block before it, or
the stem, so that what the two do to each other shows. The simulation is exact for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.networks.blocks import recalibrate
from nas.networks.segmenter import Head, student, teacher
from nas.quant import simulate, splice
from nas.quant.folding import fold_segmenter
from nas.quant.integer_graph import IntegerGraph
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.quant.scheme import Granularity
from nas.space import Architecture, SearchSpace

CALIBRATION_SIZE = (64, 64)  # ranges of random weights do not depend on the map's size
CLASSES = 19


@dataclass(frozen=True)
class BlockForm:
    """A way to compile a block.

    Attributes:
        compose: the graph to compile, from a subnet's graph and a full model's.
        reads: the name of the full model's tensor whose values that graph reads, for block number `block`.
    """

    compose: Callable[[IntegerGraph, IntegerGraph], IntegerGraph]
    reads: Callable[[IntegerGraph, int], str]

    def input(self, reference: IntegerGraph, block: int, image: Tensor) -> Tensor:
        """What the form reads when `reference` sees `image` (1, 3, H, W), in real values (1, C, h, w).

        With it, `deploy.compile.artifact.golden_pair` gives the form's golden input and output.
        """
        return values_at(reference, self.reads(reference, block), image)


def values_at(reference: IntegerGraph, name: str, image: Tensor) -> Tensor:
    """The real values (1, C, h, w) of a full model's tensor `name` when it sees `image` (1, 3, H, W)."""
    if name == reference.input:
        return image
    q = simulate.quantize(image, reference.tensors[reference.input])
    return simulate.dequantize(simulate.run(reference.until(name), q), reference.tensors[name])


FORMS: Mapping[str, BlockForm] = {
    "isolated": BlockForm(lambda subnet, _: subnet, splice.block_input),
    "bounded": BlockForm(splice.bounded, splice.boundary_input),
    "preceded": BlockForm(splice.preceded, lambda reference, block: splice.before_block(reference, block).input),
    "exchanged": BlockForm(splice.exchanged, lambda reference, _: reference.input),
}


def random_reference(
    space: SearchSpace,
    size: tuple[int, int],
    *,
    architecture: Architecture | None = None,
    head: Head = Head(),  # noqa: B008
    granularity: Granularity = "channel",
    seed: int = 0,
) -> IntegerGraph:
    """A full model (the teacher, if no `architecture` is given) with random weights, for images of `size`.

    Its ranges are those of noise at `CALIBRATION_SIZE`, so that a full-size graph takes a second.
    """
    torch.manual_seed(seed)
    model = student(space, architecture, CLASSES, head) if architecture else teacher(space, CLASSES, head)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)  # unshifted maps would leave the biases that read them zero
    noise = torch.randint(-128, 128, (4, 3, *CALIBRATION_SIZE)) / 128
    recalibrate(model, noise)
    model.eval()
    ranges = calibrate(fold_segmenter(model, CALIBRATION_SIZE, architecture), [noise])
    return lower(fold_segmenter(model, size, architecture), ranges, (*size, 3), granularity)
