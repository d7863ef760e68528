"""What the files of commands share: options become a record, and the options that many commands have.

Each file of commands has `add(commands)`, its options as frozen dataclasses, the work and the printing. Importing it
imports nothing heavy (torch, numpy, pandas, paramiko, pydantic, rich): what the work needs is imported where it starts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from hil.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parser: TypeAlias = "argparse._ActionsContainer"  # a parser, or a group of its options
Record = TypeVar("Record", bound="DataclassInstance")


class Commands(Protocol):
    """What commands are added to: a group of `hilnas`, or the actions of a command."""

    def add_parser(
        self, name: str, *, help: str, description: str | None = ..., epilog: str | None = ...
    ) -> argparse.ArgumentParser: ...


TARGETS = Path("targets")
DEFAULT_STORE = "runs/measurements.sqlite"
STORE_HELP = "a SQLite file, or postgresql+psycopg://USER@HOST/DATABASE (the password: ~/.pgpass or PGPASSWORD)"


def bind(parser: argparse.ArgumentParser, options: type[Record], run: Callable[[Record], int]) -> None:
    """`run` does the command's work: it gets the options as a record and returns the exit code."""

    def work(arguments: argparse.Namespace) -> int:
        return run(record(options, arguments))

    parser.set_defaults(work=work)


def record(options: type[Record], arguments: argparse.Namespace) -> Record:
    """The fields of `options` that the command has; the others keep their defaults. A list becomes a tuple."""
    given: dict[str, Any] = {f.name: getattr(arguments, f.name) for f in fields(options) if hasattr(arguments, f.name)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def arguments(options: DataclassInstance, leave_out: Collection[str] = ()) -> list[str]:
    """The words that give these options: the first field as it stands, the others by name, none that is a default."""
    first, *others = fields(options)
    words = [str(getattr(options, first.name))]
    for field in others:
        value = getattr(options, field.name)
        if field.name in leave_out or value == field.default or value is False:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [word for entry in value for word in (option.removesuffix("s"), str(entry))]
        else:
            words += [option] if value is True else [option, str(value)]
    return words


def add_store(parser: Parser) -> None:
    parser.add_argument("--store", default=DEFAULT_STORE, metavar="FILE|URL", help=f"{STORE_HELP}; default %(default)s")


def add_board(parser: Parser, text: str = "a name in --boards (default %(default)s)") -> None:
    parser.add_argument("--board", default=os.environ.get("HILNAS_BOARD", "loopback"), metavar="NAME", help=text)
    add_boards(parser)


def add_boards(parser: Parser) -> None:
    parser.add_argument(
        "--boards",
        type=Path,
        metavar="FILE",
        help="where the boards are described (default: boards.toml here, or in ~/.config/hilnas)",
    )


def add_targets(parser: Parser) -> None:
    parser.add_argument(
        "--targets",
        type=Path,
        default=TARGETS,
        metavar="DIR",
        help="where the targets' rules are looked for first (default %(default)s)",
    )


def add_protocol(parser: Parser, runs: int, rounds: int) -> None:
    """How long each model is run: fields `warmup_runs`, `runs` and `rounds` of the record."""
    parser.add_argument(
        "--warmup-runs", type=int, default=5, metavar="N", help="inferences before the timed ones (default %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=runs, metavar="N", help="timed inferences in each round (default %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help="times that each model is loaded (default %(default)s)"
    )


def add_json(parser: Parser, text: str = "print JSON for other programs instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def whole_numbers(option: str, text: str) -> list[int]:
    """`UsageError` for anything but whole numbers with commas between."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{option} {text}: write whole numbers with commas between, for example 0,1,2")
    return [int(part) for part in parts]
