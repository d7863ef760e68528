"""Several boards of one kind work one queue; a board that dies gives its jobs back.

Jobs may come from a generator that compiles them: it runs ahead in a thread of its own, so that no board waits for
the host. A board takes a batch at a time and measures its rounds interleaved, so that models of one batch compare
within one board.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import BoardError, UsageError
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement
from hil.sessions import open_session
from hil.store import Store

BATCH = 32
POLL_S = 0.2


@dataclass(frozen=True)
class Lost:
    """A board that left the fleet, and why."""

    board: str
    reason: str


class _Queue:
    """Batches of jobs: made ahead of time, taken by boards, given back by those that die."""

    def __init__(self, jobs: Iterable[Job], size: int, ahead: int) -> None:
        self._jobs, self._size = iter(jobs), size
        self._made: queue.Queue[list[Job]] = queue.Queue(ahead)
        self._returned: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        self._out = 0  # batches that some board has
        self._lock = threading.Lock()
        self._exhausted = threading.Event()
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def make(self) -> None:
        """Fills the queue until the jobs end. What the generator raises, `error` holds."""
        try:
            while batch := list(itertools.islice(self._jobs, self._size)):
                while not self.stopped.is_set():
                    try:
                        self._made.put(batch, timeout=POLL_S)
                        break
                    except queue.Full:
                        continue
                if self.stopped.is_set():
                    return
        except BaseException as error:  # it is raised again where the measurements are awaited
            self.error = error
        finally:
            self._exhausted.set()

    def take(self) -> list[Job] | None:
        """The next batch; None when all are done. Waits while another board may yet give one back."""
        while not self.stopped.is_set():
            ended = self._exhausted.is_set()
            with self._lock:
                for source in (self._returned, self._made):
                    try:
                        batch = source.get_nowait()
                    except queue.Empty:
                        continue
                    self._out += 1
                    return batch
                if ended and self._out == 0:
                    return None
            self.stopped.wait(POLL_S / 4)
        return None

    def done(self) -> None:
        with self._lock:
            self._out -= 1

    def give_back(self, batch: list[Job]) -> None:
        with self._lock:
            self._out -= 1
            self._returned.put(batch)


def measure_on_fleet(
    configs: Sequence[BoardConfig],
    jobs: Iterable[Job],
    protocol: MeasureProtocol,
    store: Store,
    *,
    seed: int = 0,
    canary: Job | None = None,
    retry_failed: bool = False,
    batch: int = BATCH,
) -> Iterator[Measurement | Lost]:
    """Like `hil.measure.measure`, over several boards at once; a `Lost` where a board left the fleet.

    What a lost board had done is in the store and is not run again where its conditions are the fleet's. Raises the
    last board's BoardError when none is left, and whatever the generator of jobs raises.
    """
    _require_alike(configs)
    if isinstance(jobs, Sized):
        batch = max(min(batch, -(-len(jobs) // len(configs))), 1)  # few jobs are for all boards too
    work = _Queue(jobs, batch, 2 * len(configs))
    results: queue.SimpleQueue[Measurement | Lost | Exception | None] = queue.SimpleQueue()

    def serve(config: BoardConfig) -> None:
        taken: list[Job] | None = None
        try:
            with open_board(config) as board, open_session(board) as session:
                while taken := work.take():
                    for done in measure(
                        session, taken, protocol, store, seed=seed, canary=canary, retry_failed=retry_failed
                    ):
                        results.put(done)
                        if work.stopped.is_set():
                            return
                    work.done()
                    taken = None
        except BoardError as error:
            results.put(Lost(config.name, str(error)))
        except Exception as error:  # not a fault of the board: it goes to the caller
            results.put(error)
        finally:
            if taken:
                work.give_back(taken)
            results.put(None)

    threads = [threading.Thread(target=work.make, daemon=True)]
    threads += [threading.Thread(target=serve, args=(config,), daemon=True) for config in configs]
    for thread in threads:
        thread.start()
    try:
        yield from _collected(results, len(configs), work)
    finally:
        work.stopped.set()
        for thread in threads[1:]:
            thread.join()


def _collected(
    results: queue.SimpleQueue[Measurement | Lost | Exception | None], boards: int, work: _Queue
) -> Iterator[Measurement | Lost]:
    lost: list[Lost] = []
    seen: set[tuple[str, str]] = set()
    while boards:
        result = results.get()
        if result is None:
            boards -= 1
        elif isinstance(result, Exception):
            raise result
        elif isinstance(result, Lost):
            lost.append(result)
            yield result
        elif (shown := (result.job_id, result.model)) not in seen:  # a lost board had done a part of its batch
            seen.add(shown)
            yield result
        if work.error is not None:
            raise work.error
    if work.take() is not None:
        raise BoardError(f"no board is left: {lost[-1].reason}" if lost else "no board is left")


def _require_alike(configs: Sequence[BoardConfig]) -> None:
    """Boards of one fleet only: the latencies of others do not compare."""
    if not configs:
        raise UsageError("no boards: name at least one")
    fleets = {config.fleet or config.name for config in configs}
    if len(fleets) > 1:
        raise UsageError(
            f"boards {', '.join(config.name for config in configs)} are not of one fleet: "
            "give them one `fleet` in boards.toml if they are alike, or measure on each alone"
        )
    if len({config.name for config in configs}) < len(configs):
        raise UsageError("a board is named twice: name each one once")
