"""What a path is that was given as a TFLite model and is no file: a directory, or a file that is elsewhere."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.wrong_file import QUANTIZE_SAVED_MODEL
from deploy.formats.wrong_text import printable

NO_MODEL = "not a TFLite file"


def wrong_directory(path: Path) -> str:
    """What a directory is and what to do: the message about it after its name."""
    models = sorted(path.glob("*.tflite"))
    if (path / "manifest.json").is_file() and (path / "model.tflite").is_file():
        return f"a bundle's directory, {NO_MODEL}; give {path / 'model.tflite'}, or `hilnas bundle verify {path}`"
    if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return f"the directory of a SavedModel, {NO_MODEL}; {QUANTIZE_SAVED_MODEL}"
    if any((path / "Data").glob("com.apple.CoreML")):
        return f"the directory of a Core ML package, {NO_MODEL}; give the .tflite of the model that it was made from"
    if not models and (path / "summary.json").is_file():
        models = sorted((path / "models").glob("*.tflite"))
    if models:
        which = f"one of its {len(models)} models, as {models[0]}" if len(models) > 1 else f"its model, {models[0]}"
        return f"a directory, {NO_MODEL}; give {which}"
    return f"a directory, {NO_MODEL}; give the path of a .tflite file"


def missing(path: Path) -> str:
    """What to do where no file is: the end of the message that says so."""
    if path.is_symlink():
        target = printable(str(path.readlink()))
        fetch = "`git annex get` fetches it" if "annex/objects" in target else "make or fetch that file"
        return f"it is a link to {target}, which is not there: {fetch}"
    if path.with_name(path.name + ".dvc").is_file():
        return "DVC keeps it: `dvc pull` fetches it"
    return "give the path of a .tflite file"
