"""Keras and SavedModel networks as float nodes, through the float .tflite that TensorFlow's converter makes of them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.formats.importers.network import ImportedNetwork, Sizes, static
from deploy.formats.importers.tflite import imported
from hil.errors import HilError, ModelError, UsageError
from hil.input_shape import InputShape

SUFFIXES = (".keras", ".h5", ".hdf5")
SAVED_MODEL = "saved_model.pb"


def import_keras(
    path: Path, shapes: Sequence[InputShape] = (), outputs: Sequence[str] = (), start: str = ""
) -> ImportedNetwork:
    """The network in a .keras or .h5 file or in a SavedModel's folder.

    `shapes` gives the input the sizes that it leaves open, `outputs` and `start` cut the network at tensors of the
    converted file.
    Raises `UsageError` where TensorFlow is not installed, `ModelError` for what it does not load or convert, and as
    `deploy.formats.importers.tflite` does.
    """
    try:
        import tensorflow as tf
    except ImportError:
        raise UsageError(f"{path}: reading Keras needs TensorFlow: pip install 'hilnas[tensorflow]'") from None
    call, inputs = _attempt(path, "load", lambda: (_saved_model if path.is_dir() else _model)(tf, path))
    if len(inputs) != 1:
        raise ModelError(f"{path}: {len(inputs)} inputs ({', '.join(inputs)}): networks with one input are supported")
    ((name, sizes),) = inputs.items()
    shape = static(str(path), name, sizes, {entry.name: entry.shape for entry in shapes})
    return imported(_attempt(path, "convert", lambda: _converted(tf, call, shape)), str(path), outputs, start)


def _model(tf: Any, path: Path) -> tuple[Callable[[Any], Any], dict[str, Sizes]]:
    """What runs a Keras model, and its inputs."""

    class DepthwiseConv2D(tf.keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        """Keras 2 wrote groups=1, which Keras 3 does not know."""

        def __init__(self, *, groups: int = 1, **config: Any) -> None:  # noqa: ARG002
            super().__init__(**config)

    objects = {"DepthwiseConv2D": DepthwiseConv2D}
    model = tf.keras.models.load_model(path, custom_objects=objects, compile=False)
    return lambda x: model(x, training=False), {tensor.name: tuple(tensor.shape) for tensor in model.inputs}


def _saved_model(tf: Any, path: Path) -> tuple[Callable[[Any], Any], dict[str, Sizes]]:
    """What runs a SavedModel by its serving signature, and its inputs."""
    loaded = tf.saved_model.load(str(path))  # its variables go with it
    served = loaded.signatures["serving_default"]
    specs = served.structured_input_signature[1]
    (name, *_) = specs

    def call(x: Any, _owner: Any = loaded) -> Any:
        return served(**{name: x})

    return call, {name: tuple(spec.shape) for name, spec in specs.items()}


def _converted(tf: Any, call: Callable[[Any], Any], shape: tuple[int, ...]) -> bytes:
    """Of a static shape: with an open batch, shapes are computed in the network."""
    traced = tf.function(call, input_signature=[tf.TensorSpec(shape, tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], traced)
    content: bytes = converter.convert()
    return content


def _attempt(path: Path, what: str, work: Callable[[], Any]) -> Any:
    """What `work` gives; TensorFlow raises anything and prints at length."""
    try:
        with _silence():
            return work()
    except HilError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = lines[-1].strip() if lines[0].endswith(":") else lines[0]
        raise ModelError(
            f"{path}: TensorFlow does not {what} it ({type(error).__name__}: {reason[:200]}); "
            "save it again as .keras with the version that is installed here, or convert it to a float .tflite"
        ) from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The converter reports its progress on both streams."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
