"""Is this machine ready (doctor), is that board ready (board check): one line a check, with what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.standalone import compile_subnets
from hil.boards import Board
from hil.errors import ModelError
from hil.measure import Job, MeasureProtocol, measure
from hil.session import Session
from hil.store import Store

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "scipy", "ai-edge-litert", "flatbuffers", "paramiko", "SQLAlchemy")
OPTIONAL = {
    "tensorflow": "the reference converter: pip install 'hilnas[tensorflow]'",
    "onnxruntime": "second opinions: pip install 'hilnas[onnx]'",
}
KNOWN_GOOD = "b2_k3e3-k3e3_w8"


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


def check_board(board: Board) -> Iterator[str]:
    """What the board is, and whether it gives a known-good model's exact answer; raises what does not hold."""
    with Session(board) as session, tempfile.TemporaryDirectory() as scratch:
        yield f"reached {board.name} ({board.config.kind})"
        for key, value in session.conditions.to_json().items():
            yield f"  {key}: {value}"
        (model,) = compile_subnets(Path("configs/spaces/demo.toml"), [KNOWN_GOOD], (64, 64), Path(scratch))
        job = Job(model, KNOWN_GOOD, model.with_suffix(".input.bin"), model.with_suffix(".expected.bin"))
        store = Store(Path(scratch) / "check.sqlite")
        try:
            (done,) = measure(session, [job], MeasureProtocol(warmup_runs=3, runs=10, rounds=1), store)
        finally:
            store.close()
    if done.failure is not None:
        raise ModelError(
            f"{board.name}: the known-good model failed: {done.failure.reason}; "
            "compare driver, delegate and runtime with a board that works"
        )
    parity = done.parity
    difference = f"{parity.mismatched} of {parity.elements} elements differ" if parity else "not compared"
    yield f"ran {KNOWN_GOOD}: {difference}"
    if board.config.delegate:
        yield f"{board.config.delegate} took {done.delegated_nodes} of its {len(done.operators)} operators"
    yield f"load {done.load_us} us, first inference {done.first_us} us, then {min(done.latencies_us)} us at best"
