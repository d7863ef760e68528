"""`hilnas profile`: any .tflite files on one board, or on several of one fleet."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deploy.cli import console, passes
from deploy.cli.results import open_store
from deploy.compile.artifact import Artifact
from deploy.compile.canary import known_good
from deploy.formats.tflite.read import read
from hil.boards.catalog import find_board
from hil.boards.config import BoardConfig, open_board
from hil.errors import ModelError, UsageError
from hil.fleet import Lost, measure_on_fleet
from hil.measure import Job, MeasureProtocol, measure, now
from hil.measurement import Measurement
from hil.session import open_session
from hil.store import Store


def run(arguments: argparse.Namespace, settings: MeasureProtocol) -> int:
    """Measure and show; the exit code. Raises `ModelError` naming the first model that failed."""
    jobs = [job(path) for path in arguments.models]
    configs = [find_board(arguments.boards, name) for name in arguments.board.split(",")]
    if arguments.memory or arguments.layers:
        if len(configs) > 1:
            raise UsageError(f"--board {arguments.board}: memory and layers are looked at on one board")
        return passes.run(jobs, settings, configs[0], layers=arguments.layers, as_json=arguments.json)
    if not arguments.skip_existing:
        settings = replace(settings, series=now())  # nothing that was measured before answers
    with tempfile.TemporaryDirectory() as scratch, open_store(arguments.store) as store:
        canary = known_good(Path(scratch))
        done = list(_measured(configs, jobs, settings, store, canary=canary, retry_failed=arguments.retry_failed))
    console.profile(done, arguments.json)
    failed = [m for m in done if m.failure is not None]
    if failed and failed[0].failure is not None:
        raise ModelError(f"{failed[0].model} failed on {failed[0].conditions.unit}: {failed[0].failure.reason}")
    return 0


def job(path: Path) -> Job:
    """A model with the golden pair beside it, `NAME.input.bin` and `NAME.expected.bin`, if there is one.

    Raises `ModelError` for what is no model.
    """
    read(path)
    pair = Artifact.at(path.parent, path.stem)
    if pair.input.is_file() and pair.expected.is_file():
        return Job(path, path.name, pair.input, pair.expected)
    return Job(path, path.name)


def _measured(
    configs: Sequence[BoardConfig],
    jobs: Sequence[Job],
    settings: MeasureProtocol,
    store: Store,
    *,
    canary: Job,
    retry_failed: bool,
) -> Iterator[Measurement]:
    if len(configs) == 1:
        with open_board(configs[0]) as board, open_session(board) as session:
            yield from measure(session, jobs, settings, store, canary=canary, retry_failed=retry_failed)
        return
    for result in measure_on_fleet(configs, jobs, settings, store, canary=canary, retry_failed=retry_failed):
        if isinstance(result, Lost):
            console.say(f"lost {result.board}: {result.reason}")
        else:
            yield result
