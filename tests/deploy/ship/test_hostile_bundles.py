"""Hostile archives and manifests: one line of an error or a bundle, and nothing outside the folder.

HILNAS_HOSTILE=100000 is the whole of it; by default a few hundred.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from board_scripts import verify_bundle
from deploy.formats.printable import printable
from deploy.ship.archive import pack, unpack
from deploy.ship.contents import contents_text, described
from deploy.ship.manifest import Manifest
from deploy.ship.verification import checked
from hil.errors import HilError
from tests.deploy.ship.small_bundles import small_bundle

COUNT = int(os.environ.get("HILNAS_HOSTILE", "300"))
MEMORY = Path("/dev/shm")
NAMES = (
    "../up", "/abs", "a/../../b", "..", ".", "", "a", "a/b", "A", "manifest.json", "manifest.json/x", "golden", "a\\b",
    "C:x", "a\nb", "\x1b[31m", "é" * 200, "x" * 300, "\ud800", "nul\0nul", "model.tflite", "manifest.json.sig",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**70, 1.5, float("nan"), float("inf"), "", "x", "\x1b]0;x\x07", "\ud800", "a\0b", [], [[]],
    {}, {"": 1}, [1, [2, [3]]], {"input": 1}, "0" * 5000,
)  # fmt: skip
KINDS = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def hostile_manifest(rng: random.Random, manifest: dict[str, Any]) -> bytes:
    if rng.random() < 0.05:
        return b"[" * rng.choice((10, 5000, 200_000))
    changed = copy.deepcopy(manifest)
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(list(places(changed)))
        value = copy.deepcopy(rng.choice((*VALUES, *NAMES)))
        if isinstance(container, dict) and rng.random() < 0.4:
            container[rng.choice(NAMES)] = copy.deepcopy(container[key]) if rng.random() < 0.5 else value
        elif rng.random() < 0.2:
            del container[key]
        else:
            container[key] = value
    content = bytearray(json.dumps(changed).encode())
    if rng.random() < 0.2:
        mutate(rng, content)
    return bytes(content)


def mutate(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        content[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))


def archive_of(entries: list[tuple[str, bytes, bytes]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            packed.addfile(info, io.BytesIO(data))
    return content.getvalue()


def hostile_archive(rng: random.Random, whole: bytes, files: dict[str, bytes]) -> bytes:
    choice = rng.random()
    if choice < 0.4:  # the manifest is
        entries = dict(files, **{Manifest.FILE: hostile_manifest(rng, json.loads(files[Manifest.FILE]))})
        content = archive_of([(name, data, tarfile.REGTYPE) for name, data in entries.items()])
    elif choice < 0.7:  # the names and kinds are
        entries_too = [(rng.choice(NAMES), rng.randbytes(rng.randint(0, 30)), rng.choice(KINDS)) for _ in range(4)]
        kept = [(name, data, tarfile.REGTYPE) for name, data in files.items() if rng.random() < 0.8]
        try:
            content = archive_of(rng.sample(kept + entries_too, len(kept) + len(entries_too)))
        except (ValueError, UnicodeError):
            content = b""  # tarfile does not write such a name
    else:
        changed = bytearray(whole)
        mutate(rng, changed)
        content = bytes(changed)
    packed = gzip.compress(content, 1)
    return packed[: rng.choice((rng.randrange(len(packed)), rng.randrange(20)))] if rng.random() < 0.1 else packed


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a place: a hundred thousand bundles are no work for a disk."""
    made = MEMORY / f"hilnas-hostile-{os.getpid()}" if MEMORY.is_dir() else tmp_path / "hostile"
    made.mkdir()
    yield made
    shutil.rmtree(made)


def on_the_board(bundle: Path) -> list[dict[str, Any]]:
    """The verifier's records, up to the interpreter."""
    options = argparse.Namespace(runs=1, threads=1, delegate="/none", delegate_option=[])
    records = list(verify_bundle.verify(bundle.resolve(), options))
    assert json.dumps(records) and records[-1]["verified"] is False
    return records


def test_hostile_bundles(folder: Path, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    pack(bundle, tmp_path / "whole.bundle")
    whole = gzip.decompress((tmp_path / "whole.bundle").read_bytes())
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    source, inside = folder / "hostile.bundle", folder / "inside"
    refused, opened, reached = 0, 0, 0
    for number in range(COUNT):
        source.write_bytes(hostile_archive(random.Random(number), whole, files))
        try:
            out = unpack(source, inside / "bundle")
            opened += 1
            reached += on_the_board(out)[-2]["check"] == "model"
            checked(out, source)
            assert all(printable(line).isprintable() for line in contents_text(out)), number
            json.dumps(described(out))
        except (HilError, OSError) as error:  # a folder where a file is named: a line too (deploy/cli/exit.py)
            assert str(error).isprintable(), number
            refused += 1
        except Exception as error:
            error.add_note(f"hostile bundle {number}")
            raise
        assert {path.name for path in folder.iterdir()} <= {"hostile.bundle", "inside"}, number
        assert not any(path.is_symlink() for path in inside.rglob("*")), number
        shutil.rmtree(inside, ignore_errors=True)
    assert refused > COUNT / 2 and opened > COUNT / 4 and reached, (refused, opened, reached)
