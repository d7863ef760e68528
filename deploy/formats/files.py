"""Files as the kit writes and reads them: whole or not at all, and JSON that is a record or one clear error."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hil.errors import UsageError
from nas.atomic import write_atomically

__all__ = ["read_json", "write_atomically", "write_json"]


def write_json(path: Path, record: Any) -> None:
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, keys: Collection[str] = ()) -> Any:
    """A JSON file's record, an object with `keys`; `UsageError` if it is missing or not whole."""
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; run the stage that makes it (`make demo` runs all)") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as JSON ({error}); delete it and run again") from None
    if not isinstance(record, dict) or not set(keys) <= record.keys():
        raise UsageError(f"{path}: not a record of this kit; delete it and run again")
    return record
