"""Unpacks an upload into place, on boards whose userland has no tar or sha256sum (hil/stage.py).

The folder holds `batch.tar`; each of its files begins with its own sha256. All are verified before the first is renamed
into `objects`; the folder goes in any case. Exit code 3 for a file that is damaged. Needs Python 3.9 and its standard
library.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Sequence

BLOCK_BYTES = 1 << 20
DAMAGED = 3


def unpack(folder: str, objects: str) -> str:
    """The first file that is damaged; empty: none is, and all are in place. Raises OSError, tarfile.TarError."""
    new = os.path.join(folder, "new")
    shutil.rmtree(new, ignore_errors=True)  # what the shell's tar left
    os.mkdir(new)
    with tarfile.open(os.path.join(folder, "batch.tar")) as archive:
        members = [member for member in archive.getmembers() if member.name != "sums"]
        for member in members:
            source, digest = archive.extractfile(member), hashlib.sha256()
            if source is None or os.path.basename(member.name) != member.name:
                return member.name
            with open(os.path.join(new, member.name), "wb") as target:
                while True:
                    block = source.read(BLOCK_BYTES)
                    if not block:
                        break
                    digest.update(block)
                    target.write(block)
            if digest.hexdigest() != member.name[:64]:
                return member.name
    for member in members:
        os.replace(os.path.join(new, member.name), os.path.join(objects, member.name))
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    folder, objects = sys.argv[1:] if arguments is None else arguments
    try:
        damaged = unpack(folder, objects)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if damaged:
        print(f"the sha256 of {damaged} is another there", file=sys.stderr)
        return DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(main())
