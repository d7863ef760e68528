"""Examples beside infer.py: one in C on TensorFlow Lite's C API, and a camera's pipeline in NNStreamer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.formats.files import write_atomically
from hil.scripts import script_path
from nas.quant.tails import Sizes

SOURCES = ("infer.c", "class_map.c", "class_map.h", "CMakeLists.txt")
CAMERA = "camera.sh"
CAMERA_SIZE = (640, 480)  # width and height, which USB and MIPI cameras have alike
PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -_")


def write_examples(
    bundle: Path, classes: Sequence[str], size: tuple[int, int], kind: str, *, dense: bool, left: Sizes | None
) -> None:
    """c/ and camera.sh; `kind`: the input's type, `left`: the resizes that the model's file leaves to the CPU."""
    (bundle / "c").mkdir()
    for name in SOURCES:
        (bundle / "c" / name).write_bytes(script_path(f"c/{name}").read_bytes())
    write_atomically(bundle / "c" / "model.h", model_header(classes, size, dense=dense, left=left))
    write_atomically(bundle / CAMERA, camera_pipeline(len(classes), size, kind, dense=dense, left=left))


def model_header(classes: Sequence[str], size: tuple[int, int], *, dense: bool, left: Sizes | None) -> str:
    """What infer.c knows of the model. A resize of [0, 0] stands for none, as C has no empty array."""
    sizes = left or ((0, 0),)
    return f"""/* Written for this bundle. */
#define MODEL "model.tflite"
#define HEIGHT {size[0]}
#define WIDTH {size[1]}
#define CLASSES {len(classes)}
#define DENSE {int(dense)} /* a class for each pixel */
#define SIZE_COUNT {len(left or ())}
static const int SIZES[][2] = {{{", ".join(f"{{{height}, {width}}}" for height, width in sizes)}}};
static const char *const LABELS[CLASSES] = {{{", ".join(map(c_string, classes))}}};
"""


def c_string(text: str) -> str:
    """Any text as a C literal: what is not plain by its octal number, so that no escape or trigraph is in it."""
    return '"' + "".join(chr(byte) if byte in PLAIN_BYTES else f"\\{byte:03o}" for byte in text.encode()) + '"'


def camera_pipeline(classes: int, size: tuple[int, int], kind: str, *, dense: bool, left: Sizes | None) -> str:
    height, width = size
    steps = [
        'v4l2src device="$CAMERA"',
        "video/x-raw,width={},height={}".format(*CAMERA_SIZE),
        f"imxvideoconvert_g2d ! video/x-raw,width={width},height={height},format=RGBA",
        "videoconvert ! video/x-raw,format=RGB",
        "tensor_converter",
    ]
    if kind == "int8":
        steps.append("tensor_transform mode=arithmetic option=typecast:int16,add:-128")
        steps.append("tensor_transform mode=typecast option=int8")
    steps.append(
        'tensor_filter framework=tensorflow-lite model=model.tflite custom="Delegate:External,ExtDelegateLib:$DELEGATE"'
    )
    if not dense:
        steps += [
            "tensor_decoder mode=image_labeling option1=labels.txt",
            "textoverlay ! fakesink dump=true",
        ]
    elif left is None:
        steps += [
            "tensor_transform mode=typecast option=float32",
            f"tensor_decoder mode=image_segment option1=snpe-deeplab option2={classes}",
            "videoconvert ! autovideosink sync=false",
        ]
    else:
        steps += ["tensor_sink"]
    return f"""#!/bin/sh
# A camera on the i.MX8M Plus through the model, by GStreamer and NNStreamer. UNTRIED: no board has run this line yet.
# CAMERA and DELEGATE may be set before.{_logits_note(left)}
cd "$(dirname "$0")" || exit
CAMERA="${{CAMERA:-/dev/video0}}"
DELEGATE="${{DELEGATE:-libvx_delegate.so}}"
exec gst-launch-1.0 {(" ! " + chr(92) + chr(10) + "  ").join(steps)}
"""


def _logits_note(left: Sizes | None) -> str:
    if left is None:
        return ""
    return "\n# The file ends in logits: take them from tensor_sink, and make the class map as c/class_map.c does."
