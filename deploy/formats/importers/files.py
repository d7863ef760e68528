"""Which importer reads a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.formats.importers import keras, onnx, tflite
from deploy.formats.importers.network import ImportedNetwork
from hil.errors import UsageError
from hil.input_shape import InputShape


def import_network(
    path: Path, shapes: Sequence[InputShape] = (), outputs: Sequence[str] = (), start: str = ""
) -> ImportedNetwork:
    """The float network in `path`: .onnx, .tflite, .keras, .h5 or the folder of a SavedModel.

    `shapes` gives an input the sizes that its file leaves open, `outputs` names the tensors at which it is cut, `start`
    the one at which it begins, in place of the file's input. Raises `UsageError` for the call, `ModelError` for the
    file; both name what to do.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx.import_onnx(path, shapes, outputs, start)
    if suffix == ".tflite":
        return tflite.import_tflite(path, shapes, outputs, start)
    if suffix in keras.SUFFIXES or (path / keras.SAVED_MODEL).is_file():
        return keras.import_keras(path, shapes, outputs, start)
    raise UsageError(
        f"{path}: networks are read from .onnx, float .tflite, .keras, .h5 and the folder of a SavedModel; "
        "from torch: torch.onnx.export(model, example, 'model.onnx')"
    )
