from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.answer import Answer, ProgramRuns
from hil.benchmark_model import Delegation, ProfiledLayer, Report, Runs, read_report, runs_of
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import BoardError, HilError, ModelError, UsageError
from hil.measure import MeasureProtocol, measure
from hil.measurement import Measurement, digest
from hil.request import Request
from hil.session import Session
from hil.stage import sha256_of
from hil.store import Store
from tests.hil.benchmark_texts import Program, render, report
from tests.hil.loopback_boards import add_job, loopback

QUICK = MeasureProtocol(warmup_runs=2, runs=12, rounds=1, compile_deadline_s=20, run_deadline_s=20)
COMPLETE, PARTIAL, NONE = (Delegation("EXTERNAL", kernels) for kernels in (1, 2, 0))

OLDER = """STARTING!
Log parameter values verbosely: [0]
Graph: [/tmp/hilnas/objects/ab.tflite]
Loaded model /tmp/hilnas/objects/ab.tflite
The input model file size (MB): 3.57776
Initialized session in 12.3ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=2950340

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=7013 curr=7001 min=6950 max=7102 avg=7003.5 std=31

Inference timings in us: Init: 12300, First inference: 2950340, Warmup (avg): 2.95034e+06, Inference (avg): 7003.5
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
Peak memory footprint (MB): init=6.44141 overall=64.8633
"""
NEWER = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Loaded model m.tflite
INFO: EXTERNAL delegate created.
Vx delegate: allowed_cache_mode set to 0.
ERROR: Int64 output is not supported
INFO: Fallback unsupported op 32 to TfLite
INFO: Explicitly applied EXTERNAL delegate, and the model graph will be partially executed by the delegate w/ 2 \
delegate kernels.
INFO: Initialized session in 15.037ms.
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463
INFO: count=50 first=9004 curr=8983 min=8980 max=9061 avg=8996 std=15 p5=8983 median=8992 p95=9043
INFO: Inference timings in us: Init: 15037, First inference: 905463, Warmup (avg): 905463, Inference (avg): 8996
INFO: Overall peak memory footprint (MB) via periodic monitoring: 81.4492
"""


def test_the_older_format() -> None:
    found = read_report(OLDER)
    assert found.model == "/tmp/hilnas/objects/ab.tflite" and found.delegations == ()
    assert (found.init_us, found.first_us, found.peak_mb) == (12300, 2950340, 64.8633)
    assert found.warmup == Runs(1, *[2950340.0] * 5, 0.0)
    assert found.runs == Runs(50, 7013, 7001, 6950, 7102, 7003.5, 31)
    assert found.runs.typical_us == 7003.5


def test_the_newer_format() -> None:
    found = read_report(NEWER)
    assert found.delegations == (PARTIAL,) and found.fallbacks == (32,)
    assert found.errors == ("Int64 output is not supported",)
    assert (found.init_us, found.first_us, found.peak_mb) == (15037, 905463, 81.4492)
    assert found.runs.median_us == found.runs.typical_us == 8992
    assert (found.runs.p5_us, found.runs.p95_us) == (8983, 9043)


def test_equal_runs_are_printed_in_short() -> None:
    long = "first=7013 curr=7001 min=6950 max=7102 avg=7003.5 std=31"
    found = read_report(OLDER.replace(long, "curr=9(all same)").replace("7003.5", "9"))
    assert found.runs == Runs(50, 9, 9, 9, 9, 9, 0)


@pytest.mark.parametrize("csv", [True, False])
def test_the_profile_of_the_regular_runs_alone(csv: bool) -> None:
    layers = (
        ProfiledLayer("[a, b]:0", "Convolution (NHWC, QC8) IGEMM", 407.0),
        ProfiledLayer("Delegate/x:1", "CONV_2D", 0.5),
    )
    assert read_report(render(report(layers=layers, median_us=7990.0), csv=csv)).layers == layers


def test_samples_of_several_invocations() -> None:
    texts = [render(report(8000.0, 7990.0, COMPLETE)), render(report(8200.0, None, PARTIAL, Delegation("XNNPACK", 1)))]
    runs = runs_of(texts, external=True)
    assert runs.latencies_us == (7990, 8200) and runs.averaged
    assert (runs.load_us, runs.first_us) == (18738, 140706)
    assert (runs.warmup_runs, runs.warmup_us) == (10, 2 * (6 * 20000 - 20003))
    assert runs.delegated_nodes == 1
    assert runs_of(texts[1:], external=False).delegated_nodes == 3


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", BoardError, "nothing"),
        ("sh: 1: benchmark_model: not found", BoardError, "not found"),
        ("count=3 avg=no\ncount=0\ncount=1 curr=1e999", BoardError, "1e999"),
        ("count=1e999 curr=5\ncount=1e300 curr=5", BoardError, "1e999"),
        (OLDER[: OLDER.index("count=50")], ModelError, "150 seconds"),  # its one count line is the warm-up's
        (NEWER[: NEWER.index("INFO: count")], ModelError, "Int64 output"),
        (OLDER.replace("avg=7003.5", "avg=1e999"), ModelError, "64.8633"),  # the warm-up's mean is not the runs'
        (OLDER.replace("avg=7003.5", "avg=7103.5"), ModelError, "64.8633"),
    ],
)
def test_a_text_without_a_result(text: str, kind: type[HilError], said: str) -> None:
    with pytest.raises(kind, match=said):
        read_report(text)


numbers = st.floats(0, 1e9).map(lambda value: float(f"{value:g}"))
words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
kernels = st.one_of(st.just(0), st.just(1), st.integers(2, 99))
milliseconds = st.floats(0, 1e5).map(lambda value: float(f"{value:g}") * 1000)


@st.composite
def some_runs(draw: st.DrawFn, newer: bool) -> Runs:
    spread = [draw(numbers) for _ in range(3)] if newer else []
    count = draw(st.integers(1, 9999))
    if count == 1 or draw(st.booleans()):
        return Runs(count, *[draw(numbers)] * 5, 0.0, *spread)
    times = draw(st.lists(numbers, min_size=6, max_size=6).filter(lambda found: found[2] != found[3]))
    return Runs(count, *times, *spread)


@st.composite
def some_reports(draw: st.DrawFn) -> Report:
    newer = draw(st.booleans())
    kinds = st.sampled_from(["CONV_2D", "Convolution (NHWC, QC8) IGEMM", "TfLiteVxDelegate"])
    names = st.lists(words, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}]:7")
    return report(
        0.0,
        None,
        *draw(st.lists(st.builds(Delegation, words, kernels), max_size=3)),
        model=draw(words),
        fallbacks=tuple(draw(st.lists(st.integers(0, 200), max_size=3))),
        errors=tuple(draw(st.lists(words, max_size=3))),
        init_us=draw(numbers),
        first_us=draw(numbers),
        warmup=draw(st.one_of(st.none(), some_runs(newer))),
        runs=draw(some_runs(newer)),
        peak_mb=draw(st.one_of(st.none(), numbers)),
        layers=tuple(draw(st.lists(st.builds(ProfiledLayer, names, kinds, milliseconds), max_size=4))),
    )


@given(some_reports())
def test_every_report_is_read_back(wanted: Report) -> None:
    assert read_report(render(wanted)) == wanted


@given(st.one_of(st.text(), st.lists(st.sampled_from((OLDER + NEWER).split()), max_size=40).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    refused_or_read(text)


@given(some_reports(), st.data())
def test_a_damaged_text_is_read_or_refused(whole: Report, data: st.DataObject) -> None:
    text = render(whole)
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    refused_or_read(text[:begin] + data.draw(st.text(max_size=20)) + text[end:])


def refused_or_read(text: str) -> None:
    try:
        runs_of([text], external=True)
    except (BoardError, ModelError) as error:
        assert "\n" not in str(error)


def test_a_hostile_line_is_soon_read() -> None:
    header = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n=== Run Order ===\nnode type, avg_ms, first, name\n"
    )
    begin = time.monotonic()
    read_report(OLDER + header + ("1, " * 80_000) + "\n" + "count=" + "9" * 200_000)
    assert time.monotonic() - begin < 5


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@contextmanager
def driven(program: Program, **settings: object) -> Iterator[Session]:
    config = loopback(driver="benchmark_model", benchmark_model=str(program.path), **settings)
    with open_board(config) as board, Session(board) as session:
        yield session


def measured(session: Session, folder: Path, protocol: MeasureProtocol = QUICK) -> Measurement:
    with Store(folder / "store.db") as store:
        return next(measure(session, [add_job(folder, 1)], protocol, store, retry_failed=True))


def test_a_model_is_timed_by_the_program(program: Program, tmp_path: Path) -> None:
    program.says(render(report(8000.0, 7990.0, COMPLETE)))
    library = tmp_path / "libvx delegate.so"
    library.write_bytes(b"")
    options = {"allowed_cache_mode": "true", "cache_file_path": "/tmp/a $(touch b) 'c'"}
    with driven(program, kernels="builtin", threads=2, delegate=str(library), delegate_options=options) as session:
        done = measured(session, tmp_path)
    assert done.status == "ok" and done.latencies_us == (7990,) * 5
    this_machines = {"neighbours", "oversubscribed", "throttled"}  # flags that it may deserve
    assert {"averaged", "unchecked"} == {*done.flags} - this_machines
    assert done.parity is None
    assert (done.conditions.driver, done.delegated_nodes, done.first_us) == ("benchmark_model", 1, 140706)
    assert done.conditions.runtime.startswith("benchmark_model@")
    calls = program.calls()
    assert [argument for call in calls for argument in call[0] if argument.startswith("--num_runs")] == [
        f"--num_runs={count}" for count in (3, 3, 2, 2, 2)
    ]
    given_to, environment, _ = calls[0]
    model = sha256_of(add_job(tmp_path, 1).model)
    own_cache = digest([model, done.conditions.key()])[:32]  # no other model's graph is loaded from it
    assert given_to[0].startswith("--graph=") and given_to[0].endswith(".tflite") and not environment
    assert given_to[1:] == [
        "--num_threads=2", "--warmup_runs=3", "--warmup_min_secs=0", "--num_runs=3", "--min_secs=0", "--max_secs=20",
        f"--external_delegate_path={library}",
        f"--external_delegate_options=allowed_cache_mode:true;cache_file_path:/tmp/a $(touch b) 'c'.{own_cache}",
        "--use_xnnpack=false",
    ]  # fmt: skip


def test_a_silent_fallback_fails(program: Program, tmp_path: Path) -> None:
    library = tmp_path / "d.so"
    library.write_bytes(b"")
    fallen = report(8000.0, 7990.0, NONE, Delegation("XNNPACK", 1), fallbacks=(32,))
    program.says(render(fallen))
    with driven(program, delegate=str(library)) as session:
        done = measured(session, tmp_path)
        assert done.failure and done.failure.kind == "model" and not done.latencies_us
        assert "took no part" in done.failure.reason and "left operator 32" in done.failure.reason
        program.says(render(report(8000.0, 7990.0, PARTIAL)))
        assert measured(session, tmp_path).delegated_nodes == 2
    program.says(render(fallen))
    with driven(program, delegate=str(library), allow_fallback=True) as session:
        assert measured(session, tmp_path).status == "ok"


def test_a_failure_of_the_program_is_reported_with_its_last_lines(program: Program, tmp_path: Path) -> None:
    started = OLDER[: OLDER.index("count=1")]
    cases = [
        ((started + "ERROR: Node 3 failed", {"signal": signal.SIGSEGV}), "SIGSEGV", "Node 3 failed"),
        ((started + "ERROR: Benchmarking failed.", {"status": 1}), "status 1", "Benchmarking failed"),
        ((started, {}), "reports no measured runs", "150 seconds"),
    ]
    with driven(program) as session:
        for (text, plan), how, said in cases:
            program.says(text, **plan)
            with Store(tmp_path / f"{how}.db") as store:
                done = next(measure(session, [add_job(tmp_path, 1)], QUICK, store))
            assert done.failure and done.failure.kind == "model"
            assert how in done.failure.reason and said in done.failure.reason
        program.says("what is this?")
        with pytest.raises(BoardError, match=r"bench: this is no text of benchmark_model.*what is this"):
            measured(session, tmp_path)


@pytest.mark.parametrize(
    ("before_count", "deadlines", "said"),
    [  # the first one holds the program's start too
        (True, {"compile_deadline_s": 5.0}, "first inference within 5 s"),
        (False, {"run_deadline_s": 1.0}, "steady runs within 1 s"),
    ],
)
def test_a_hang_meets_the_deadline_of_its_stage(
    program: Program, tmp_path: Path, before_count: bool, deadlines: dict[str, float], said: str
) -> None:
    at = OLDER.index("count=1") if before_count else OLDER.index("count=50")
    program.says(OLDER[:at] + "HANG\n" + OLDER[at:])
    limits = {"compile_deadline_s": 20.0, "run_deadline_s": 20.0, **deadlines}
    with driven(program) as session:
        done = measured(session, tmp_path, MeasureProtocol(rounds=1, **limits))
        assert done.failure and f"no end of its {said}" in done.failure.reason
        assert ended(program.calls()[0][2])


def test_a_killed_runner_leaves_no_program_behind(program: Program, tmp_path: Path) -> None:
    program.says("HANG")
    with driven(program) as session:
        model = session.stage.stage(add_job(tmp_path, 1).model)
        request = Request(
            id="job", name="add1", model=model, warmup_runs=1, runs=3, threads=1, kernels="xnnpack",
            compile_deadline_s=20, run_deadline_s=20,
        )  # fmt: skip
        session.send(request)
        pid = program.wait_for_a_call()
        runner = psutil.Process(pid).parent().parent()
        assert runner is not None
        runner.kill()
        assert ended(pid)


def ended(pid: int) -> bool:
    """Or about to: nobody may have fetched its status."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_flood_is_clipped_and_its_end_read(program: Program, tmp_path: Path) -> None:
    program.says("FLOOD\n" + OLDER)
    with driven(program) as session:
        answers: list[Answer] = []
        receive = session.receive
        session.receive = lambda job_id: answers.append(receive(job_id)) or answers[-1]  # type: ignore[method-assign,func-returns-value]
        assert measured(session, tmp_path).latencies_us == (7003.5,) * 5
    printed = answers[0].outcome
    assert isinstance(printed, ProgramRuns) and sum(map(len, printed.texts)) < (256 << 10) + 1000
    left_out = 40 * 100_001 + len("FLOOD\n" + OLDER) - (256 << 10) // 5
    assert all(f"[... left out here: {left_out} bytes ...]" in text for text in printed.texts)


def test_a_board_needs_neither_numpy_nor_a_runtime(program: Program, tmp_path: Path) -> None:
    bare = "/usr/bin/python3"
    if (
        not Path(bare).exists()
        or subprocess.run([bare, "-c", "import ai_edge_litert"], check=False, capture_output=True).returncode == 0
    ):
        pytest.skip(f"no {bare} without a runtime here")
    program.says(NEWER)
    with driven(program, python=bare) as session:
        assert measured(session, tmp_path).latencies_us == (8992,) * 5


def test_no_program_is_the_boards_fault(program: Program) -> None:
    program.path.chmod(0o644)
    with pytest.raises(BoardError, match=r"no program .*tensorflow-lite examples"), driven(program):
        pass


def test_the_newest_of_several_programs_runs(tmp_path: Path) -> None:
    programs = {}
    for version in ("2.9.1", "2.16.2"):
        folder = tmp_path / f"tensorflow-lite-{version}" / "examples"
        folder.mkdir(parents=True)
        programs[version] = Program(folder)
        programs[version].says(OLDER)
    config = loopback(
        driver="benchmark_model", benchmark_model=f"{tmp_path}/tensorflow-lite-*/examples/benchmark_model"
    )
    with open_board(config) as board, Session(board) as session:
        assert measured(session, tmp_path).status == "ok"
    assert len(programs["2.16.2"].calls()) == 5 and not (programs["2.9.1"].folder / "calls").exists()


def test_settings_that_the_program_has_no_words_for() -> None:
    base = {"name": "b", "kind": "loopback", "driver": "benchmark_model"}
    for settings, said in [
        ({"kernels": "reference"}, "reference"),
        ({"delegate_options": {"a": "1;b"}}, "':' and ';'"),
    ]:
        with pytest.raises(UsageError, match=said):
            BoardConfig(**{**base, **settings})  # type: ignore[arg-type]
