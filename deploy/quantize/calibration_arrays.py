"""Calibration data in an .npz file: one array, by the name of the network's input, as the network reads it."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.formats.importers.network import ImportedNetwork, Value
from hil.errors import UsageError
from nas.quant.file_order import to_file_order

DAMAGED = (ValueError, EOFError, OSError, zipfile.BadZipFile, zipfile.LargeZipFile, MemoryError, NotImplementedError)


def arrays_in(path: Path, network: ImportedNetwork) -> Sequence[NDArray[np.float32]]:
    """The examples in `path`, in the deployed order of axes. Raises `UsageError` saying what is expected."""
    array = _read(path, network.input_name)
    return examples_of(array, network.input, f"{path}: array '{network.input_name}'")


def examples_of(array: NDArray[np.generic], value: Value, where: str) -> Sequence[NDArray[np.float32]]:
    """Those along the first axis of `array`, each as the input `value` is deployed. Raises as `arrays_in`."""
    wanted = _example_shape(value)
    if array.dtype != np.float32:
        raise UsageError(
            f"{where} holds {array.dtype}, the network reads float32: preprocess it as in training, and give "
            "array.astype(numpy.float32)"
        )
    if array.shape[1:] != wanted or not array.size:
        reads = _by(("N", *wanted))
        raise UsageError(f"{where} is {_by(array.shape)}, the network reads {reads}{_hint(array, wanted)}")
    return [_deployed(value, np.asarray(example, np.float32)) for example in array]


def _read(path: Path, name: str) -> NDArray[np.generic]:
    if not path.is_file():
        raise UsageError(f"--data {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            if name in names:
                found: NDArray[np.generic] = arrays[name]
                return found
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: not readable as arrays ({reason[:200]}): write it with {_savez(name)}") from None
    listed = ", ".join(f"'{other}'" for other in names[:5]) or "nothing"
    raise UsageError(f"{path}: holds {listed}, the network's input is '{name}': write it with {_savez(name)}")


def _savez(name: str) -> str:
    return f"numpy.savez(FILE, **{{'{name}': array}})"


def _example_shape(value: Value) -> tuple[int, ...]:
    """Of one example, without the batch."""
    return value.shape[1:] if value.shape[:1] == (1,) else value.shape


def _hint(array: NDArray[np.generic], wanted: tuple[int, ...]) -> str:
    if array.shape == wanted:
        return ": put the examples behind one another, numpy.stack([example, ...])"
    moved = Counter(array.shape[1:]) == Counter(wanted) and len(wanted) == 3
    if moved and array.shape[1:] == (*wanted[1:], wanted[0]):
        return ": its channels come last, array.transpose(0, 3, 1, 2)"
    if moved and array.shape[1:] == (wanted[-1], *wanted[:-1]):
        return ": its channels come first, array.transpose(0, 2, 3, 1)"
    return ""


def _deployed(value: Value, example: NDArray[np.float32]) -> NDArray[np.float32]:
    x = to_file_order(value.to_torch(example.reshape(value.shape)))
    return np.asarray(x.numpy().reshape(value.deployed_shape), np.float32)


def _by(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
