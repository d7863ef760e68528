"""A bundle as one file, and back: the same bytes for the same content, and nothing that leaves its folder.

A gzip'd tar (PAX) of regular files alone, sorted, without owners, times or modes, the manifest first. Reading trusts
nothing: names, kinds, sizes and their sum are checked before anything is written, and the folder appears whole or not
at all.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from deploy.formats.files import write_atomically
from deploy.formats.printable import printable
from deploy.ship.manifest import Manifest, is_inside
from deploy.ship.signatures import SIGNATURE
from hil.errors import ModelError, UsageError

SUFFIX = ".bundle"
MOST_FILES = 1000
MOST_BYTES = 2**30  # of all files together
COMPRESSION = 9
CHUNK = 1 << 20


def pack(bundle: Path, target: Path) -> None:
    """Write a bundle's folder as `target`. Raises `UsageError` for a folder that is no bundle, or holds a link."""
    if not (bundle / Manifest.FILE).is_file():
        raise UsageError(f"{bundle}: no bundle there (no {Manifest.FILE}); make one with `hilnas bundle export`")
    signature = [SIGNATURE] if (bundle / SIGNATURE).exists() else []
    listed = [Manifest.FILE, *signature, *sorted(Manifest.read(bundle / Manifest.FILE).files)]
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", compresslevel=COMPRESSION, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in listed:
            path = bundle / name
            if path.is_symlink() or not path.is_file():
                raise UsageError(f"{path}: not a file; a bundle has the files of its manifest, and no links")
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    write_atomically(target, content.getbuffer())


@contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """The folder of a bundle: itself, or a packed one's content in a folder that is gone afterwards."""
    if bundle.is_dir():
        yield bundle
        return
    with TemporaryDirectory(prefix="hilnas-bundle-") as folder:
        yield unpack(bundle, Path(folder) / "bundle")


def unpack(source: Path, target: Path) -> Path:
    """Write a packed bundle's files to the new folder `target`, and return it.

    Raises `UsageError` where `source` is no file, or `target` is there, and `ModelError` for a file that is no packed
    bundle: another kind of file, a damaged one, a name that leaves the folder, a link, too many or too large files.
    """
    if not source.is_file():
        raise UsageError(f"{source}: no bundle there (no manifest.json, nor a file that `hilnas bundle pack` wrote)")
    if target.exists():
        raise UsageError(f"{target}: exists already; give a new folder")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _extract(source, part)
        if not (part / Manifest.FILE).is_file():
            raise ModelError(f"{source}: no bundle (no {Manifest.FILE} in it)")
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _extract(source: Path, folder: Path) -> None:
    seen: set[str] = set()
    left = MOST_BYTES
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r|gz") as archive:
            for entry in archive:
                _check(entry, seen, left, source)
                seen.add(entry.name.casefold())
                left -= entry.size
                path = folder / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(entry)
                with path.open("xb") as written:
                    if content is None or _copied(content, written) != entry.size:
                        raise ModelError(
                            f"{source}: '{printable(entry.name)[:100]}' is cut short; copy the bundle again"
                        )
    except (tarfile.TarError, EOFError, OSError, ValueError, TypeError, zlib.error) as error:  # TypeError: of 3 bytes
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise ModelError(
                f"{source}: a file in it is the folder of another; it was not packed by this kit"
            ) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine's disk
        raise ModelError(f"{source}: not a packed bundle, or a damaged one ({error}); copy it again") from None


def _check(entry: tarfile.TarInfo, seen: set[str], left: int, source: Path) -> None:
    name = printable(entry.name)[:100]
    if not is_inside(entry.name):
        raise ModelError(f"{source}: '{name}' is no name inside a bundle; it was not packed by this kit")
    if not entry.isreg():
        raise ModelError(f"{source}: '{name}' is a link or no regular file; a bundle has none")
    if entry.name.casefold() in seen:
        raise ModelError(f"{source}: '{name}' is in it twice")
    if len(seen) >= MOST_FILES or entry.size > left:
        raise ModelError(
            f"{source}: more than {MOST_FILES} files, or than {MOST_BYTES >> 20} MiB; no bundle has so much"
        )


def _copied(source: IO[bytes], target: IO[bytes]) -> int:
    total = 0
    while chunk := source.read(CHUNK):
        target.write(chunk)
        total += len(chunk)
    return total
