"""Answers that a board, or somebody in between, has changed: refused, or a measurement of this very model."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hil.answer import LONGEST_US, Answer, ModelOutputs
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, HilError
from hil.evaluate import evaluate
from hil.job import Job, RoundTask
from hil.measurement import Conditions, Measurement
from hil.request import Request
from hil.session import Session
from tests.hil.loopback_boards import loopback

SHA256 = "ab" * 32
CONDITIONS = Conditions(
    board="bench", unit="bench", kind="loopback", machine="aarch64", soc="i.MX8MP", kernel="6.6", bsp="Yocto",
    npu="none", driver="python", runtime="ai_edge_litert 2.1", delegate="none", kernels="builtin", threads=1,
    governor="performance", temperature_c=45.0, boot_id="one", python="3.11",
)  # fmt: skip
TASK = RoundTask(Job(Path("m.tflite"), "m", Path("x"), Path("y")), "identity", 0, "job", SHA256)
ANSWER: dict[str, Any] = {
    "id": "job", "ok": True, "model_sha256": SHA256, "conditions": CONDITIONS.key(), "load_us": 900, "first_us": 40,
    "warmup_us": 100, "warmup_runs": 5, "steady": True, "latencies_us": [20.5, 21, 20.125], "calls": 5, "clock_ns": 52,
    "parity": {"elements": 1024, "mismatched": 0, "max_abs_diff": 0.0}, "operators": ["ADD"], "delegated_nodes": 0,
    "cpu_operators": [], "cache": "none", "before": {"temperature_c": 45.0, "frequency_khz": 1800000},
    "after": {"temperature_c": None, "frequency_khz": None}, "others_busy": 0.01, "cores": 4,
}  # fmt: skip
FAILED: dict[str, Any] = {
    "id": "job", "ok": False, "conditions": CONDITIONS.key(),
    "failure": {"kind": "model", "stage": "run", "reason": "killed by SIGSEGV in its steady runs"},
}  # fmt: skip

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [-1, 10**18, 10**400, float("nan"), float("inf"), "20", "", [], {}, ["20"], [20.5], [-5], [True]]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(record: Mapping[str, Any], so_far: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in record.items():
        found.append((*so_far, name))
        if isinstance(value, Mapping):
            found += places(value, (*so_far, name))
    return found


def evaluated(raw: dict[str, Any]) -> Measurement:
    answer = Answer.from_json(raw, "board bench: the answer to m")
    return evaluate(answer, TASK, CONDITIONS, loopback(), "2026-01-01T00:00:00.000+00:00")


def require_honest(answer: dict[str, Any], done: Measurement) -> None:
    """What was accepted is about this model and these conditions, its output was right, and its numbers are numbers."""
    assert answer["conditions"] == CONDITIONS.key()
    assert (done.model_sha256, done.job_id) == (SHA256, "job")
    json.dumps(done.to_json(), allow_nan=False)
    if done.status == "ok":
        assert answer["model_sha256"] == SHA256
        assert done.parity is not None and done.parity.mismatched == 0 == done.parity.max_abs_diff
        times = [done.load_us, done.first_us, done.warmup_us]
        assert all(type(time) is int and 0 <= time <= LONGEST_US for time in times)
        assert all(type(us) in (int, float) and 0 <= us <= LONGEST_US for us in done.latencies_us)
        assert all(type(count) is int and count >= 1 for count in (done.calls, done.clock_ns, done.cores))
        assert list(done.latencies_us) == answer["latencies_us"]
        assert not answer.get("failure")


def test_the_answers_themselves_are_accepted() -> None:
    assert evaluated(ANSWER).status == "ok"
    assert evaluated(FAILED).failure.reason == "killed by SIGSEGV in its steady runs"


@given(st.sampled_from([ANSWER, FAILED]), st.data())
def test_a_field_changed_or_left_out(whole: dict[str, Any], data: st.DataObject) -> None:
    answer = copy.deepcopy(whole)
    *path, last = data.draw(st.sampled_from(places(answer)))
    inner = answer
    for name in path:
        inner = inner[name]
    if data.draw(st.booleans()):
        inner[last] = data.draw(odd)
    else:
        del inner[last]
    try:
        done = evaluated(answer)
    except HilError as error:
        assert isinstance(error, BoardError) and "\n" not in str(error)
        return
    require_honest(answer, done)


@given(st.dictionaries(st.sampled_from([*ANSWER, "failure", "texts", "averaged", "delegate_said"]), odd))
def test_any_fields(changes: dict[str, Any]) -> None:
    answer = {**ANSWER, **changes}
    try:
        done = evaluated(answer)
    except BoardError:
        return
    require_honest(answer, done)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_sha256": "cd" * 32}, "another model"),
        ({"conditions": "0" * 16}, "other conditions"),
        ({"conditions": None}, "other conditions"),
        ({"parity": None}, "compares no outputs"),
        ({"latencies_us": []}, "latencies_us"),
        ({"latencies_us": [20, 21, -1]}, "latencies_us"),
        ({"latencies_us": [20.5, float("nan")]}, "latencies_us"),
        ({"latencies_us": [20.5, float("inf")]}, "latencies_us"),
        ({"latencies_us": [True]}, "latencies_us"),
        ({"calls": 0}, "calls"),
        ({"calls": 2.5}, "calls"),
        ({"clock_ns": 0}, "clock_ns"),
        ({"cores": 0}, "cores"),
        ({"kept_s": -1}, "kept_s"),
        ({"latencies_us": ["20"]}, "latencies_us"),
        ({"latencies_us": [10**18]}, "latencies_us"),
        ({"parity": {"elements": 4, "mismatched": 5, "max_abs_diff": 1.0}}, "parity"),
        ({"parity": {"elements": 4, "mismatched": 1, "max_abs_diff": 0.0}}, "parity"),
        ({"parity": {"elements": 0, "mismatched": 0, "max_abs_diff": 0.0}}, "parity"),
        ({"others_busy": float("nan")}, "others_busy"),
        ({"failure": {"kind": "weather", "reason": "rain"}}, "failure"),
        ({"texts": [5]}, "texts is"),
        ({"averaged": True}, "averaged is unknown"),
        ({"ok": False}, "ok is False, which `failure` contradicts"),
        ({"log": "layers"}, "load_us is unknown"),
    ],
    ids=str,
)
def test_the_message_names_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BoardError, match=said):
        evaluated({**ANSWER, **changes})


REQUEST = Request(
    id="1", name="m", model="m.tflite", warmup_runs=1, runs=3, threads=1, kernels="builtin", compile_deadline_s=20,
    run_deadline_s=20,
)  # fmt: skip


class Liar:
    """A process that prints one line, whatever it is asked."""

    def __init__(self, line: str) -> None:
        self.line = line

    def receive(self, timeout_s: float) -> str:
        return self.line


def test_an_answer_that_waited_on_the_board_is_dated_by_its_run() -> None:
    kept = evaluated({**ANSWER, "kept_s": 7200.0})
    age = datetime.now(UTC) - datetime.fromisoformat(kept.started_at)
    assert timedelta(seconds=7200) <= age < timedelta(seconds=7260)
    assert evaluated(ANSWER).started_at == "2026-01-01T00:00:00.000+00:00"


def test_the_record_has_what_is_doubtful_about_its_numbers() -> None:
    good = evaluated(ANSWER)
    assert (good.calls, good.clock_ns, good.cores, good.flags) == (5, 52, 4, ())
    assert evaluated({**ANSWER, "others_busy": 0.11}).flags == ("neighbours",)
    assert evaluated({**ANSWER, "calls": 1, "clock_ns": 206}).flags == ("coarse",)
    assert evaluated({**ANSWER, "calls": 1, "clock_ns": 204}).flags == ()
    many = replace(CONDITIONS, threads=5)
    answer = Answer.from_json({**ANSWER, "conditions": many.key()}, "it")
    assert evaluate(answer, TASK, many, loopback(), "2026-01-01T00:00:00.000+00:00").flags == ("oversubscribed",)


@pytest.mark.parametrize("name", ANSWER)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(BoardError, match=f"the answer to m is malformed: {name} is missing"):
        evaluated({key: value for key, value in ANSWER.items() if key != name})


def test_texts_of_benchmark_model_are_refused_from_the_python_driver() -> None:
    kept = ("id", "ok", "conditions", "model_sha256", "cache", "before", "after", "others_busy", "cores")
    with pytest.raises(BoardError, match="holds ProgramRuns, no runs of driver 'python'"):
        evaluated({"texts": ["count=1"], **{name: ANSWER[name] for name in kept}})


@given(st.text(max_size=60) | odd.map(json.dumps))
@example("[" * 100_000)
@example('{"id": null, "failure": 5}')
@example('{"id": "1", "failure": {"kind": ["model"], "reason": "x"}}')
def test_any_line_to_a_session(line: str) -> None:
    session = Session(SSHBoard(loopback()))
    session._runner = Liar(line)
    session._sent.append(REQUEST)
    try:
        if "beat" not in line:
            session.receive("1")
    except HilError as error:
        assert "\n" not in str(error)
    finally:
        session._scripts.cleanup()


PACKED = base64.b64encode(zlib.compress(b"abcdef")).decode()
OUTPUTS: dict[str, Any] = {
    "id": "job", "ok": True, "model_sha256": SHA256, "conditions": CONDITIONS.key(), "load_us": 900,
    "invoke_us": [40, 20], "sizes": [2, 4], "outputs": PACKED, "delegated_nodes": 0,
}  # fmt: skip


def test_outputs_are_unpacked() -> None:
    found = Answer.from_json(OUTPUTS, "board bench: the answer to m").outcome
    assert found == ModelOutputs((b"ab", b"cdef"), 900, (40, 20), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": [2, 3]},
        {"sizes": [2, 5]},
        {"sizes": [1 << 60]},
        {"sizes": []},
        {"outputs": "no base64"},
        {"outputs": base64.b64encode(b"no zlib").decode()},
        {"outputs": base64.b64encode(zlib.compress(b"\0" * 10**7)).decode()},  # unfolds into more than announced
    ],
)
def test_outputs_that_were_changed_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BoardError, match=r"outputs|sizes"):
        Answer.from_json(OUTPUTS | change, "board bench: the answer to m")
