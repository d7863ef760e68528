"""Outputs beyond a board's tolerance: right where two kernel sets differ as much on the file, wrong otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.boards.kinds import open_board
from hil.measure import Job, MeasureProtocol, measure
from hil.measurement import Parity
from hil.session import Session
from hil.spread import FACTOR, MOST, KernelSpread
from hil.store import Store
from tests.hil.loopback_boards import add_job, loopback

QUICK = MeasureProtocol(warmup_runs=0, runs=1, rounds=1)
ELEMENTS = 1024
TOLERANT = {"parity_max_mismatch": 0.02}


@given(st.floats(0, 1), st.integers(0, 1000))
def test_of_a_class_map_the_share_counts_and_never_a_distance(share: float, mismatched: int) -> None:
    spread, allowed = KernelSpread(share), min(FACTOR * share, MOST) * 1000
    assert spread.of_classes and not KernelSpread(share, 1.0).of_classes
    for apart in (1.0, 18.0):
        assert spread.allows(Parity(1000, mismatched, apart if mismatched else 0.0)) == (mismatched <= allowed)


@given(st.floats(0, 1), st.integers(0, 50), st.integers(0, 100))
def test_of_scores_the_distance_counts_and_never_the_share(share: float, most: int, apart: int) -> None:
    assert KernelSpread(share, most).allows(Parity(10, 10 if apart else 0, apart)) == (apart <= FACTOR * most)


def test_what_is_allowed_in_words() -> None:
    assert str(KernelSpread(0.3)) == "0.45 of them, since XNNPACK and the reference kernels differ on 0.3 for this file"
    assert str(KernelSpread(0.6)).startswith("0.5 of them, since")
    assert str(KernelSpread(0.9, 4.0)) == "by 6, since XNNPACK and the reference kernels differ by 4 for this file"


@pytest.fixture(scope="module", params=[{}, TOLERANT], ids=["exact", "tolerant"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with open_board(loopback("asyncssh", **request.param)) as board, Session(board) as opened:
        yield opened


def asked(job: Job, spread: KernelSpread | None) -> tuple[Job, list[Job]]:
    """The job with a spread, and a list that gets an entry each time that it is looked at."""
    calls: list[Job] = []

    def known() -> KernelSpread | None:
        calls.append(job)
        return spread

    return replace(job, spread=known), calls


def test_a_tolerance_is_exceeded_only_as_far_as_two_kernel_sets_differ(session: Session, tmp_path: Path) -> None:
    exact = not session.board.config.parity_max_mismatch
    cases: list[tuple[int, KernelSpread | None, bool]] = [
        (20, KernelSpread(0.1), True),  # within the tolerance: nobody asks
        (150, KernelSpread(0.1), True),
        (160, KernelSpread(0.1), False),
        (160, None, False),
    ]
    with Store(tmp_path / "s.db") as store:
        for i, (wrong, spread, right) in enumerate(cases):
            job, calls = asked(add_job(tmp_path, i, wrong=wrong), spread)
            (done,) = measure(session, [job], QUICK, store)
            beyond = wrong > 0.02 * ELEMENTS
            assert bool(calls) == (beyond and not exact)
            assert (done.status == "ok") == (right and not exact)
            assert ("spread" in done.flags) == (done.status == "ok" and beyond)
            if done.failure is not None:
                words = "or 0.15 of them, since XNNPACK and the reference kernels differ on 0.1" in done.failure.reason
                assert words == (spread is not None and not exact)


def test_no_distance_between_classes_makes_a_class_map_right(tmp_path: Path) -> None:
    """Of scores the same outputs are within the board's tolerance."""
    job = add_job(tmp_path, 1, wrong=160)
    cases = [(None, True, False), (KernelSpread(0.5, 1.0), True, False), (KernelSpread(0.1), False, False)]
    cases.append((KernelSpread(0.2), True, True))
    with open_board(loopback("asyncssh", parity_max_abs_diff=2.0)) as board, Session(board) as session:
        for i, (spread, right, flagged) in enumerate(cases):
            asked_job, _ = asked(job, spread)
            with Store(tmp_path / f"{i}.db") as store:
                (done,) = measure(session, [asked_job], QUICK, store)
            assert (done.status == "ok", "spread" in done.flags) == (right, flagged)
            if done.failure is not None:
                assert "by 1 at most; allowed: 0 of the elements, or 0.15 of them, since" in done.failure.reason


def test_a_job_is_the_same_with_or_without_it(tmp_path: Path) -> None:
    plain = add_job(tmp_path, 1)
    looked: Callable[[], None] = lambda: None  # noqa: E731
    assert replace(plain, spread=looked) == plain and "spread" not in repr(replace(plain, spread=looked))
