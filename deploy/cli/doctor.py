"""Is this machine ready (doctor), is that board ready (board check): one line a check, with what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.compile.canary import known_good
from hil.boards.board import Board
from hil.boards.config import BoardConfig, open_board
from hil.errors import BoardError, UsageError
from hil.health import Finding, examine
from hil.measure import MeasureProtocol, measure
from hil.session import Session
from hil.store import Store

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "scipy", "ai-edge-litert", "flatbuffers", "paramiko", "SQLAlchemy")
OPTIONAL = {
    "tensorflow": "the reference converter: pip install 'hilnas[tensorflow]'",
    "onnxruntime": "second opinions: pip install 'hilnas[onnx]'",
}
MODEL = "model"  # the check whose failure is the model's


@dataclass(frozen=True)
class Check:
    holds: bool
    text: str
    optional: bool = False


def doctor() -> Iterator[Check]:
    """The packages, the SSH server, the free disk."""
    for name in PACKAGES:
        found = _version(name)
        yield Check(found is not None, f"{name} {found or 'is missing: run `make setup`'}")
    for name, hint in OPTIONAL.items():
        found = _version(name)
        yield Check(found is not None, f"{name} {found or 'is not installed; ' + hint}", optional=True)
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    yield Check(
        sshd is not None,
        f"sshd {sshd or 'not found; the loopback board falls back on asyncssh (`make system`)'}",
        optional=True,
    )
    free = shutil.disk_usage(".").free / 1e9
    yield Check(free > 2, f"{free:.1f} GB free here{'' if free > 2 else ': make room, a run needs about 2'}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_board(config: BoardConfig) -> Iterator[Finding]:
    """Is the board fit to measure on, and does it give a known-good model's exact answer? Raises UsageError."""
    if config.kind == "replay":
        raise UsageError(f"board {config.name} is a replay: it has no machine to check")
    well = True
    try:
        with open_board(config) as board:
            for finding in examine(board):
                well = well and finding.state != "failed"
                yield finding
            yield from _known_good(board) if well else [Finding(MODEL, "advice", "not run", "mend the board first")]
    except BoardError as error:
        yield Finding("board", "failed", str(error))


def _known_good(board: Board) -> Iterator[Finding]:
    """A small model by the very way that every model is measured."""
    with tempfile.TemporaryDirectory() as scratch, Session(board) as session:
        job = known_good(Path(scratch))
        with Store(Path(scratch) / "check.sqlite") as store:
            (done,) = measure(session, [job], MeasureProtocol(warmup_runs=3, runs=10, rounds=1), store)
    if done.failure is not None:
        todo = "compare driver, delegate and runtime with a board that works"
        yield Finding(MODEL, "failed", f"{job.name} failed: {done.failure.reason}", todo)
        return
    parity = done.parity
    difference = f"{parity.mismatched} of {parity.elements} elements differ" if parity else "its output not compared"
    if board.config.delegate:
        difference += f"; the delegate took {done.delegated_nodes} parts of its {len(done.operators)} operators"
    times = f"load {done.load_us} us, first inference {done.first_us} us, then {min(done.latencies_us)} us at best"
    yield Finding(MODEL, "ok", f"ran {job.name}: {difference}; {times}")
