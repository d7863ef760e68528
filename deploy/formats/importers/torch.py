"""Torch networks as float nodes, through the ONNX that torch's exporter makes of them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.importers.onnx import imported
from deploy.formats.importers.onnx_graph import parse
from hil.errors import ModelError
from nas.quant.float_graph import INPUT


def import_torch(model: torch.nn.Module, example: Tensor) -> ImportedNetwork:
    """`model` as it is evaluated, of an input shaped as `example`: one image (1, C, H, W).

    Raises `ModelError` where torch cannot export it, and as `deploy.formats.importers.onnx` does.
    """
    name = type(model).__name__
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(model, example, path)
        return imported(parse(path.read_bytes(), f"torch {name}", path.parent), f"torch {name}", {})


def _export(model: torch.nn.Module, example: Tensor, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the other exporter needs one package more, and says so
            torch.onnx.export(model, (example,), path, input_names=[INPUT], dynamo=False)
    except Exception as error:  # whatever the network's own code raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{type(model).__name__}: torch does not export it ({type(error).__name__}: {reason[:200]}); "
            "see that it runs on the example, and leave out what depends on values"
        ) from None
