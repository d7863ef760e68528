"""What a text is that was given as a TFLite model: a pointer to it, a page about it, a model written as text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence

MARK = b"TFL3"  # from a model's fifth byte on
SHOWN_CHARACTERS = 60
BLANKS = "\t\n\v\f\r"
PLAIN_SHARE = 0.9  # of a text's characters; the others may colour a terminal

LFS = re.compile(r"version https://(?:git-lfs|hawser)\.github\.com/spec/")
LFS_SIZE = re.compile(r"^size ([0-9]{1,15})\s*$", re.MULTILINE)
ARRAY = re.compile(r"\[\s*[A-Za-z0-9_]*\s*\][^={;]{0,200}=\s*\{((?:\s*(?:0[xX])?[0-9a-fA-F]{1,3}\s*,){8})")
DECLARED = re.compile(r"\bextern\b[^;]{0,200}\b(?:char|uint8_t)\b[^;]{0,200}\[[^;]{0,40}\]")
RESTORE_ARRAY = "`grep -o '0x[0-9a-fA-F][0-9a-fA-F]' FILE | cut -c3- | xxd -r -p > MODEL.tflite`"
HEX_DUMPS = {
    "xxd -r": re.compile("0+: [0-9a-f]{4} [0-9a-f]{4} 5446 4c33"),
    "xxd -r -p": re.compile("[0-9a-f]{8}54464c33"),
}
TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
ANSWER = re.compile(r"<(?:Code|Message)>([^<]{1,200})")

TAKE_THE_FILE = "download the file itself (on GitHub with 'Download raw file'), signed in where that is asked for"


def text_of(content: bytes, *, any_signs: bool = False) -> str | None:
    """`content` as text; None where it is none. Its last character may be cut; `any_signs`: control characters too."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16" or error.start + 4 <= len(content):
            return None
        text = content[: error.start].decode(encoding)
    plain = sum(sign.isprintable() or sign in BLANKS for sign in text)
    return text if text and (any_signs or plain >= PLAIN_SHARE * len(text)) else None


def printable(text: str) -> str:
    """The beginning of a text as it may be shown: a terminal obeys what is not printable."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[: 2 * SHOWN_CHARACTERS])
    shown = " ".join(shown.split())
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def wrong_text(text: str) -> tuple[str, str]:
    """What it is, and what to do about it."""
    text = text.strip()
    found = next((f for look in LOOKS if (f := look(text))), None)
    return found or (f"a text file ('{printable(text)}')", "give the path of a .tflite file")


def pointer(text: str) -> tuple[str, str] | None:
    """What stands for a file that is kept elsewhere, and how to fetch it."""
    if LFS.match(text):
        size = LFS_SIZE.search(text)
        what = f" to {size[1]} bytes" if size else ""
        fetch = "fetch the file: `git lfs pull` in its repository, or GitHub's 'Download raw file'"
        return f"a Git LFS pointer{what}", fetch
    if "/annex/objects/" in text[:400]:
        return "a git-annex pointer", "fetch the file: `git annex get FILE` in its repository"
    if re.search(r"^outs:", text, re.MULTILINE) and re.search(r"^\W*(?:md5|hash|path):", text, re.MULTILINE):
        return "a DVC pointer", "fetch the file: `dvc pull` in its repository, and give its path without .dvc"
    if "\n" not in text and (text.endswith(".tflite") or text.startswith(("http://", "https://"))):
        return f"a link or an address as text ('{printable(text)}')", "give the file that it names"
    return None


def _page(text: str) -> tuple[str, str] | None:
    start = text[:2048].lower()
    if not start.startswith("<"):
        return None
    title = TITLE.search(text)
    about = f" ('{printable(title[1])}')" if title else ""
    if "<!doctype html" in start or "<html" in start:
        return f"an HTML page{about}", TAKE_THE_FILE
    if "<net " in start:
        return "an OpenVINO model (.xml)", "give the .tflite of the model that it was made from"
    answer = ANSWER.search(text)
    about = f", a server's answer ('{printable(answer[1])}')" if answer else ""
    return f"an XML text{about}", TAKE_THE_FILE


def _json(text: str) -> tuple[str, str] | None:
    if text[:1] not in ("{", "["):
        return None
    if '"modelTopology"' in text:
        return "a TensorFlow.js model", "convert the Keras model or SavedModel that it was made from"
    if '"class_name"' in text and '"layers"' in text:
        return "a Keras model's architecture, without its weights", "give the model that it is of, as .tflite"
    return f"a JSON text ('{printable(text)}')", f"if it is a server's answer, {TAKE_THE_FILE}"


def _written_out(text: str) -> tuple[str, str] | None:
    """The bytes of a model in another notation."""
    if found := ARRAY.search(text):
        numbers = [number.strip() for number in found[1].split(",")[:8]]
        base = 16 if any(number[:2].lower() == "0x" for number in numbers) else 10
        if _bytes(numbers, base)[4:] == MARK:
            restore = f", or restore it: {RESTORE_ARRAY}" if base == 16 else ""
            source = f"give the .tflite that it was made from{restore}"
            return "a TFLite model as a C array, for TFLite Micro", source
        return "a C array", "give the path of a .tflite file"
    if DECLARED.search(text):
        return "a C header that only declares an array", "give the .tflite that the array was made from"
    for command, dump in HEX_DUMPS.items():
        if dump.match(text):
            return "a hex dump of a TFLite model", f"give the .tflite, or restore it: `{command} FILE > MODEL.tflite`"
    code = text.partition("base64,")[2] if text.startswith("data:") else text
    try:
        decoded = base64.b64decode(code[:16], validate=True)
    except (binascii.Error, ValueError):
        return None
    if decoded[4:8] != MARK:
        return None
    return "a TFLite model as base64 text", "decode it: `base64 -d FILE > MODEL.tflite`"


def _bytes(numbers: Sequence[str], base: int) -> bytes:
    try:
        return bytes(int(number, base) for number in numbers)
    except ValueError:  # no byte
        return b""


LOOKS: Sequence[Callable[[str], tuple[str, str] | None]] = (pointer, _page, _json, _written_out)
