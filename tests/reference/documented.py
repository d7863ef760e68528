"""The commands that the documentation names: lines of its blocks, and `hilnas ...` within its sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = (REPOSITORY / "README.md", REPOSITORY / "ARCHITECTURE.md", *sorted((REPOSITORY / "docs").glob("*.md")))
BLOCK = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.M)
COMMAND = re.compile(r"(?:- run: )?((?:[A-Z_]+=\S+ )*(?:hilnas|make|pip|python|pytest|source|\$EDITOR) .*)")
INLINE = re.compile(r"(?<!`)`(hilnas [^`]+)`")
FILE = re.compile(r"# (\S+\.(?:toml|py))\n")


@dataclass(frozen=True)
class Block:
    """An indented block of a page, without its indent."""

    text: str

    @property
    def file(self) -> str | None:
        """The file that it is, where its first line names one: `# spaces/my-space.toml`."""
        named = FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> Iterator[str]:
        """Without the comments behind them."""
        for line in self.text.splitlines():
            if match := COMMAND.fullmatch(line.strip()):
                yield re.sub(r"\s+#.*", "", match[1])


def blocks(page: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(page.read_text(encoding="utf8")):
        yield Block(re.sub(r"(?m)^ {4}", "", match[0]).strip("\n") + "\n")


def commands() -> list[tuple[Path, str]]:
    return [(page, command) for page in PAGES for block in blocks(page) for command in block.commands]


def mentioned() -> list[tuple[Path, str]]:
    """`hilnas ...` within sentences and tables."""
    texts = {page: page.read_text(encoding="utf8").replace("\n", " ") for page in PAGES}
    return [(page, command.replace(r"\|", "|")) for page, text in texts.items() for command in INLINE.findall(text)]
