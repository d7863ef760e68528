"""Files are written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes | memoryview, *, durable: bool = True) -> None:
    """Write aside, flush to disk (if durable), then rename: readers see the old file or the new one.

    The folder is created if it is missing. Raises OSError with the file's name, where a full disk gives none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)  # a full disk needs its room back
        error.filename = error.filename or str(path)
        raise
    part.replace(path)
