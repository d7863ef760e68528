"""Examples beside infer.py: one in C on TensorFlow Lite's C API, and a camera's pipeline in NNStreamer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.ship.manifest import Preprocessing
from hil.errors import UsageError
from hil.scripts import script_path
from nas.quant.tails import Sizes

SOURCES = ("infer.c", "class_map.c", "class_map.h", "CMakeLists.txt")
CAMERA = "camera.sh"
FILTER = (
    'tensor_filter framework=tensorflow-lite model=model.tflite custom="Delegate:External,ExtDelegateLib:$DELEGATE"'
)
PLAIN = 128.0  # mean and standard deviation of the kit's own networks
CAMERA_SIZE = (640, 480)  # width and height, which USB and MIPI cameras have alike
PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -_")


def write_examples(
    bundle: Path, classes: Sequence[str], steps: Preprocessing, kind: str, *, dense: bool, left: Sizes | None
) -> None:
    """c/ and camera.sh; `kind`: the input's type, `left`: the resizes that the model's file leaves to the CPU."""
    (bundle / "c").mkdir()
    for name in SOURCES:
        (bundle / "c" / name).write_bytes(script_path(f"c/{name}").read_bytes())
    write_atomically(bundle / "c" / "model.h", model_header(classes, steps, dense=dense, left=left))
    write_atomically(bundle / CAMERA, camera_pipeline(len(classes), steps, kind, dense=dense, left=left))


def model_header(classes: Sequence[str], steps: Preprocessing, *, dense: bool, left: Sizes | None) -> str:
    """What infer.c knows of the model. A resize of [0, 0] stands for none."""
    sizes, (height, width), count = left or ((0, 0),), _size(steps), _channels(steps)
    mean, std = (", ".join(f"{n:.9g}f" if n % 1 else f"{n:.1f}f" for n in numbers) for numbers in _formula(steps))
    arrays = ""
    if classes:  # as C has no empty array
        resizes = ", ".join(f"{{{rows}, {columns}}}" for rows, columns in sizes)
        arrays = f"static const int SIZES[][2] = {{{resizes}}};\n"
        arrays += f"static const char *const LABELS[CLASSES] = {{{', '.join(map(c_string, classes))}}};\n"
    return f"""/* Written for this bundle. */
#define MODEL "model.tflite"
#define HEIGHT {height}
#define WIDTH {width}
#define CHANNELS {count}
#define BGR {int(steps.colours == "bgr")} /* the order of the channels */
static const float MEAN[CHANNELS] = {{{mean}}}, STD[CHANNELS] = {{{std}}};
#define CLASSES {len(classes)}
#define DENSE {int(dense)} /* a class for each pixel */
#define SIZE_COUNT {len(left or ())}
{arrays}"""


def _size(steps: Preprocessing) -> tuple[int, int]:
    if steps.size is None:
        raise UsageError("the examples in C and for a camera are of models whose input is an image")
    return steps.size


def _channels(steps: Preprocessing) -> int:
    return 1 if steps.colours == "grey" else 3


def _formula(steps: Preprocessing) -> tuple[tuple[float, ...], ...]:
    """(mean, std) of each channel."""
    given = (steps.mean or (PLAIN,), steps.std or (PLAIN,))
    return tuple(numbers * _channels(steps) if len(numbers) == 1 else numbers for numbers in given)


def c_string(text: str) -> str:
    """Any text as a C literal: what is not plain by its octal number, so that no escape or trigraph is in it."""
    return '"' + "".join(chr(byte) if byte in PLAIN_BYTES else f"\\{byte:03o}" for byte in text.encode()) + '"'


def camera_pipeline(classes: int, steps: Preprocessing, kind: str, *, dense: bool, left: Sizes | None) -> str:
    (height, width), pixels = _size(steps), {"bgr": "BGR", "grey": "GRAY8"}.get(steps.colours or "", "RGB")
    elements = [*_source(width, height, pixels), *_stored(steps, kind), FILTER]
    if not classes:
        elements.append("tensor_sink")
    elif not dense:
        elements += [
            "tensor_decoder mode=image_labeling option1=labels.txt",
            "textoverlay ! fakesink dump=true",
        ]
    elif left is None:
        elements += [
            "tensor_transform mode=typecast option=float32",
            f"tensor_decoder mode=image_segment option1=snpe-deeplab option2={classes}",
            "videoconvert ! autovideosink sync=false",
        ]
    else:
        elements.append("tensor_sink")
    return f"""#!/bin/sh
# A camera on the i.MX8M Plus through the model, by GStreamer and NNStreamer. UNTRIED: no board has run this line yet.
# CAMERA and DELEGATE may be set before.{_note(classes, steps, left)}
cd "$(dirname "$0")" || exit
CAMERA="${{CAMERA:-/dev/video0}}"
DELEGATE="${{DELEGATE:-libvx_delegate.so}}"
exec gst-launch-1.0 {(" ! " + chr(92) + chr(10) + "  ").join(elements)}
"""


def _source(width: int, height: int, pixels: str) -> list[str]:
    return [
        'v4l2src device="$CAMERA"',
        "video/x-raw,width={},height={}".format(*CAMERA_SIZE),
        f"imxvideoconvert_g2d ! video/x-raw,width={width},height={height},format=RGBA",
        f"videoconvert ! video/x-raw,format={pixels}",
        "tensor_converter",
    ]


def _stored(steps: Preprocessing, kind: str) -> list[str]:
    """From a pixel to what the model's input stores; rounded where the plain formula is not exact."""
    signed = [
        "tensor_transform mode=arithmetic option=typecast:int16,add:-128",
        "tensor_transform mode=typecast option=int8",
    ]
    if steps.mean is None:
        return signed if kind == "int8" else []
    shift = 128 if kind == "int8" else 0
    option = "typecast:float32,per-channel:true@0"
    for channel, (mean, std) in enumerate(zip(*_formula(steps), strict=True)):
        factor = 1 / (std * steps.scale)
        option += f",mul:{factor:.9g}@{channel},add:{steps.zero_point + shift - mean * factor + 0.5:.9g}@{channel}"
    levels = [
        f"tensor_transform mode=arithmetic option={option}",
        "tensor_transform mode=clamp option=0:255",
        "tensor_transform mode=typecast option=uint8",
    ]
    return levels + (signed if kind == "int8" else [])


def _note(classes: int, steps: Preprocessing, left: Sizes | None) -> str:
    notes = ""
    if steps.middle_of:
        notes += "\n# The whole picture is taken here, infer.py takes its middle."
    if not classes:
        notes += "\n# The outputs are no classes: take them from tensor_sink."
    elif left is not None:
        notes += (
            "\n# The file ends in logits: take them from tensor_sink, and make the class map as c/class_map.c does."
        )
    return notes
