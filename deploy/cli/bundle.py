"""`hilnas bundle export|verify`: a model with all that shows what it does on a board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_board, bind
from hil.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BundleExportOptions:
    """`model`: None: the one that the run shipped."""

    run: Path
    model: str | None
    out: Path


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    bundle: Path
    board: str
    boards: Path | None = None


def add(commands: Commands) -> None:
    bundle = commands.add_parser(
        "bundle",
        help="ship a model with its proof, and verify it on a board",
        description="A bundle is a folder with a model, its hashes, a golden input and output, the measurement that "
        "justified it, and a verifier that runs on the board.",
    )
    actions = bundle.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "copy a run's bundle, or make one of another of its models"
    export = actions.add_parser("export", help=text, description=sentence(text))
    export.add_argument(
        "--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="a finished run (default %(default)s)"
    )
    export.add_argument(
        "--model", metavar="NAME", help="teacher, or a selected model's name (default: the one that the run shipped)"
    )
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    bind(export, BundleExportOptions, export_bundle)
    verify = actions.add_parser(
        "verify",
        help="run a bundle's verifier on a board",
        description="Copies a bundle to a board and runs its verifier there. Exits 4 if a file was changed or the "
        "model's output is not the golden one.",
    )
    verify.add_argument(
        "bundle", type=Path, nargs="?", default=Path("runs/demo/bundle"), metavar="DIR", help="default %(default)s"
    )
    add_board(verify)
    bind(verify, VerifyOptions, verify_bundle)


def export_bundle(options: BundleExportOptions) -> int:
    from deploy.ship.export import export_from_run

    console.say(f"bundle: {export_from_run(options.run, options.model, options.out)}")
    return 0


def verify_bundle(options: VerifyOptions) -> int:
    from deploy.ship.bundle import verify
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board

    if not (options.bundle / "manifest.json").is_file():
        raise UsageError(f"{options.bundle}: no bundle there (no manifest.json); `hilnas bundle export` makes one")
    with open_board(find_board(options.boards, options.board)) as board:
        verdict = verify(options.bundle, board)
    latency = "" if verdict.latency_us is None else f", median {verdict.latency_us.median / 1000:.3f} ms"
    console.say(f"{options.bundle} verified on {verdict.board}: {verdict.checks} checks{latency}")
    return 0
