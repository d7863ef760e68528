"""Our programs for the board: the package `board_scripts` as one file that Python runs, the same bytes each time."""

from __future__ import annotations

import io
import re
import zipfile
from importlib import resources
from pathlib import Path

from hil.boards.board import Board, CommandResult
from hil.boards.refusal import last_line
from hil.errors import BoardError

RUNNER = "runner.pyz"
PARTS = (
    "__init__.py",
    "timing.py",
    "neighbours.py",
    "interpret.py",
    "input_shapes.py",
    "image_bytes.py",
    "class_map.py",
    "passes.py",
    "benchmark.py",
    "workdir.py",
    "reserve.py",
    "kernel_log.py",
    "runner.py",
)
IMPORT = re.compile(r"^from board_scripts\.(\w+) import .*\n", re.MULTILINE)
FUTURE = "from __future__ import annotations\n"
PROGRAM = re.compile(r"\n\ndef main\(.*", re.DOTALL)
TOO_OLD = 79
# In the grammar of any Python, as an older one has to read it whole. What lies in the home is no module of ours.
FROM_STDIN = (
    "import sys; "
    'sys.version_info >= (3, 9) or (sys.stderr.write("Python %d.%d.%d" % sys.version_info[:3]), sys.exit(79)); '
    'sys.path[:1] == [""] and sys.path.pop(0); exec(compile(sys.stdin.buffer.read(), "NAME", "exec"))'
)
MAIN = "import sys\nfrom board_scripts.runner import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own; the archive is named by its content


def script_path(name: str) -> Path:
    """One of the files that run on boards alone."""
    return Path(str(resources.files("board_scripts") / name))


def script(name: str) -> bytes:
    """A script that runs alone: where it imports from another one of ours, that one's text stands instead.

    Of one that is a program itself, all but what makes it one.
    """

    def text(match: re.Match[str]) -> str:
        return PROGRAM.sub("", script_path(f"{match[1]}.py").read_text(encoding="utf8").replace(FUTURE, ""))

    return IMPORT.sub(text, script_path(name).read_text(encoding="utf8")).encode()


def runner_archive() -> bytes:
    """The runner and its parts, as `python3 runner.pyz` runs them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py"), MAIN)
        for name in PARTS:
            archive.writestr(_entry(f"board_scripts/{name}"), script_path(name).read_bytes())
    return packed.getvalue()


def run_script(board: Board, name: str, *arguments: str, timeout_s: float) -> CommandResult:
    """Runs a script without a file there, so that it runs on a full disk too, and of any length: over stdin.

    Raises BoardError where the board's Python is missing or too old; how the script ended is the caller's to read.
    """
    config = board.config
    environment = [f"{key}={value}" for key, value in config.env.items()]
    python = config.python or "python3"
    argv = ["env", *environment, python, "-c", FROM_STDIN.replace("NAME", name), *arguments]
    done = board.run(argv, timeout_s, script(name))
    said = last_line(done.stderr)
    if done.exit_code == TOO_OLD:
        raise BoardError(f"board {config.name}: {python} is {said}: set `python` in boards.toml to one from 3.9 on")
    if done.exit_code in (126, 127):  # as a shell and env have it
        raise BoardError(
            f"board {config.name}: cannot run {python}: {said}: install Python 3.9 or newer there, "
            "or set `python` in boards.toml to where it is"
        )
    return done


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
