"""pytest: the fixture `board_benchmark` measures a model on a board, for pytest-benchmark to save and compare.

    def test_fast(board_benchmark):
        board_benchmark("models/fast.tflite", "models/fast.input.bin", "models/fast.expected.bin")

    pytest --hilnas-board imx8mp --benchmark-json=today.json

What pytest-benchmark sees are the board's own runs, in seconds, not the time of the call here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from hil.measure import MeasureProtocol
    from hil.measurement import Measurement
    from hil.sessions import JobSession

BoardBenchmark: TypeAlias = Callable[..., "list[Measurement]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hilnas", "measuring on boards")
    group.addoption("--hilnas-board", default=os.environ.get("HILNAS_BOARD", "loopback"), help="a name in boards.toml")
    group.addoption("--hilnas-boards", type=Path, metavar="FILE")


@pytest.fixture(scope="session")
def hilnas_session(pytestconfig: pytest.Config) -> Iterator[Callable[[str | None], JobSession]]:
    """The session on a board by its name, or on that of --hilnas-board: one per board for all tests.

    Raises UsageError, BoardError.
    """
    from hil.boards.catalog import find_board
    from hil.boards.kinds import open_board
    from hil.sessions import open_session

    sessions: dict[str, JobSession] = {}
    with ExitStack() as stack:

        def on(board: str | None) -> JobSession:
            name = board or pytestconfig.getoption("hilnas_board")
            if name not in sessions:
                config = find_board(pytestconfig.getoption("hilnas_boards"), name)
                sessions[name] = stack.enter_context(open_session(stack.enter_context(open_board(config))))
            return sessions[name]

        yield on


@pytest.fixture
def board_benchmark(
    benchmark: Any, hilnas_session: Callable[[str | None], JobSession], tmp_path: Path, pytestconfig: pytest.Config
) -> BoardBenchmark:
    """`board_benchmark(model, input=None, expected=None, board=None, protocol=None)` returns one measurement per round.

    Files and protocol as for `hil.measure.Job` and `MeasureProtocol`; `input_shapes={"x": (1, 224, 224, 3)}` gives all
    inputs their sizes, in the model's order. One call per test. Raises ModelError for a model
    that crashes, hangs or answers wrongly, UsageError, BoardError.
    """

    def measured(
        model: str | os.PathLike[str],
        input: str | os.PathLike[str] | None = None,
        expected: str | os.PathLike[str] | None = None,
        *,
        board: str | None = None,
        protocol: MeasureProtocol | None = None,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> list[Measurement]:
        from hil.errors import ModelError, UsageError
        from hil.input_shape import InputShape
        from hil.measure import Job, MeasureProtocol, measure, now
        from hil.store import Store

        if benchmark._mode is not None:
            raise UsageError(f"{benchmark.name}: a second board_benchmark: measure one model per test, or parametrize")
        benchmark._mode = "board_benchmark(...)"  # else pytest-benchmark finds its fixture unused
        path = Path(model)
        given, wanted = (None if name is None else Path(name) for name in (input, expected))
        shapes = tuple(InputShape(name, tuple(shape)) for name, shape in (input_shapes or {}).items())
        job = Job(path, path.stem, given, wanted, shapes)
        session = hilnas_session(board)
        with Store(tmp_path / "measurements.sqlite") as store:  # pytest keeps the folders of its last three calls
            done = list(measure(session, [job], replace(protocol or MeasureProtocol(), series=now()), store))
        failures = [m.failure for m in done if m.failure is not None]
        if failures:
            raise ModelError(f"{path} failed on {session.board.name}: {failures[0].reason}")
        if benchmark.enabled:
            _record(benchmark, done)
            _warn_of_other_conditions(benchmark, done[0], pytestconfig)
        return done

    return measured


def _record(benchmark: Any, done: list[Measurement]) -> None:
    """The runs become the benchmark's; what pytest-benchmark has no place for, its extra_info."""
    first = done[0]
    benchmark.extra_info.update(
        board=first.conditions.board,
        conditions_key=first.conditions.key(),
        conditions=first.conditions.to_json(),
        model_sha256=first.model_sha256,
        load_us=first.load_us,
        first_us=first.first_us,
        flags=sorted({flag for m in done for flag in m.flags}),
    )
    stats = benchmark._make_stats(1)  # as it does for a callable to time
    for measurement in done:
        for latency_us in measurement.latencies_us:
            stats.update(latency_us / 1e6)


def _warn_of_other_conditions(benchmark: Any, done: Measurement, config: Any) -> None:
    """--benchmark-compare puts any two numbers side by side; these should not be."""
    for path, saved in config._benchmarksession.compared_mapping.items():
        before = saved.get(benchmark.fullname, {}).get("extra_info", {}).get("conditions_key")
        if before is not None and before != done.conditions.key():
            warnings.warn(f"{path}: {benchmark.name} was measured there under other conditions", stacklevel=3)
