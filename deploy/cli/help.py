"""The parser of `hilnas` itself: its commands under headings, on one screen, and its version."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NoReturn

WIDTH, COLUMN = 80, 18  # columns of the screen; where the texts begin
LESS = "`hilnas COMMAND --help` explains a command."
EXIT_CODES = "Exit codes: 0 well, 1 a check failed, 2 usage, 3 board, 4 model, 5 incomparable"


@dataclass
class Group:
    """The commands under one heading: what their files add them to."""

    heading: str
    commands: argparse._SubParsersAction[argparse.ArgumentParser]
    texts: list[tuple[str, str]] = field(default_factory=list)

    def add_parser(
        self, name: str, *, help: str, description: str | None = None, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        """Commands added one after another with the same `help` share its line."""
        self.texts.append((name, help))
        return self.commands.add_parser(name, description=description or sentence(help), epilog=epilog)

    def lines(self) -> list[str]:
        shown = [f"{self.heading}:"]
        for text, entries in groupby(self.texts, key=lambda entry: entry[1]):
            names = f"  {', '.join(name for name, _ in entries)}"
            shown.append(f"{names:{COLUMN - 2}}  {text}")
        return shown


def sentence(text: str) -> str:
    """A help text as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", ".")) else ".")


class TopParser(argparse.ArgumentParser):
    """Prints its help in `groups`; `distribution` is the installed package that --version names."""

    def __init__(self, prog: str, description: str, distribution: str) -> None:
        super().__init__(prog=prog, description=description)
        self.groups: list[Group] = []
        self.add_argument("--version", action=ShowVersion, distribution=distribution)
        self.commands = self.add_subparsers(
            dest="command", metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser
        )

    def group(self, heading: str) -> Group:
        self.groups.append(Group(heading, self.commands))
        return self.groups[-1]

    def format_help(self) -> str:
        parts = [f"usage: {self.prog} [-h] [--version] COMMAND ...", self.description or ""]
        parts += ["\n".join(group.lines()) for group in self.groups]
        parts.append("\n".join((LESS, *textwrap.wrap(EXIT_CODES, WIDTH))))
        return "\n\n".join(parts) + "\n"


class ShowVersion(argparse.Action):
    """Prints the version of an installed package; looks it up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, distribution: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version")
        self.distribution = distribution

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version(self.distribution)
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"{parser.prog} {found}")
        parser.exit()
