"""The command line. Importing this module imports nothing heavy: `hilnas --help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from deploy.cli import init, options_experiment, options_files
from deploy.cli.exit import ended


class Version(argparse.Action):
    """Prints the installed package's version and ends; looked up when asked for, since that takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"hilnas {version('hilnas')}")
        except PackageNotFoundError:
            parser.error("--version: hilnas runs from a checkout and is not installed; run `make setup`")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="hilnas",
        description=(
            "Search a quantized network, measure every candidate on the board, ship a bundle that proves itself."
        ),
        epilog="exit codes: 0 well, 1 a check did not hold, 2 usage, 3 board, 4 model, 5 nothing to compare with",
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the installed version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    options_experiment.experiments(commands)
    options_files.models(commands)
    options_files.boards(commands)
    init.add(commands)
    commands.add_parser("doctor", help="is this machine ready? what is missing, and what to do")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

    def run() -> int:
        if hasattr(arguments, "work"):
            return int(arguments.work(arguments))
        from deploy.cli import commands  # takes seconds, in which Ctrl-C is as likely as later

        return commands.COMMANDS[arguments.command](arguments)

    return ended("hilnas", run)


if __name__ == "__main__":
    sys.exit(main())
