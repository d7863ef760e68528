"""Files as the kit writes and reads them: whole or not at all, and JSON that is a record or one clear error."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hil.errors import UsageError


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write aside, flush to disk (if durable), then rename: readers see the old file or the new one."""
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
        error.filename = error.filename or str(path)  # and does not say where
        raise
    part.replace(path)


def write_json(path: Path, record: Any) -> None:
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, keys: Collection[str] = ()) -> Any:
    """A JSON file's record, an object with `keys`; `UsageError` if it is missing or not whole."""
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; run the stage that makes it (`make demo` runs all)") from None
    except ValueError as error:
        raise UsageError(f"{path}: not readable as JSON ({error}); delete it and run again") from None
    if not isinstance(record, dict) or not set(keys) <= record.keys():
        raise UsageError(f"{path}: not a record of this kit; delete it and run again")
    return record
