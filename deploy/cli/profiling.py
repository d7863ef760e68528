"""`hilnas profile`: any .tflite files on one board, or on several of one fleet; also their memory and their layers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.model_files import add_input_shapes, check_golden_pair, measurable
from deploy.cli.options import Commands, add_board, add_json, add_protocol, add_store, bind
from hil.errors import ModelError, UsageError

if TYPE_CHECKING:
    from hil.boards.config import BoardConfig
    from hil.input_shape import InputShape
    from hil.job import Job, MeasureProtocol
    from hil.measurement import Measurement
    from hil.passes import Layers, Memory
    from hil.store import Store

ON_A_BOARD = "measure models on a board: latency; accuracy on images"


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """`board`: several of one fleet are separated by commas; `input_shapes`: NAME=1x224x224x3."""

    models: tuple[Path, ...]
    board: str
    boards: Path | None = None
    warmup_runs: int
    runs: int
    rounds: int
    store: str
    skip_existing: bool
    retry_failed: bool
    json: bool = False
    memory: bool = False
    layers: bool = False
    input_shapes: tuple[str, ...] = ()


def add(commands: Commands) -> None:
    profile = commands.add_parser(
        "profile",
        help=ON_A_BOARD,
        description="Measures the latency of .tflite files on a board. A golden pair beside a model (NAME.input.bin, "
        "NAME.expected.bin) is checked first. Several boards of one fleet (--board A,B) share the work.",
    )
    profile.add_argument("models", nargs="+", type=Path, metavar="MODEL.tflite")
    add_input_shapes(profile)
    add_board(profile, "a name in --boards; several of one fleet: A,B (default %(default)s)")
    add_protocol(profile, runs=30, rounds=3)
    add_store(profile)
    profile.add_argument(
        "--skip-existing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="do not measure again what the store holds (default); --no-skip-existing adds new measurements to it",
    )
    profile.add_argument("--retry-failed", action="store_true", help="measure again what the store holds as failed")
    add_json(profile)
    passes = profile.add_mutually_exclusive_group()
    passes.add_argument("--memory", action="store_true", help="peak memory instead (MB), in a separate pass")
    passes.add_argument("--layers", action="store_true", help="time per layer instead (us), from the NPU driver's log")
    bind(profile, ProfileOptions, run)


def run(options: ProfileOptions) -> int:
    """Measure and show. Raises `ModelError` naming the models that failed."""
    import tempfile

    from deploy.cli import profile_table
    from deploy.cli.results import open_store
    from deploy.compile.canary import known_good
    from hil.boards.catalog import find_board
    from hil.job import MeasureProtocol
    from hil.measure import now
    from hil.names import shortest

    paths = list({path.absolute(): path for path in options.models}.values())
    configs = [find_board(options.boards, name) for name in options.board.split(",")]
    shapes = measurable(paths, options.input_shapes, configs)
    named = zip(paths, shapes, shortest(paths), strict=True)
    jobs = [replace(job(path, sizes), name=name) for path, sizes, name in named]
    protocol = MeasureProtocol(warmup_runs=options.warmup_runs, runs=options.runs, rounds=options.rounds)
    if options.memory or options.layers:
        if len(configs) > 1:
            raise UsageError(f"--board {options.board}: --memory and --layers take one board; name one")
        return _passes(options, jobs, protocol, configs[0])
    if not options.skip_existing:
        protocol = replace(protocol, series=now())  # nothing that was measured before is of this series
    begun = now()
    with tempfile.TemporaryDirectory() as scratch, open_store(options.store) as store:
        canary = known_good(Path(scratch))
        done = list(_measured(configs, jobs, protocol, store, canary=canary, retry_failed=options.retry_failed))
    if options.json:
        console.say_json([{**m.to_json(), "stored": m.started_at < begun} for m in done])
    else:
        profile_table.show(profile_table.rows_of(done, begun), options.store)
    _require_all(done)
    return 0


def _require_all(done: Sequence[Measurement]) -> None:
    """Raises `ModelError` naming every model that failed, with the reason of its first round that did."""
    failed: dict[str, str] = {}
    for m in done:
        if m.failure is not None:
            failed.setdefault(m.model, f"{m.model} failed on {m.conditions.unit}: {m.failure.reason}")
    if failed:
        count = f"{len(failed)} of {len({m.model for m in done})} models failed: " if len(failed) > 1 else ""
        raise ModelError(count + " | ".join(failed.values()))


def job(path: Path, input_shapes: tuple[InputShape, ...]) -> Job:
    """A model with the golden pair beside it, `NAME.input.bin` and `NAME.expected.bin`, if there is one."""
    from deploy.compile.artifact import Artifact
    from deploy.compile.tails import class_map_of
    from hil.job import Job

    pair = Artifact.at(path.parent, path.stem)
    if pair.input.is_file() and pair.expected.is_file():
        check_golden_pair((pair.input, pair.expected))
        return replace(pair, name=path.name, model=path, input_shapes=input_shapes).job()
    return Job(path, path.name, input_shapes=input_shapes, class_map=class_map_of(path))


def _measured(
    configs: Sequence[BoardConfig],
    jobs: Sequence[Job],
    protocol: MeasureProtocol,
    store: Store,
    *,
    canary: Job,
    retry_failed: bool,
) -> Iterator[Measurement]:
    from hil.boards.kinds import open_board
    from hil.fleet import Lost, measure_on_fleet
    from hil.measure import measure
    from hil.sessions import open_session

    if len(configs) == 1:
        with open_board(configs[0]) as board, open_session(board) as session:
            yield from measure(session, jobs, protocol, store, canary=canary, retry_failed=retry_failed)
        return
    for result in measure_on_fleet(configs, jobs, protocol, store, canary=canary, retry_failed=retry_failed):
        if isinstance(result, Lost):
            console.warn(f"lost {result.board}: {result.reason}")
        else:
            yield result


# Passes of their own, printed and not stored


def _passes(options: ProfileOptions, jobs: Sequence[Job], protocol: MeasureProtocol, config: BoardConfig) -> int:
    from hil.boards.kinds import open_board
    from hil.passes import layers_of, memory_of
    from hil.sessions import open_session

    with open_board(config) as board, open_session(board) as session:
        if options.layers:
            layers = [layers_of(session, job, protocol) for job in jobs]
            _say_passes(layers) if options.json else _show_layers(layers)
        else:
            sizes = [memory_of(session, job, protocol) for job in jobs]
            _say_passes(sizes) if options.json else _show_memory(sizes)
        if not options.json:
            console.say(f"on {session.conditions.board}, {session.conditions.runtime}")
    return 0


def _say_passes(found: Sequence[Memory] | Sequence[Layers]) -> None:
    console.say_json([one.to_json() for one in found])


def _show_memory(found: Sequence[Memory]) -> None:
    rows = []
    for one in found:
        sizes = (one.peak_bytes, one.before_bytes, one.loaded_bytes, one.cma_bytes)
        rows.append((one.model, *("-" if size is None else f"{size / 1e6:.1f}" for size in sizes)))
    console.table(("model", "peak MB", "before it MB", "loaded MB", "NPU pool MB"), rows)


def _show_layers(found: Sequence[Layers]) -> None:
    for one in found:
        if not one.layers:
            console.say(f"{one.model}: this board reports no time per layer; --json shows what it printed")
            continue
        total_us = sum(layer.time_us for layer in one.layers)
        shares = [100 * layer.time_us / total_us if total_us else 0.0 for layer in one.layers]
        rows = [
            (layer.name, f"{layer.time_us:.0f}", f"{share:.1f}", layer.kind)
            for layer, share in zip(one.layers, shares, strict=True)
        ]
        console.table(("layer", "us", "%", "what"), rows, left=("what",))
        cut = "" if one.complete else "; the log was too long: layers in its middle are missing"
        console.say(f"{one.model}: {len(one.layers)} layers, {total_us:.0f} us, slower than without the log{cut}")
