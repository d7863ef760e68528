"""What others had of the cores: from the kernel's files as they are, and as they may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from board_scripts import neighbours
from board_scripts.neighbours import Counters, others_busy

QUIET = Counters(busy=0, every=0, own=0.0, waited_ns=0, ready=0, at_ns=0)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_others_are_all_but_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of all cores: user nice system idle iowait irq softirq steal; guest counts in user already."""
    proc, own = str(tmp_path), iter((20.0, 50.0, 1000.0))
    monkeypatch.setattr(neighbours, "own_ticks", lambda: next(own))
    write(tmp_path / "stat", "cpu 100 0 50 800 50 0 0 0 7 7\ncpu0 1 2 3\n")
    since = neighbours.counters(proc)
    assert (since.busy, since.every) == (150, 1000)
    write(tmp_path / "stat", "cpu 160 5 70 900 50 3 2 0 9 9\n")  # 90 busy of 190, 30 of them ours
    assert others_busy(since, neighbours.counters(proc)) == round(60 / 190, 3)
    assert others_busy(since, neighbours.counters(proc)) == 0.0  # never below


def test_what_cannot_be_read_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "own_ticks", lambda: 0.0)
    for text in ("", "cpu\n", "cpu a b c d e\nprocs_running\n", "procs_running x\n"):
        write(tmp_path / "stat", text)
        write(tmp_path / "self/schedstat", text)
        assert neighbours.counters(str(tmp_path))[:5] == QUIET[:5]
    assert neighbours.counters(str(tmp_path / "none"))[:5] == QUIET[:5]


def test_a_time_too_short_for_ticks_counts_who_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    write(tmp_path / "stat", "cpu 100 0 50 800 50 0 0 0 0 0\nintr 1 2\nprocs_running 5\nprocs_blocked 0\n")
    write(tmp_path / "self/schedstat", "123456 789 10\n")
    found = neighbours.counters(str(tmp_path), threads=2)
    assert (found.ready, found.waited_ns) == (3, 789)
    since, end = QUIET._replace(ready=2), QUIET._replace(ready=3, every=neighbours.TICKS_TELL - 1, busy=1, at_ns=10**6)
    assert others_busy(since, end) == 0.5
    assert others_busy(since._replace(ready=0), end) == 0.0  # it came and went
    assert others_busy(since, end._replace(every=neighbours.TICKS_TELL)) == round(1 / neighbours.TICKS_TELL, 3)


def test_waiting_for_a_core_is_others_work_unless_we_wait_for_ourselves() -> None:
    end = QUIET._replace(waited_ns=300_000, at_ns=1_000_000)
    assert others_busy(QUIET, end) == 0.3
    assert others_busy(QUIET, end, crowded=True) == 0.0


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "1000000 100000\n"}, 10),
        ({"cpu.max": "nonsense"}, 64),
        ({"cpu.max": "1 0\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 64),
    ],
    ids=str,
)
def test_the_cores_of_a_container_are_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        write(tmp_path / "fs/cgroup" / name, text)
    assert neighbours.cores(str(tmp_path)) == quota


def test_an_affinity_counts(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert neighbours.cores(str(tmp_path)) == 1
    finally:
        os.sched_setaffinity(0, mine)
