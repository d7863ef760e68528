"""From torch: a module is exported to ONNX, imported and quantized."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.importers.torch import import_torch
from deploy.quantize.calibration_arrays import examples_of
from deploy.quantize.float_outputs import TRIED, check_float_outputs, check_sizes
from deploy.quantize.quantized import PER_CHANNEL, Quantized, quantize
from hil.errors import UsageError


def quantize_model(
    model: nn.Module, example: Tensor, images: Tensor | Iterable[Tensor], scheme: QuantizationScheme = PER_CHANNEL
) -> Quantized:
    """`model` in integers, calibrated on `images`; `Quantized.save` writes its files.

    Args:
        model: with one input; it is exported as in evaluation.
        example: an input (1, ...), which fixes the shape.
        images: (N, ...) as the model reads them, or batches of such.

    Raises `UsageError` for images of another shape, `ModelError` and `QuantizationError` naming what torch does not
    export, and what cannot be imported or quantized.
    """
    network = import_torch(model, example)
    check_sizes(network)
    batches = [images] if isinstance(images, Tensor) else images
    arrays = [
        np.stack(examples_of(batch.detach().cpu().numpy(), network.input, f"calibration batch {i}"))
        for i, batch in enumerate(batches)
    ]
    if not arrays:
        raise UsageError("no calibration batch: give at least one")
    check_float_outputs(network, arrays[0][:TRIED])
    return quantize(network, arrays, scheme)
