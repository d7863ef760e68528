"""A bundle verified on a board by the kit's own verifier, and its latency there beside the recorded one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.compile.made_for import other_arithmetic
from deploy.formats.digest import file_digest
from deploy.ship.manifest import BundleMeasurement, Manifest, VerifierLatency, read_verifier
from hil.boards.board import Board
from hil.errors import BoardError, ModelError, UsageError
from hil.job import delegate_options_for
from hil.measurement import Conditions
from hil.scripts import run_script
from hil.session import DEFAULT_WORKDIR
from hil.stats import milliseconds

VERIFIER = "verify_bundle.py"
RUNS = 30  # timed inferences
KERNELS = "xnnpack"  # that the verifier's interpreter takes


@dataclass(frozen=True)
class Verification:
    """A bundle that was verified: on which board, by how many checks, and its latency there."""

    board: str
    checks: int
    latency_us: VerifierLatency | None


@dataclass(frozen=True)
class LatencyVerdict:
    """Is a latency the recorded one? `holds`: None where the two do not compare; `text`: for people."""

    holds: bool | None
    text: str


def verify(bundle: Path, board: Board, runs: int = RUNS, *, shown: Path | None = None) -> Verification:
    """Run the kit's own verifier (not the bundle's copy) on the board. `shown`: what errors call the bundle.

    Raises `UsageError` if there is no bundle, `ModelError` naming the first check that does not hold, and `BoardError`
    where the board's Python is missing or too old.
    """
    if not (bundle / Manifest.FILE).is_file():
        raise UsageError(f"{bundle}: no bundle there (no {Manifest.FILE}); make one with `hilnas bundle export`")
    workdir = (board.config.workdir or DEFAULT_WORKDIR).rstrip("/")
    remote = f"{workdir}/bundles/{identity(bundle)}"
    push(bundle, board, remote)
    try:
        where = f"{shown or bundle} on {board.name}"
        return verify_there(board, remote, identity(bundle), where, runs, hint=partial(_hint, bundle, board))
    finally:
        with suppress(BoardError):  # the other error says why
            board.run(["rm", "-rf", "--", remote], timeout_s=30)


def identity(bundle: Path) -> str:
    """By which a bundle is known on a board: of its manifest, which has every file's hash."""
    return file_digest(bundle / Manifest.FILE)[:16]


def checked(bundle: Path, shown: Path) -> Manifest:
    """The manifest of a bundle whose files are the listed ones. Raises UsageError, ModelError naming `shown`."""
    if not (bundle / Manifest.FILE).is_file():
        raise UsageError(f"{shown}: no bundle there (no {Manifest.FILE}); `hilnas bundle export` makes one")
    manifest = Manifest.read(bundle / Manifest.FILE)
    if unlisted := sorted(set(manifest.used) - set(manifest.files)):
        raise ModelError(f"{shown}: {unlisted[0]} is used and not listed, so nothing vouches for it; make it again")
    for name, listed in manifest.files.items():
        path = bundle / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{shown}: {name} is missing; copy the bundle again")
        if path.stat().st_size != listed.bytes or file_digest(path) != listed.sha256:
            raise ModelError(f"{shown}: {name} was changed: its sha256 is not the listed one; copy the bundle again")
    return manifest


def verify_there(
    board: Board, remote: str, known_as: str, where: str, runs: int = RUNS, *, hint: Callable[[], str] = str
) -> Verification:
    """The bundle in a folder of the board. `where` names it and the board in errors, which are those of `verify`.

    `hint`: what may explain golden outputs that differ; "": nothing is known.
    """
    result = run_script(board, VERIFIER, remote, *_options(board, runs, known_as), timeout_s=900)
    checks, verdict = read_verifier(result.stdout, where)
    if verdict is None:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"{where}: the verifier ended with exit code {result.exit_code}: {last}")
    if not verdict.verified:
        failed = next((c for c in checks if not c.ok), None)
        said = f"{failed.check}: {failed.detail}" if failed else "no check says why"
        why = hint() if failed and failed.check == "golden" else ""
        raise ModelError(f"{where}: not verified: {said}{'; ' if why else ''}{why}")
    return Verification(board.name, len(checks), verdict.latency_us)


def push(bundle: Path, board: Board, remote: str) -> None:
    """The bundle's regular files, under their own relative names, to a fresh folder on the board."""
    board.run(["rm", "-rf", "--", remote], timeout_s=30)
    sources = sorted(p for p in bundle.rglob("*") if p.is_file() and not p.is_symlink())
    folders = sorted({str(Path(remote) / p.relative_to(bundle).parent) for p in sources})
    made = board.run(["mkdir", "-p", "--", *folders], timeout_s=30)
    if made.exit_code:
        raise UsageError(f"{board.name}: cannot make {remote} ({made.stderr.strip()}); fix 'workdir' in boards.toml")
    for source in sources:
        board.put(source, f"{remote}/{source.relative_to(bundle)}")


def _hint(bundle: Path, board: Board) -> str:
    return other_arithmetic(bundle / Manifest.read(bundle / Manifest.FILE).model, board.config)


def latency_verdict(
    recorded: BundleMeasurement, tolerance: float | None, found: VerifierLatency | None, now: Conditions
) -> LatencyVerdict:
    """Slower than the recorded interval and the manifest's tolerance beyond it does not hold; faster does."""
    if found is None:
        return LatencyVerdict(None, "the verifier gave no latency")
    measured = f"median {milliseconds(found.median)} ms"
    differing = recorded.conditions.differing(now)
    if now.kernels != KERNELS and "kernels" not in differing:
        differing.append("kernels")
    if differing:
        return LatencyVerdict(None, f"{measured}, recorded under other conditions ({', '.join(differing)})")
    if tolerance is None:
        return LatencyVerdict(None, f"{measured}, and its manifest states no tolerance to the recorded one")
    low, high = recorded.latency_us.ci95
    known = f"recorded [{milliseconds(low)}, {milliseconds(high)}] ms + {tolerance:.0%}"
    holds = found.median <= high * (1 + tolerance)
    return LatencyVerdict(holds, f"{measured}, {'within' if holds else 'slower than'} the {known}")


def _options(board: Board, runs: int, known_as: str) -> list[str]:
    """Of the verifier; `known_as` names this bundle alone."""
    config = board.config
    argv = ["--runs", str(runs), "--threads", str(config.threads)]
    if config.delegate:
        argv += ["--delegate", config.delegate]
        for key, value in delegate_options_for(config, known_as).items():
            argv += ["--delegate-option", f"{key}={value}"]
    return argv
