"""`hilnas board ...`: the boards of boards.toml, their health, their reservations, their power."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import characterize, console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_boards, add_json, bind
from hil.boards.catalog import find_board
from hil.boards.config import BoardConfig
from hil.errors import BoardError, ModelError, UsageError

if TYPE_CHECKING:
    import argparse

    from hil.boards.board import Board
    from hil.boards.config import BoardConfig
    from hil.health import Finding

LOCAL = ("loopback", "qemu", "replay")  # kinds without a machine that others could want too
MODEL = "model"  # the check whose failure is the model's
STATES = {"ok": "ok", "advice": "note", "failed": "FAIL"}


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    probe: bool
    boards: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """One board of boards.toml."""

    name: str
    boards: Path | None = None

    @property
    def config(self) -> BoardConfig:
        """`UsageError` where there is no such board."""

        return find_board(self.boards, self.name)


@dataclass(frozen=True, kw_only=True)
class CheckOptions(BoardOptions):
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class ReserveOptions(BoardOptions):
    """`duration` as "1h30m"."""

    duration: str
    note: str


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions(BoardOptions):
    force: bool


@dataclass(frozen=True, kw_only=True)
class PowerOptions(BoardOptions):
    switch: str


@dataclass(frozen=True, kw_only=True)
class QemuOptions:
    step: str
    dir: Path | None


def add(commands: Commands) -> None:
    board = commands.add_parser(
        "board",
        help="list, check, characterize, trust, reserve and power the boards",
        description="The boards of boards.toml: which there are, whether one is fit to measure on, who uses it.",
    )
    actions = board.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "which boards there are")
    listing.add_argument("--probe", action="store_true", help="ask each board who uses it")
    bind(listing, ListOptions, list_boards)

    check = _one_board(actions, "check", "is it fit to measure on? runs a known-good model at the end")
    add_json(check)
    bind(check, CheckOptions, check_board)
    characterized = _one_board(actions, "characterize", characterize.TEXT)
    characterize.add_options(characterized)
    bind(characterized, characterize.CharacterizeOptions, characterize.characterize_board)
    trusted = _one_board(actions, "trust", "pin its SSH host key, and its jump hosts' (compare the fingerprints!)")
    bind(trusted, BoardOptions, trust_board)
    reserve = _one_board(actions, "reserve", "keep it for yourself for a time; others' sessions are refused until then")
    reserve.add_argument(
        "--for", dest="duration", default="1h", metavar="TIME", help="45m, 2h, 1h30m (default %(default)s)"
    )
    reserve.add_argument("--note", default="", metavar="TEXT", help="what for")
    bind(reserve, ReserveOptions, reserve_board)
    release = _one_board(actions, "release", "end its reservation")
    release.add_argument("--force", action="store_true", help="somebody else's too")
    bind(release, ReleaseOptions, release_board)
    power = _one_board(actions, "power", "run its power hook")
    power.add_argument("switch", choices=("on", "off", "cycle"))
    bind(power, PowerOptions, switch_power)

    text = "an emulated board, to try faults on: results are real, latencies mean nothing"
    emulated = actions.add_parser("qemu", help=text, description=sentence(text))
    emulated.add_argument("step", choices=("build", "start", "stop"), help="make its image; start a machine; stop it")
    emulated.add_argument(
        "--dir", type=Path, help="the image's folder, `image` in boards.toml (default ~/.cache/hilnas/qemu)"
    )
    bind(emulated, QemuOptions, emulate)


def _action(actions: Commands, name: str, text: str) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=sentence(text))
    add_boards(action)
    return action


def _one_board(actions: Commands, name: str, text: str) -> argparse.ArgumentParser:
    action = _action(actions, name, text)
    action.add_argument("name", help="a name in --boards")
    return action


def list_boards(options: ListOptions) -> int:
    from hil.boards.catalog import all_boards

    for config in all_boards(options.boards).values():
        _show_board(config, _occupancy(config) if options.probe else "")
    return 0


def check_board(options: CheckOptions) -> int:
    """`ModelError` or `BoardError` with the first finding that failed."""
    config = options.config
    findings = []
    for finding in examined(config):
        findings.append(finding)
        if not options.json:
            console.say(f"{STATES[finding.state]:5}{finding.check:11}{finding}")
    if options.json:
        console.say_json({"board": config.name, "findings": [finding.to_json() for finding in findings]})
    failed = [finding for finding in findings if finding.state == "failed"]
    if failed:
        kind = ModelError if failed[0].check == MODEL else BoardError
        text = str(failed[0]).removeprefix(f"board {config.name}: ")
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise kind(f"board {config.name}: {text}{more}")
    return 0


def trust_board(options: BoardOptions) -> int:
    from hil.boards.kinds import trust

    for pinned in trust(options.config):
        console.say(
            f"pinned {pinned.fingerprint} for {pinned.server}: compare it with what {pinned.compare} prints on its own "
            "console"
        )
    return 0


def reserve_board(options: ReserveOptions) -> int:
    from hil.reservation import reserve, seconds_of

    seconds = seconds_of(options.duration)
    with _shared(options.config) as board:
        console.say(f"{options.name}: {reserve(board, seconds, options.note)}")
    return 0


def release_board(options: ReleaseOptions) -> int:
    from hil.reservation import release

    with _shared(options.config) as board:
        release(board, force=options.force)
    console.say(f"{options.name}: released")
    return 0


def switch_power(options: PowerOptions) -> int:
    from hil.boards.kinds import open_board
    from hil.boards.power import switch

    config = options.config
    if config.kind == "labgrid":
        with open_board(config) as board:  # the place's own power hook
            switch(board.config, options.switch)
    else:
        switch(config, options.switch)
    console.say(f"{config.name}: power {options.switch}")
    return 0


def emulate(options: QemuOptions) -> int:
    from hil.boards.qemu_image import default_folder

    folder = options.dir.resolve() if options.dir else default_folder()
    steps: dict[str, Callable[[Path], None]] = {"build": _build_image, "start": _start_machine, "stop": _stop_machine}
    steps[options.step](folder)
    return 0


def _build_image(folder: Path) -> None:
    from hil.boards.qemu_image import build, find_image

    begin = time.monotonic()
    for step in build(folder):
        console.say(step)
    size_mb, seconds = find_image(folder).size_bytes() / 1e6, time.monotonic() - begin
    console.say(f"{folder}: {size_mb:.0f} MB, ready after {seconds:.0f} s")


def _start_machine(folder: Path) -> None:
    from hil.boards import qemu

    begin = time.monotonic()
    machine = qemu.start(folder)
    console.say(f"it answers after {time.monotonic() - begin:.0f} s and runs until `hilnas board qemu stop`")
    options = f"-i {machine.key} -o UserKnownHostsFile={machine.known_hosts} -p {machine.port}"
    console.say(f"ssh {options} root@127.0.0.1")


def _stop_machine(folder: Path) -> None:
    from hil.boards import qemu

    qemu.stop(folder)
    console.say("the machine is off and its disk is deleted")


def examined(config: BoardConfig) -> Iterator[Finding]:
    """Whether a board is fit to measure on and computes a known-good model's exact output. Raises `UsageError`."""
    from hil.boards.kinds import open_board
    from hil.health import Finding, examine

    if config.kind == "replay":
        raise UsageError(f"board {config.name} is a replay: it has no machine to check")
    well = True
    try:
        with open_board(config) as board:
            for finding in examine(board):
                well = well and finding.state != "failed"
                yield finding
            yield from _known_good(board) if well else [Finding(MODEL, "advice", "not run", "fix the board first")]
    except BoardError as error:
        yield Finding("board", "failed", str(error))


def _known_good(board: Board) -> Iterator[Finding]:
    """A small model, measured in the way that every model is measured."""
    import tempfile

    from deploy.compile import canary
    from hil.health import Finding
    from hil.measure import MeasureProtocol, measure
    from hil.session import Session
    from hil.store import Store

    with tempfile.TemporaryDirectory() as scratch, Session(board) as session:
        job = canary.known_good(Path(scratch))
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
    times = f"load {done.load_us} us, first inference {done.first_us} us, then {min(done.latencies_us):.4g} us at best"
    yield Finding(MODEL, "ok", f"ran {job.name}: {difference}; {times}")


def _occupancy(config: BoardConfig) -> str:
    """Who uses a board, in words; for a board that does not answer, why not."""
    from hil.boards.kinds import open_board
    from hil.reservation import occupancy

    if config.kind in LOCAL and not config.workdir:
        return "free"
    try:
        with open_board(config) as board:
            return str(occupancy(board))
    except (BoardError, UsageError) as error:
        return f"not known: {error}"


@contextmanager
def _shared(config: BoardConfig) -> Iterator[Board]:
    """A board that outlives this command."""
    from hil.boards.kinds import open_board

    if config.kind in LOCAL and not config.workdir:
        raise UsageError(f"board {config.name} is a {config.kind}, which nobody else uses: there is nothing to reserve")
    with open_board(config) as board:
        yield board


def _address(config: BoardConfig) -> str:
    """What boards.toml says of it; the rest is ~/.ssh/config's."""
    user, port = (f"{config.user}@" if config.user else ""), (f":{config.port}" if config.port else "")
    jump = f" through {config.jump}" if config.jump else ""
    return f"{user}{config.host}{port}{jump}"


def _show_board(config: BoardConfig, occupancy: str) -> None:
    """One line; `occupancy` is empty where no board was asked."""
    where = {
        "ssh": _address(config),
        "labgrid": f"place {config.place}",
        "replay": f"recorded in {config.store}",
    }.get(config.kind, "this machine")
    words = {"fleet": config.fleet, "delegate": config.delegate, **config.labels}
    more = "".join(f"  {name} {value}" for name, value in words.items() if value)
    console.say(f"{config.name:12} {config.kind:10} {where}{more}{'  ' + occupancy if occupancy else ''}")
