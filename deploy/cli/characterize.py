"""`hilnas board characterize`: a board's measurements beside its target's rules, and a target file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.compile import parse_size
from deploy.cli.options import Parser, add_json, add_protocol, add_store
from hil.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from deploy.characterize.measuring import Characterized
    from deploy.characterize.outcomes import FactOutcome
    from deploy.targets.placement import Target
    from hil.boards.config import BoardConfig

WRITTEN_BY = "# Written by `hilnas board characterize`"
TEXT = "do its latencies and outputs agree with its target's rules? writes a target of its own"


@dataclass(frozen=True, kw_only=True)
class CharacterizeOptions:
    """`target`: None: the board's; `out`: None: the user's folder of targets; `size`: as "96x128"."""

    name: str
    boards: Path | None = None
    target: str | None
    size: str
    warmup_runs: int
    runs: int
    rounds: int
    store: str
    out: Path | None
    json: bool = False


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "--target", metavar="NAME", help="compare with this target's rules (default: the board's target)"
    )
    parser.add_argument(
        "--size",
        default="96x128",
        metavar="HxW",
        help="of the maps (default %(default)s); smaller ones are quick",
    )
    add_protocol(parser, runs=20, rounds=4)
    add_store(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write NAME.toml (default: ~/.config/hilnas/targets)"
    )
    add_json(parser)


def characterize_board(options: CharacterizeOptions) -> int:
    """`CheckFailed` where the board disagrees with a rule; its own target is written all the same."""
    from deploy.targets.placement import load_target
    from hil.boards.catalog import boards_file, configuration_folder, find_board

    config = find_board(options.boards, options.name)
    name = options.target or config.target
    if not name:
        raise UsageError(f"board {config.name} has no target in boards.toml: name one there, or give --target")
    boards = boards_file(options.boards)
    target = load_target(boards.parent / "targets" if boards else None, name)
    out = (options.out or configuration_folder() / "targets") / f"{config.name}.toml"
    _check_ours(out)
    found = _measured(options, config, target)
    _write(out, target, found, config)
    disagreeing = [o for o in found.outcomes if o.verdict == "disagrees"]
    if options.json:
        record = {"board": config.name, "target": target.name, "written": str(out)}
        console.say_json({**record, "facts": [o.to_json() for o in found.outcomes]})
    else:
        _show(found.outcomes)
        console.say(
            f'{out}: the rules of {target.name} with this evidence; to use it: target = "{config.name}" in boards.toml'
        )
    if disagreeing:
        more = f" (and {len(disagreeing) - 1} more)" if len(disagreeing) > 1 else ""
        raise CheckFailed(
            f"board {config.name} disagrees with {target.name} on {disagreeing[0].fact}{more}: {disagreeing[0].said}; "
            f"{out} follows the board"
        )
    return 0


def _measured(options: CharacterizeOptions, config: BoardConfig, target: Target) -> Characterized:

    from deploy.characterize.measuring import characterize
    from deploy.cli.results import open_store
    from hil.job import MeasureProtocol

    protocol = MeasureProtocol(warmup_runs=options.warmup_runs, runs=options.runs, rounds=options.rounds)
    with open_store(options.store) as store, console.progress() as show:
        steps = characterize(config, target, parse_size(options.size), protocol, store)
        while True:
            try:
                show(next(steps))
            except StopIteration as end:
                done: Characterized = end.value
                return done


def _check_ours(path: Path) -> None:
    """Raises `UsageError` for a file of rules that somebody wrote."""
    if path.exists() and not path.read_text(encoding="utf8", errors="replace").startswith(WRITTEN_BY):
        raise UsageError(f"{path}: not written by this command, and not replaced: move it, or give another --out")


def _write(path: Path, target: Target, found: Characterized, config: BoardConfig) -> None:
    from deploy.characterize.own_target import own_target
    from deploy.formats.files import write_atomically
    from deploy.targets.target_file import text_of
    from hil.measurement import now

    c = found.conditions
    comments = [
        f"{WRITTEN_BY.removeprefix('# ')} from {target.name} at {now()}, on {c.board} ({c.soc}; {c.bsp};",
        f"kernel {c.kernel}; NPU {c.npu}; {c.runtime}; delegate {c.delegate}).",
        'Rules with evidence "board" were measured there; where it disagreed, a rule of that operator stands first.',
        *(f"{o.fact}: {o.verdict}; {o.said}" for o in found.outcomes),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text_of(own_target(target, found, config.name), comments))


def _show(outcomes: Sequence[FactOutcome]) -> None:
    """What is in doubt last, where it is read first."""
    order = ("no rule", "agrees", "undecided", "disagrees")
    for o in sorted(outcomes, key=lambda o: order.index(o.verdict)):
        console.say(f"{o.verdict:10} {o.fact:42} {o.said}")
    counts = (f"{sum(o.verdict == verdict for o in outcomes)} {verdict}" for verdict in reversed(order))
    console.say(f"{len(outcomes)} facts: {', '.join(counts)}")
