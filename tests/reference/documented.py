"""The commands that the documentation names: lines of its blocks, and `hilnas ...` within its sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = (REPOSITORY / "README.md", REPOSITORY / "ARCHITECTURE.md", *sorted((REPOSITORY / "docs").glob("*.md")))
PROGRAMS = ("hilnas", "make", "pip", "python", "pytest", "source", "$EDITOR")
BLOCK_LINE = re.compile(r"^ {4}(?: *- run: )?(\S.*)$", re.M)
BLOCK = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.M)
INLINE = re.compile(r"(?<!`)`(hilnas [^`]+)`")
FILE = re.compile(r"# (\S+\.(?:toml|py))\n")


@dataclass(frozen=True)
class Block:
    """An indented block: its text without the indent, and the file that its first line names, as `# spaces/my.toml`."""

    text: str

    @property
    def file(self) -> str | None:
        named = FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> Iterator[str]:
        """Without the comments behind them."""
        for line in self.text.splitlines():
            words = shlex.split(line.strip().removeprefix("- run: "), comments=True) if starts_program(line) else []
            if words:
                yield without_comment(line)


def starts_program(line: str) -> bool:
    words = [word for word in line.strip().removeprefix("- run: ").split() if "=" not in word or word.startswith("-")]
    return bool(words) and words[0] in PROGRAMS


def without_comment(line: str) -> str:
    return re.sub(r"\s+#.*", "", line.strip().removeprefix("- run: "))


def blocks(page: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(page.read_text(encoding="utf8")):
        yield Block(re.sub(r"(?m)^ {4}", "", match[0]).strip("\n") + "\n")


def commands() -> list[tuple[Path, str]]:
    return [(page, command) for page in PAGES for block in blocks(page) for command in block.commands]


def mentioned() -> list[tuple[Path, str]]:
    """`hilnas ...` within sentences and tables."""
    return [
        (page, command.replace(r"\|", "|"))
        for page in PAGES
        for command in INLINE.findall(page.read_text(encoding="utf8").replace("\n", " "))
    ]
