"""A run's models on its boards, every round durable in the run's store before it is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence

from deploy.compile.canary import known_good
from deploy.run.context import Context
from deploy.run.folder import Progress
from hil.boards.kinds import open_board
from hil.fleet import BATCH, Lost, measure_on_fleet
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement
from hil.sessions import open_session
from hil.store import Store

logger = logging.getLogger(__name__)


def measured(
    context: Context, jobs: Sequence[Job], protocol: MeasureProtocol, *, together: bool = False
) -> Iterator[Measurement]:
    """The measurements of `jobs` as they come; what the run's store holds is not measured again.

    `together`: all on one board of a fleet, so that each round is of one board at one time.
    A board that leaves the fleet is a warning of this module's logger: the others measure what it had.
    """
    if not jobs:
        return
    seed, canary = context.experiment.seed, known_good(context.path / "canary")
    with Store(context.path / "measurements.sqlite") as store:
        if len(context.boards) == 1:
            with open_board(context.board) as board, open_session(board) as session:
                yield from measure(session, jobs, protocol, store, seed=seed, canary=canary)
            return
        queue = (iter(jobs), len(jobs)) if together else (jobs, BATCH)
        for result in measure_on_fleet(
            context.boards, queue[0], protocol, store, seed=seed, canary=canary, batch=queue[1]
        ):
            if isinstance(result, Lost):
                logger.warning("lost %s: %s", result.board, result.reason)
            else:
                yield result


def measure_with_progress(
    context: Context,
    jobs: Sequence[Job],
    protocol: MeasureProtocol,
    stage: str,
    text: str = "measured",
    *,
    done: int = 0,
    total: int | None = None,
    check: Callable[[Measurement], None] | None = None,
    together: bool = False,
) -> Generator[Progress, None, list[Measurement]]:
    """All measurements of `jobs`; yields `stage`'s progress after each.

    `text` precedes the model's name. `done` of `total` (None: these jobs alone) were done before. `check` may refuse
    a measurement as it comes. `together` as of `measured`.
    """
    found: list[Measurement] = []
    total = done + len(jobs) * protocol.rounds if total is None else total
    for measurement in measured(context, jobs, protocol, together=together):
        if check is not None:
            check(measurement)
        found.append(measurement)
        yield Progress(stage, done + len(found), total, f"{text} {measurement.model}", (measurement,))
    return found
