"""`hilnas bundle install|list`: bundles in the folder of a board that its applications read."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_board, add_boards, add_json, bind
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.ship.install import Installed


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """`bundle`: None with `rollback`; `board`: one or more; `to`: a folder there."""

    bundle: Path | None
    to: str
    board: tuple[str, ...] = ()
    boards: Path | None = None
    rollback: bool = False
    allowed_signers: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Each board once, in the order given; HILNAS_BOARD or loopback where none is."""
        return tuple(dict.fromkeys(self.board or (os.environ.get("HILNAS_BOARD", "loopback"),)))


@dataclass(frozen=True, kw_only=True)
class ReleasesOptions:
    to: str
    board: str
    boards: Path | None = None
    json: bool = False


def add(actions: Commands) -> None:
    install = actions.add_parser(
        "install",
        help="make a bundle the current one in a board's folder, or go back to the one before",
        description="Uploads a bundle aside, verifies it on that board (files, golden outputs, latency), then switches "
        "the link DIR/current to it. Power lost at any moment leaves the old bundle or the new one. With several "
        "--board, board by board, up to the first that fails.",
    )
    install.add_argument(
        "bundle", type=Path, nargs="?", metavar="DIR|FILE", help="a folder, or what `pack` wrote; none with --rollback"
    )
    _add_folder(install)
    install.add_argument("--rollback", action="store_true", help="go back to the bundle before the current one")
    install.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="refuse a bundle that none of these signed, here and by the board's ssh-keygen where it has one",
    )
    install.add_argument(
        "--board", action="append", default=[], metavar="NAME", help="a name in --boards; may be given several times"
    )
    add_boards(install)
    bind(install, InstallOptions, install_bundle)
    text = "which bundles are installed in a board's folder"
    listing = actions.add_parser("list", help=text, description=sentence(text))
    _add_folder(listing)
    add_board(listing)
    add_json(listing)
    bind(listing, ReleasesOptions, list_releases)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, metavar="DIR", help="the folder on the board; applications open current")


def install_bundle(options: InstallOptions) -> int:
    """Errors are those of `deploy.ship.install`; the boards before the one that fails keep what they got."""
    from contextlib import nullcontext

    from deploy.formats.printable import printable
    from deploy.ship.archive import unpacked
    from deploy.ship.install import InstallFolder, check_folder, over_fleet
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board
    from hil.sessions import open_session

    if (options.bundle is None) != options.rollback:
        raise UsageError("give a bundle, or --rollback alone: hilnas bundle install FILE --to DIR")
    check_folder(options.to)
    configs = {name: find_board(options.boards, name) for name in options.names}
    with unpacked(options.bundle) if options.bundle else nullcontext() as bundle:

        def one(name: str) -> None:
            with open_board(configs[name]) as board, open_session(board) as session:
                folder = InstallFolder(board, options.to, session.conditions)
                done = folder.install(bundle, options.allowed_signers, options.bundle) if bundle else folder.roll_back()
            console.say(printable(_text(done)))

        over_fleet(options.names, one)
    return 0


def _text(done: Installed) -> str:
    release, before = done.release, done.before
    again = before is not None and before.folder == release.folder
    was = "there was none before" if before is None else f"before: {before.bundle} ({before.folder})"
    signed = f", signed by {done.signed_by}" if done.signed_by else ""
    there = {True: " (the board's ssh-keygen agrees)", False: "", None: ""}[done.signed_there]
    return (
        f"{done.board}: {release.bundle} ({release.folder}) is current, {'as it was' if again else was}; "
        f"{done.verification.checks} checks, {done.latency.text}{signed}{there}"
    )


def list_releases(options: ReleasesOptions) -> int:
    from deploy.formats.printable import printable
    from deploy.ship.install import installed
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board

    with open_board(find_board(options.boards, options.board)) as board:
        releases = installed(board, options.to)
    if options.json:
        console.say_json([{"folder": r.folder, "bundle": r.bundle, "current": r.current} for r in releases])
    elif releases:
        rows = [(r.folder, printable(r.bundle), "current" if r.current else "") for r in releases]
        console.table(("release", "bundle", ""), rows, left=("bundle", ""))
    else:
        console.say(f"{options.board}: nothing is installed in {options.to}")
    return 0
