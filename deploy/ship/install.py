"""A bundle installed on a board: uploaded aside, verified there, then switched to by a link, and back.

The folder's arrangement, and how power lost at any moment leaves one whole bundle, is in
`board_scripts/install_bundle.py`. Nothing is switched before the verifier ran on that very board, with every golden
pair, and its latency was not slower than the recorded one where the conditions are alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.ship.manifest import BundleMeasurement
from deploy.ship.signatures import signer
from deploy.ship.verification import (
    LatencyVerdict,
    Verification,
    checked,
    identity,
    latency_verdict,
    push,
    verify_there,
)
from hil.boards.board import Board
from hil.errors import BoardError, CheckFailed, ModelError, UsageError
from hil.measurement import Conditions
from hil.scripts import run_script
from nas.errors import ConfigError
from nas.settings import STRICT, build

INSTALLER = "install_bundle.py"
TIMEOUT_S = 120.0  # an SD card takes its time to write what it has


@dataclass(frozen=True)
class Release:
    """An installed bundle: its folder's name there, NUMBER-ID, the bundle's name, and whether the link names it."""

    folder: str
    bundle: str
    current: bool
    __pydantic_config__ = STRICT

    @property
    def identity(self) -> str:
        return self.folder.rpartition("-")[2]


@dataclass(frozen=True)
class InstallerAnswer:
    """The installer's one line: what is installed, is it signed (None: not asked, or no ssh-keygen), why not."""

    releases: tuple[Release, ...]
    signed: bool | None
    reason: str | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Installed:
    """What a board has now.

    Attributes:
        release: the current one.
        before: the one that was, None where none was.
        signed_there: the board's own ssh-keygen confirmed the signature; None: nobody asked, or it has none.
    """

    board: str
    release: Release
    before: Release | None
    verification: Verification
    latency: LatencyVerdict
    signed_by: str | None = None
    signed_there: bool | None = None


@dataclass(frozen=True)
class InstallFolder:
    """The folder of a board that applications find bundles in; it is not the board's `workdir`.

    Attributes:
        conditions: of the board now.
    """

    board: Board
    path: str
    conditions: Conditions

    def __post_init__(self) -> None:
        check_folder(self.path)

    def install(self, bundle: Path, allowed: Path | None = None, shown: Path | None = None) -> Installed:
        """Verify a bundle there and make it the current one; one that is current already is verified again.

        `allowed`: who may have signed it; `shown`: what errors call it. Raises UsageError, ModelError for a file that
        was changed or outputs that differ, CheckFailed where it is signed by nobody allowed or is slower than recorded,
        BoardError; the board's current bundle is then the one that it was.
        """
        where, known_as = f"{shown or bundle} on {self.board.name}", identity(bundle)
        manifest = checked(bundle, shown or bundle)
        recorded = BundleMeasurement.read(bundle / manifest.measurement)
        by = signer(bundle, allowed, shown) if allowed else None
        before = current(_ask(self.board, "sweep", self.path))
        there = before is not None and before.identity == known_as
        remote = f"{self.path}/releases/{before.folder}" if before and there else f"{self.path}/incoming/{known_as}"
        if not there:
            push(bundle, self.board, remote)
        signed_there = self._signed(known_as, allowed, by, where) if allowed and by and not there else None
        verification, verdict = self._verified(remote, known_as, where, recorded, manifest.latency_tolerance)
        release = before if there else current(_ask(self.board, "place", self.path, known_as))
        if release is None:
            raise BoardError(f"board {self.board.name}: nothing is current in {self.path}: install again")
        return Installed(self.board.name, release, before, verification, verdict, by, signed_there)

    def roll_back(self) -> Installed:
        """Make the release before the current one current again, once it is verified. Errors as of `install`."""
        releases = _ask(self.board, "list", self.path)
        now = current(releases)
        place = releases.index(now) if now else 0
        if not now or not place:
            raise UsageError(f"board {self.board.name}: no release before the current one in {self.path}")
        target = releases[place - 1]
        remote, where = f"{self.path}/releases/{target.folder}", f"{target.bundle} on {self.board.name}"
        verification = verify_there(self.board, remote, target.identity, where)
        found = current(_ask(self.board, "switch", self.path, target.folder))
        return Installed(self.board.name, found or target, now, verification, LatencyVerdict(None, "not compared"))

    def _signed(self, known_as: str, allowed: Path, by: str, where: str) -> bool | None:
        self.board.put(allowed, f"{self.path}/incoming/{known_as}.signers")
        confirmed = _answer(self.board, "signed", self.path, known_as, by).signed
        if confirmed is False:
            raise CheckFailed(f"{where}: the board's ssh-keygen finds no signature of {by}; see its clock and the key")
        return confirmed

    def _verified(
        self, remote: str, known_as: str, where: str, recorded: BundleMeasurement, tolerance: float | None
    ) -> tuple[Verification, LatencyVerdict]:
        """Too slow once may be a neighbour's doing: only twice is too slow."""
        for _ in range(2):
            verification = verify_there(self.board, remote, known_as, where)
            verdict = latency_verdict(recorded, tolerance, verification.latency_us, self.conditions)
            if verdict.holds is not False:
                return verification, verdict
        raise CheckFailed(f"{where}: not installed: {verdict.text}, twice, under the same conditions")


def check_folder(path: str) -> None:
    """`UsageError` for what is no folder of a board to install in."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() or str(pure) != path or len(pure.parts) < 2 or ".." in pure.parts:
        raise UsageError(f"--to {path}: give the absolute path of a folder on the board, as /opt/model")


def installed(board: Board, path: str) -> tuple[Release, ...]:
    """What a folder of the board has, in the order of installation. Raises UsageError, BoardError."""
    check_folder(path)
    return _ask(board, "list", path)


def current(releases: tuple[Release, ...]) -> Release | None:
    return next((release for release in releases if release.current), None)


def _ask(board: Board, action: str, path: str, *words: str) -> tuple[Release, ...]:
    return _answer(board, action, path, *words).releases


def _answer(board: Board, action: str, path: str, *words: str) -> InstallerAnswer:
    done = run_script(board, INSTALLER, action, path, *words, timeout_s=TIMEOUT_S)
    where = f"board {board.name}: {INSTALLER} {action} {path}"
    try:
        answer = build(InstallerAnswer, json.loads((done.stdout.strip().splitlines() or [""])[-1]), where)
    except (ValueError, ConfigError, TypeError) as error:
        said = (done.stderr.strip().splitlines() or [str(error)])[-1]
        raise BoardError(f"{where}: no answer to read (exit {done.exit_code}): {said}") from None
    if answer.reason is not None:
        raise BoardError(f"board {board.name}: {path}: {answer.reason}: free it there, or name another folder (--to)")
    return answer


def over_fleet(names: tuple[str, ...], work: Callable[[str], None]) -> None:
    """Board by board; the first that fails stops it, and its error says how far it came."""
    for number, name in enumerate(names):
        try:
            work(name)
        except (BoardError, CheckFailed, ModelError, UsageError) as error:
            done, left = names[:number], names[number + 1 :]
            told = [f"done on {', '.join(done)}"] * bool(done) + [f"not tried on {', '.join(left)}"] * bool(left)
            raise type(error)("; ".join([str(error), *told])) from error
