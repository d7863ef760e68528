"""Our programs for the board: the package `board_scripts` as one file that Python runs, the same bytes each time."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from pathlib import Path

from hil.boards.config import BoardConfig

RUNNER = "runner.pyz"
PARTS = (
    "__init__.py",
    "timing.py",
    "neighbours.py",
    "interpret.py",
    "input_shapes.py",
    "passes.py",
    "benchmark.py",
    "workdir.py",
    "reserve.py",
    "kernel_log.py",
    "runner.py",
)
MAIN = "import sys\nfrom board_scripts.runner import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own; the archive is named by its content


def script_path(name: str) -> Path:
    """One of the files that run on boards alone."""
    return Path(str(resources.files("board_scripts") / name))


def runner_archive() -> bytes:
    """The runner and its parts, as `python3 runner.pyz` runs them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), MAIN)
        for name in PARTS:
            archive.writestr(_entry(f"board_scripts/{name}"), script_path(name).read_bytes())
    return packed.getvalue()


def inline(config: BoardConfig, name: str, *arguments: str) -> list[str]:
    """The command that runs a script without a file: its text is an argument, so that it runs on a full disk too."""
    environment = [f"{key}={value}" for key, value in config.env.items()]
    return ["env", *environment, config.python or "python3", "-c", script_path(name).read_text("utf-8"), *arguments]


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
