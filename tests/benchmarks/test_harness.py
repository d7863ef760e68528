"""harness_overhead: milliseconds a measured model costs beyond its own run time, on the loopback board."""

from __future__ import annotations

import json
import statistics
import time
from importlib.resources import files
from pathlib import Path

import pytest

from deploy.standalone import compile_subnets
from hil.boards.inventory import BoardConfig, open_board
from hil.measure import Job, MeasureProtocol, measure
from hil.session import Session
from hil.store import Store

LIMIT = 30.0
PROTOCOL = MeasureProtocol(warmup_runs=3, runs=20, rounds=1)
REPOSITORY = Path(__file__).parents[2]


def own_ms(load_us: int, first_us: int, latencies_us: list[int]) -> float:
    """What the model itself took: loading, the first inference, warm-up and counted runs."""
    steady = sum(latencies_us) * (PROTOCOL.warmup_runs + PROTOCOL.runs) / PROTOCOL.runs
    return (load_us + first_us + steady) / 1000


@pytest.mark.benchmark(group="harness")
def test_harness_overhead(benchmark, tmp_path):
    names = [f"b4_k3e3-k{k}e{e}_w8" for k in (3, 5, 7) for e in (3, 6)] + [f"b1_k3e3-k{k}e3_w8" for k in (3, 5, 7)]
    models = list(compile_subnets(REPOSITORY / "configs/spaces/demo.toml", names, (64, 64), tmp_path))
    jobs = [Job(m, m.stem, m.with_suffix(".input.bin"), m.with_suffix(".expected.bin")) for m in models]
    overheads: list[float] = []
    with open_board(BoardConfig("loopback", "loopback")) as board, Session(board) as session:
        rounds = iter(range(100))

        def persistent() -> None:
            store = Store(tmp_path / f"{next(rounds)}.sqlite")
            start = time.perf_counter()
            done = list(measure(session, jobs, PROTOCOL, store))
            wall_ms = 1000 * (time.perf_counter() - start)
            store.close()
            assert all(m.parity and m.parity.mismatched == 0 for m in done)
            own = sum(own_ms(m.load_us, m.first_us, list(m.latencies_us)) for m in done)
            overheads.append((wall_ms - own) / len(done))

        benchmark.pedantic(persistent, rounds=5, warmup_rounds=1)
        single = statistics.median(one_process_ms(session, job) for job in jobs[:5])
    figure = statistics.median(overheads[1:])
    benchmark.extra_info.update(
        figure=figure,
        unit="ms/model",
        limit=LIMIT,
        holds=figure <= LIMIT,
        ratio=single / figure,
        against="one process per model",
    )


def one_process_ms(session: Session, job: Job) -> float:
    """The same job with a runner of its own, started for it over SSH."""
    runner = session.stage.stage(Path(str(files("board_scripts").joinpath("runner.py"))))
    request = {
        "id": job.name,
        "model": session.stage.stage(job.model),
        "threads": 1,
        "kernels": "xnnpack",
        "warmup_runs": PROTOCOL.warmup_runs,
        "runs": PROTOCOL.runs,
        "compile_deadline_s": 60,
        "run_deadline_s": 60,
    }
    start = time.perf_counter()
    process = session.board.start(["env", "OMP_NUM_THREADS=1", session.board.config.python, runner])
    assert json.loads(process.receive(60))["ready"]
    process.send(json.dumps(request))
    answer = json.loads(process.receive(60))
    process.close()
    wall_ms = 1000 * (time.perf_counter() - start)
    return wall_ms - own_ms(answer["load_us"], answer["first_us"], answer["latencies_us"])
