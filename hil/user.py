"""Who runs us and where their home is, also where the system does not know: the bare user id of a container."""

from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

from hil.errors import UsageError


def user_name() -> str:
    """The name to be called by: the environment's, or else the account's, or "uid1234"."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no LOGNAME, no USER, no passwd entry
        return f"uid{os.getuid()}"


def account() -> str:
    """The name that this machine knows us by, whatever the environment says; empty for a bare user id."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def home() -> Path:
    """The home folder, or "/" without one, as container runtimes have it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def expanded(path: str | Path) -> Path:
    """The path with `~` filled in. Raises UsageError for the home of somebody who does not exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        first, *rest = Path(path).parts
        if first == "~":
            return home().joinpath(*rest)
        raise UsageError(f"{path}: there is no user {first[1:]} here: give the full path") from error
