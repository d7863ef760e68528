"""`hilnas bundle`: a model with all that shows what it does on a board. Further: `bundle_install`, `bundle_promote`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import bundle_install, bundle_promote, console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_board, add_json, add_protocol, bind
from hil.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BundleExportOptions:
    """`model`: None: the one that the run shipped. `quantized`: in place of a run, which the options below are for."""

    quantized: Path | None = None
    run: Path
    model: str | None
    out: Path
    data: str | None = None
    split: str = "val"
    images: int | None = None
    board: str
    boards: Path | None = None
    warmup_runs: int
    runs: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class BundlePackOptions:
    """`bundle`: a bundle's folder, or a run's; `out`: None: beside it, with the suffix .bundle."""

    bundle: Path
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class JoinOptions:
    """`delegate`, `cpu`: bundles, as folders or packed; `pack`: the CPU's model is stored with its weights packed."""

    delegate: Path
    cpu: Path
    out: Path
    pack: bool = False


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    bundle: Path
    allowed_signers: Path | None = None
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    one: Path
    other: Path


@dataclass(frozen=True, kw_only=True)
class SignOptions:
    """`key`: a private SSH key, or a public one that an agent holds."""

    bundle: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """`bundle`: a folder or a packed one; `allowed_signers`: who may have signed it, None: anybody or nobody."""

    bundle: Path
    board: str
    boards: Path | None = None
    allowed_signers: Path | None = None


def add(commands: Commands) -> None:
    bundle = commands.add_parser(
        "bundle",
        help="ship a model with its proof, and verify it on a board",
        description="A bundle is a folder with a model, its hashes, a golden input and output, the measurement that "
        "justified it, and a verifier that runs on the board.",
    )
    actions = bundle.add_subparsers(dest="action", metavar="ACTION", required=True)
    export = actions.add_parser(
        "export",
        help="make a bundle: of a run's model, or of what `hilnas quantize` wrote",
        description="Copies a run's bundle, or makes one of another of its models. Given what `hilnas quantize` wrote, "
        "it checks and measures that on a board, with --data scores it there, and makes a bundle of it.",
    )
    export.add_argument(
        "quantized", type=Path, nargs="?", metavar="DIR|FILE", help="what `hilnas quantize` wrote, in place of a run"
    )
    export.add_argument(
        "--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="a finished run (default %(default)s)"
    )
    export.add_argument(
        "--model", metavar="NAME", help="teacher, or a selected model's name (default: the one that the run shipped)"
    )
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    own = export.add_argument_group("of what `hilnas quantize` wrote")
    own.add_argument(
        "--data",
        metavar="SPEC",
        help="labelled images (camvid:FOLDER, folders:FOLDER, ...): the metric, and the labels",
    )
    own.add_argument("--split", default="val", metavar="NAME", help="train, val or test (default %(default)s)")
    own.add_argument("--images", type=int, metavar="N", help="so many, evenly spaced (default: all)")
    add_board(own)
    add_protocol(own, runs=30, rounds=3)
    bind(export, BundleExportOptions, export_bundle)
    _add_files(actions)
    verify = actions.add_parser(
        "verify",
        help="run a bundle's verifier on a board",
        description="Copies a bundle to a board and runs its verifier there. Exits 4 if a file was changed or the "
        "model's output is not the golden one.",
    )
    verify.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        default=Path("runs/demo/bundle"),
        metavar="DIR|FILE",
        help="a folder, or what `pack` wrote (default %(default)s)",
    )
    _add_signers(verify)
    add_board(verify)
    bind(verify, VerifyOptions, verify_bundle)
    bundle_install.add(actions)
    bundle_promote.add(actions)


def _add_files(actions: Commands) -> None:
    """What needs no board."""
    pack = actions.add_parser(
        "pack",
        help="write a bundle as one file",
        description="The same bytes for the same content: a gzip'd tar that `bundle verify` takes as it is.",
    )
    pack.add_argument("bundle", type=Path, metavar="RUN|DIR", help="a run's folder, or a bundle's")
    pack.add_argument("--out", type=Path, metavar="FILE", help="default: the bundle's name with .bundle")
    bind(pack, BundlePackOptions, pack_bundle)
    joined = actions.add_parser(
        "join",
        help="one bundle of a model for a delegate and one for the CPU",
        description="Puts two bundles of the same classes under one manifest. The verifier and infer.py run the "
        "model for what the board has, and say why.",
    )
    joined.add_argument("--delegate", type=Path, required=True, metavar="DIR|FILE", help="for a board's delegate")
    joined.add_argument("--cpu", type=Path, required=True, metavar="DIR|FILE", help="for its CPU")
    joined.add_argument(
        "--pack",
        action="store_true",
        help="store the CPU's model in the packed form, as `hilnas pack`; it is restored when it is loaded",
    )
    joined.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    bind(joined, JoinOptions, join_bundles)
    text = "what is in a bundle, and who signed it"
    show = actions.add_parser("show", help=text, description=sentence(text))
    show.add_argument("bundle", type=Path, metavar="DIR|FILE", help="a folder, or what `pack` wrote")
    _add_signers(show)
    add_json(show)
    bind(show, ShowOptions, show_bundle)
    text = "what differs between two bundles: metric, size, latency, operators, conditions, files"
    diff = actions.add_parser("diff", help=text, description=sentence(text))
    diff.add_argument("one", type=Path, metavar="A", help="a folder, or what `pack` wrote")
    diff.add_argument("other", type=Path, metavar="B", help="likewise")
    bind(diff, DiffOptions, diff_bundles)
    sign = actions.add_parser(
        "sign",
        help="sign a bundle's manifest with an SSH key",
        description="By OpenSSH's own signatures (ssh-keygen -Y sign): the manifest holds every file's hash.",
    )
    sign.add_argument("bundle", type=Path, metavar="DIR|FILE", help="a folder, or what `pack` wrote, written anew")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="as ~/.ssh/id_ed25519")
    bind(sign, SignOptions, sign_bundle)


def _add_signers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="refuse a bundle that none of these signed: ssh-keygen's lines, NAME ssh-ed25519 AAAA...",
    )


def export_bundle(options: BundleExportOptions) -> int:
    from deploy.ship.export import export_from_run

    if options.quantized:
        console.say(f"bundle: {_of_quantized(options.quantized, options)}")
        return 0
    if options.data:
        raise UsageError(f"--data {options.data}: is for what `hilnas quantize` wrote; a run's models are evaluated")
    console.say(f"bundle: {export_from_run(options.run, options.model, options.out)}")
    return 0


def _of_quantized(path: Path, options: BundleExportOptions) -> Path:
    from deploy.quantize.bundled import BundleTrial, export_quantized
    from deploy.ship.evaluated_models import ImagesAsked
    from hil.boards.catalog import find_board
    from hil.job import MeasureProtocol

    if options.model:
        raise UsageError(f"--model {options.model}: {path} is no run; leave it out")
    trial = BundleTrial(
        find_board(options.boards, options.board),
        MeasureProtocol(warmup_runs=options.warmup_runs, runs=options.runs, rounds=options.rounds),
        ImagesAsked(options.data, options.split, count=options.images) if options.data else None,
        Path(os.environ.get("HILNAS_RUNS", "runs")) / "evaluations",
    )
    return console.followed(export_quantized(path, options.out, trial))


def pack_bundle(options: BundlePackOptions) -> int:
    from deploy.ship.archive import SUFFIX, pack
    from deploy.ship.manifest import Manifest

    folder = options.bundle if (options.bundle / Manifest.FILE).exists() else options.bundle / "bundle"
    if not (folder / Manifest.FILE).is_file():
        raise UsageError(f"{options.bundle}: neither a bundle nor a finished run; `hilnas bundle export` makes one")
    target = options.out or Path(Manifest.read(folder / Manifest.FILE).name + SUFFIX)
    pack(folder, target)
    console.say(f"packed: {target}, {target.stat().st_size / 1000:.1f} kB")
    return 0


def join_bundles(options: JoinOptions) -> int:
    from deploy.ship.archive import unpacked
    from deploy.ship.manifest import Place
    from deploy.ship.variants import join

    with unpacked(options.delegate) as delegate, unpacked(options.cpu) as cpu:
        packed: tuple[Place, ...] = ("cpu",) if options.pack else ()
        console.say(f"bundle: {join({'delegate': delegate, 'cpu': cpu}, options.out, packed=packed)}")
    return 0


def show_bundle(options: ShowOptions) -> int:
    """`CheckFailed` where nobody of those allowed signed it."""
    from deploy.formats.printable import printable
    from deploy.ship.archive import unpacked
    from deploy.ship.contents import contents_text, described
    from deploy.ship.signatures import signer

    with unpacked(options.bundle) as folder:
        described_as = described(folder)
        by = signer(folder, options.allowed_signers, options.bundle) if options.allowed_signers else None
        if options.json:
            console.say_json({**described_as, "signed_by": by})
            return 0
        for line in contents_text(folder):
            console.say(printable(line))
    if by:
        console.say(f"signed by {by}")
    return 0


def diff_bundles(options: DiffOptions) -> int:
    from deploy.formats.printable import printable
    from deploy.ship.archive import unpacked
    from deploy.ship.contents import differences

    with unpacked(options.one) as one, unpacked(options.other) as other:
        rows = [tuple(map(printable, row)) for row in differences(one, other)]
    if rows:
        console.table(("", str(options.one), str(options.other)), rows)
    else:
        console.say(f"{options.one} and {options.other} hold the same")
    return 0


def sign_bundle(options: SignOptions) -> int:
    from deploy.ship.archive import pack, unpacked
    from deploy.ship.signatures import sign

    with unpacked(options.bundle) as folder:
        sign(folder, options.key)
        if folder != options.bundle:
            pack(folder, options.bundle)
    console.say(f"{options.bundle} signed with {options.key}")
    return 0


def verify_bundle(options: VerifyOptions) -> int:
    """`CheckFailed` where nobody of those allowed signed it: before it is copied anywhere."""
    from deploy.ship.archive import unpacked
    from deploy.ship.signatures import signer
    from deploy.ship.verification import verify
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board

    config = find_board(options.boards, options.board)
    with unpacked(options.bundle) as folder:
        if not (folder / "manifest.json").is_file():
            raise UsageError(f"{options.bundle}: no bundle there (no manifest.json); `hilnas bundle export` makes one")
        by = signer(folder, options.allowed_signers, options.bundle) if options.allowed_signers else None
        with open_board(config) as board:
            verdict = verify(folder, board, shown=options.bundle)
    latency = "" if verdict.latency_us is None else f", median {verdict.latency_us.median / 1000:.3f} ms"
    signed = f", signed by {by}" if by else ""
    console.say(f"{options.bundle} verified on {verdict.board}: {verdict.checks} checks{latency}{signed}")
    return 0
