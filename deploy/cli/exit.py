"""How a command ends: its exit code, and one line on stderr where something is wrong."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

INTERRUPTED = 130


def ended(name: str, command: Callable[[], int]) -> int:
    """Run `command`; its exit code. An error is one line on stderr, `name: what is wrong, what to do`, no traceback."""
    from hil.errors import HilError
    from nas.errors import NasError

    try:
        return command()
    except (HilError, NasError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted; what was finished is kept, run the same command to go on", file=sys.stderr)
        gc.freeze()  # or the interpreter ends by searching all of torch for garbage: up to a second
        return INTERRUPTED
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {where}{error.strerror or error}; make room or fix the path, then run again", file=sys.stderr)
        return 2
