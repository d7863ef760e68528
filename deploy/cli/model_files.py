"""Model files as commands take them: what a board cannot run, or would run at another size, is refused here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Parser
from hil.errors import ModelError, UsageError

if TYPE_CHECKING:
    from hil.boards.config import BoardConfig
    from hil.input_shape import InputShape

BEGINNING = 1024


def add_input_shapes(parser: Parser) -> None:
    """Field `input_shapes` of the record: texts."""
    parser.add_argument(
        "--input-shape",
        dest="input_shapes",
        action="append",
        default=[],
        metavar="NAME=1x224x224x3",
        help="sizes of the input NAME, where the file leaves them open or others are wanted; once for each input",
    )


def parse_input_shapes(texts: Iterable[str]) -> tuple[InputShape, ...]:
    """Raises `UsageError`."""
    from hil.input_shape import InputShape

    return tuple(InputShape.parse(text) for text in texts)


def measurable(
    paths: Sequence[Path], input_shapes: Sequence[str], configs: Sequence[BoardConfig]
) -> list[tuple[InputShape, ...]]:
    """The input shapes of each model, as `hil.job.Job` takes them.

    Raises `ModelError` for a file that is no model, or one for another NPU than the boards'; `UsageError` for inputs
    without a size.
    """
    from deploy.formats.tflite import input_shapes as shapes
    from deploy.formats.tflite.precompiled import compiled_for
    from deploy.formats.tflite.read import read

    given, models = parse_input_shapes(input_shapes), [read(path) for path in paths]
    shapes.check_names(given, models)
    found = []
    for path, model in zip(paths, models, strict=True):
        found.append(shapes.input_shapes(model, given, str(path)))
        compiled, plain = compiled_for(model), [c.name for c in configs if not c.delegate and c.kind != "replay"]
        if compiled and plain:
            raise ModelError(f"{path}: {compiled}, and board {plain[0]} has no delegate; {compiled.advice}")
        if model.other_signatures:
            names = ", ".join(model.other_signatures)
            console.warn(f"{path}: only its first subgraph is run, without the signatures {names}")
    return found


def check_golden_pair(paths: Iterable[Path]) -> None:
    """Raises `UsageError` for a pointer in place of a file's bytes, which a golden pair is as often as a model."""
    from deploy.formats.wrong_text import pointer, text_of

    for path in paths:
        with path.open("rb") as file:
            text = text_of(file.read(BEGINNING))
        if text and (found := pointer(text)):
            raise UsageError(f"{path}: {found[0]}, not the bytes of a golden pair; {found[1]}")
