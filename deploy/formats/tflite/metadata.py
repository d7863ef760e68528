"""A file's TFLite Metadata, which Netron, Android Studio and MediaPipe show: write it, and append the labels.

The schema is metadata_schema.fbs of tflite-support, identifier M001. Its associated files lie behind the flatbuffer as
an uncompressed zip, which readers find from the end of the file and the runtime never looks at. `normalization.py`
reads back what decides a model's input.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

from deploy.formats.tflite.normalization import (
    IDENTIFIER,
    INPUTS,
    MEAN,
    NORMALIZATION_OPTIONS,
    OPTIONS,
    OPTIONS_TYPE,
    PROCESS_UNITS,
    STD,
    SUBGRAPHS,
    Normalization,
)

LABELS = "labels.txt"
PARSER = "1.0.0"  # the version of the schema that has all that is written here
MODEL_NAME, MODEL_DESCRIPTION, MODEL_VERSION, MIN_PARSER_VERSION = 0, 1, 2, 7  # fields of ModelMetadata
OUTPUTS = 3  # of SubGraphMetadata
TENSOR_NAME, TENSOR_DESCRIPTION, CONTENT, ASSOCIATED_FILES = 0, 1, 3, 6  # of TensorMetadata
FILE_NAME, FILE_DESCRIPTION, FILE_TYPE = 0, 1, 2  # of AssociatedFile
AXIS_LABELS, VALUE_LABELS = 2, 3  # of AssociatedFileType
CONTENT_TYPE, CONTENT_PROPERTIES, IMAGE_PROPERTIES = 0, 1, 2  # of Content, and the union's second member
COLOUR_SPACE = 0
COLOUR_SPACES = {"bgr": 0, "rgb": 1, "grey": 2}  # the schema has none for the first: unknown
IMAGES = {"bgr": "An image of the channels blue, green and red", "rgb": "An RGB image", "grey": "A grey image"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same bytes for the same labels

Codes = schema.BuiltinOperator
MIN_RUNTIME = "min_runtime_version"
RUNTIME_BYTES = 16  # of that entry, padded with zeros
RUNTIMES: Mapping[tuple[int, int], tuple[int, int]] = {
    (Codes.CONV_2D, 7): (2, 11),
    (Codes.DEPTHWISE_CONV_2D, 7): (2, 11),
    (Codes.FULLY_CONNECTED, 12): (2, 17),
    (Codes.RESIZE_BILINEAR, 3): (2, 2),
    (Codes.RESIZE_NEAREST_NEIGHBOR, 3): (2, 3),
}
"""The first TensorFlow release whose runtime has an operator's version (runtime_version.cc); all others that the writer
emits are in `OLDEST`."""
OLDEST = (1, 14)


@dataclass(frozen=True)
class Description:
    """What a file says of itself.

    Attributes:
        text: what the model does, in one sentence.
        version: of this very model.
        classes: names of the classes, in their order; none: the outputs are no classes.
        normalization: from pixels to the input's real values; None: the input is no image.
        colours: of the image.
    """

    name: str
    text: str
    version: str
    classes: tuple[str, ...]
    normalization: Normalization | None
    colours: Literal["rgb", "bgr", "grey"] = "rgb"


class _Tables:
    """A flatbuffer under construction: tables by the numbers of their fields."""

    def __init__(self) -> None:
        self.builder: Any = flatbuffers.Builder(1024)

    def text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def floats(self, values: Sequence[float]) -> int:
        return int(self.builder.CreateNumpyVector(np.array(values, np.float32)))

    def tables(self, *offsets: int) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def table(self, references: Mapping[int, int], values: Mapping[int, int] | None = None) -> int:
        """`references` to what is written already, `values` of one byte."""
        numbers = dict(values or {})
        self.builder.StartObject(1 + max((*references, *numbers)))
        for field, offset in references.items():
            self.builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, value in numbers.items():
            self.builder.PrependInt8Slot(field, value, 0)
        return int(self.builder.EndObject())


def metadata(described: Description, *, scores: bool, names: Sequence[str]) -> bytes:
    """The flatbuffer under TFLITE_METADATA.

    `scores`: the output's last axis scores the classes, else it names them. `names`: of the file's input and outputs,
    for those that are no image and no classes.
    """
    made = _Tables()
    source, sinks = _source(made, described, names[0]), _sinks(made, described, names[1:], scores=scores)
    subgraph = made.table({INPUTS: made.tables(source), OUTPUTS: made.tables(*sinks)})
    root = made.table(
        {
            MODEL_NAME: made.text(described.name),
            MODEL_DESCRIPTION: made.text(described.text),
            MODEL_VERSION: made.text(described.version),
            SUBGRAPHS: made.tables(subgraph),
            MIN_PARSER_VERSION: made.text(PARSER),
        }
    )
    made.builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(made.builder.Output())


def _source(made: _Tables, described: Description, name: str) -> int:
    if described.normalization is None:
        return made.table({TENSOR_NAME: made.text(name)})
    image = made.table({}, {COLOUR_SPACE: COLOUR_SPACES[described.colours]})
    content = made.table({CONTENT_PROPERTIES: image}, {CONTENT_TYPE: IMAGE_PROPERTIES})
    formula = made.table(
        {MEAN: made.floats(described.normalization.mean), STD: made.floats(described.normalization.std)}
    )
    unit = made.table({OPTIONS: formula}, {OPTIONS_TYPE: NORMALIZATION_OPTIONS})
    return made.table(
        {
            TENSOR_NAME: made.text("image"),
            TENSOR_DESCRIPTION: made.text(
                f"{IMAGES[described.colours]}, resized bilinearly to the input's height and width."
            ),
            CONTENT: content,
            PROCESS_UNITS: made.tables(unit),
        }
    )


def _sinks(made: _Tables, described: Description, names: Sequence[str], *, scores: bool) -> list[int]:
    if not described.classes:
        return [made.table({TENSOR_NAME: made.text(name)}) for name in names]
    labels = made.table(
        {FILE_NAME: made.text(LABELS), FILE_DESCRIPTION: made.text("The classes, one per line.")},
        {FILE_TYPE: AXIS_LABELS if scores else VALUE_LABELS},
    )
    return [
        made.table(
            {
                TENSOR_NAME: made.text("scores" if scores else "classes"),
                TENSOR_DESCRIPTION: made.text("A score for each class." if scores else "The class of each pixel."),
                ASSOCIATED_FILES: made.tables(labels),
            }
        )
    ]


def min_runtime(operators: Sequence[tuple[int, int]]) -> bytes:
    """The entry under `MIN_RUNTIME` of a file with these (operator, version)."""
    major, minor = max((RUNTIMES.get(operator, OLDEST) for operator in operators), default=OLDEST)
    return f"{major}.{minor}.0".encode().ljust(RUNTIME_BYTES, b"\0")


def with_labels(content: bytes, classes: Sequence[str]) -> bytes:
    """A .tflite file with its labels, if there are any, behind it."""
    if not classes:
        return content
    packed = io.BytesIO(content)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, EPOCH), "".join(f"{name}\n" for name in classes))
    return packed.getvalue()
