"""What every kind of board promises to `measure`, a replay included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hil.errors import UsageError
from hil.measure import Job, measure, pooled
from hil.measurement import Measurement
from hil.stage import sha256_of
from hil.store import Store
from tests.hil.measuring_benches import KINDS, QUICK, Bench, measuring_bench


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with measuring_bench(request.param, tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def test_rounds_of_good_models(bench: Bench, store: Store) -> None:
    jobs = bench.jobs[:3]
    done = list(measure(bench.session, jobs, QUICK, store))
    assert [m.round for m in done] == [0, 0, 0, 1, 1, 1]
    assert {m.model for m in done} == {job.name for job in jobs}
    assert {m.model_sha256 for m in done} == {sha256_of(job.model) for job in jobs}
    assert all(m.status == "ok" and len(m.latencies_us) == 4 and min(m.latencies_us) >= 0 for m in done)
    assert all(m.parity and m.parity.mismatched == 0 and m.parity.elements == 1024 for m in done)
    assert {m.operators for m in done} == {("ADD",)}
    assert store.all() == done
    assert {len(pool) for pool in pooled(done).values()} == {8}


def test_a_wrong_output_voids_its_latency_and_nobody_elses(bench: Bench, store: Store) -> None:
    done = list(measure(bench.session, bench.jobs, QUICK, store))
    assert {m.model for m in done if m.status == "failed"} == {bench.jobs[-1].name}
    failed = [m for m in done if m.failure is not None]
    assert len(failed) == 2 and not any(m.latencies_us for m in failed)
    assert "5 of 1024 elements" in failed[0].failure.reason and failed[0].failure.kind == "model"
    assert [m.status for m in done].count("ok") == 6


def test_an_interrupted_run_goes_on(bench: Bench, store: Store) -> None:
    begun = measure(bench.session, bench.jobs[:3], QUICK, store)
    first = [next(begun), next(begun)]
    begun.close()
    bench.session.reconnect()
    done = list(measure(bench.session, bench.jobs[:3], QUICK, store))
    assert done[:2] == first and len({m.job_id for m in done}) == 6
    assert store.all() == done


def test_its_conditions_name_its_kind_and_hold_still(bench: Bench) -> None:
    before = bench.session.conditions
    assert before.kind == bench.session.board.config.kind
    assert before.board.startswith("replay of ") == (before.kind == "replay")
    assert all((before.machine, before.kernel, before.runtime, before.soc))
    bench.session.reconnect()
    assert bench.session.conditions.key() == before.key()


def test_records_survive_the_store(bench: Bench, store: Store) -> None:
    (done,) = measure(bench.session, bench.jobs[:1], replace(QUICK, rounds=1), store)
    assert Measurement.from_json(done.to_json()) == done


def test_a_missing_file_is_a_usage_error(bench: Bench, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.tflite"):
        list(measure(bench.session, [Job(tmp_path / "none.tflite", "none")], QUICK, store))
