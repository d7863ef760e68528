"""`hilnas init`: a project of one's own, with what the commands look for in the working directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import console
from deploy.cli.options import Commands, bind
from hil.errors import UsageError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """`config`: the configuration to start from, by name or path."""

    folder: Path
    config: str


def add(commands: Commands) -> None:
    """The command and its options."""
    init = commands.add_parser(
        "init",
        help="write a project: boards.toml, a configuration, a Makefile",
        description="Writes boards.toml, experiment.toml, a Makefile with the board targets, and .gitignore. A file "
        "that exists is never overwritten.",
    )
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    init.add_argument(
        "--config",
        default="demo-scenes",
        metavar="NAME",
        help="the configuration to start from, one that ships or your own (default %(default)s)",
    )
    bind(init, InitOptions, run)


def run(options: InitOptions) -> int:
    """Write the project; the exit code."""
    written = write_project(options.folder, options.config)
    console.say(f"{options.folder}: {', '.join(written)}; next: edit experiment.toml and boards.toml, then `make`")
    return 0


def write_project(folder: Path, configuration: str) -> list[str]:
    """Write the project's files; their names.

    A file is there as a whole or not at all, and a project that a kill left half written is completed. Raises
    `UsageError` before anything is written if that would replace a file.
    """
    from deploy.formats.files import write_atomically

    contents = _contents(_name(folder), configuration)
    kept = [name for name in contents if os.path.lexists(folder / name)]
    changed = [name for name in kept if not _holds(folder / name, contents[name])]
    if changed or len(kept) == len(contents):
        raise UsageError(f"{folder / (changed or kept)[0]}: exists already; name another folder, or move it away")
    missing = [name for name in contents if name not in kept]
    for name in missing:
        write_atomically(folder / name, contents[name])
    return missing


def _contents(name: str, configuration: str) -> Mapping[str, str]:
    """The files of a project called `name`, by their names."""
    from deploy.run.shipped import CONFIGURATIONS

    experiment = CONFIGURATIONS.find(configuration).read_text(encoding="utf8")
    makefile = (TEMPLATES / "Makefile").read_text(encoding="utf8")
    return {
        "boards.toml": (TEMPLATES / "boards.toml").read_text(encoding="utf8"),
        "experiment.toml": re.sub(r'(?m)^name = ".*"$', f'name = "{name}"', experiment, count=1),
        ".gitignore": (TEMPLATES / "gitignore").read_text(encoding="utf8"),
        "Makefile": makefile.replace("@NAME@", name),
    }


def _name(folder: Path) -> str:
    """The folder's, as a run's folder, a Makefile and TOML can take it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().resolve().name).strip("-") or "project"


def _holds(path: Path, content: str) -> bool:
    return path.is_file() and path.read_bytes() == content.encode()
