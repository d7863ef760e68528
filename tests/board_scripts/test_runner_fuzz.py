"""Whatever comes in, the runner answers one line for one line, lives on, and stays within its folder."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.board_scripts.script_programs import Runner
from tests.hil import tiny_model

QUICKLY = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
numbers = itertools.count(1)


class Fuzzed:
    """A runner that serves `work`, beside a folder that it has no business in."""

    def __init__(self, folder: Path) -> None:
        self.work, self.outside = folder / "work", folder / "outside"
        self.work.mkdir()
        (self.outside / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
        (self.outside / "sys/class/thermal/thermal_zone0/temp").write_text("12345")
        self.model = tiny_model.int8_add(self.work / "m.tflite")
        self.secret = tiny_model.int8_add(self.outside / "m.tflite")
        os.mkfifo(self.outside / "pipe")  # to open it for reading would block
        (self.work / "link").symlink_to(self.secret)
        self.before = self.seen_outside()
        self.runner = Runner(folder / "runner.pyz", "--workdir", str(self.work), "--token", "mine")

    def seen_outside(self) -> dict[str, tuple[int, int, int]]:
        found = [*self.work.parent.iterdir(), *self.outside.rglob("*")]
        stats = {path: path.stat() for path in found if path.name not in ("work", "runner.pyz")}
        return {str(path): (stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}

    def said_to(self, data: bytes) -> list[dict[str, Any]]:
        """The answers to these lines. Ours comes last, and shows that it still listens."""
        number = next(numbers)
        self.write(data + b'\n{"ack": %d}\n' % number)
        answers = []
        while True:
            answer = self.runner.receive()
            if answer["id"] is None and answer["failure"]["reason"].startswith(f"malformed job: ack is {number}:"):
                assert self.seen_outside() == self.before
                assert {path.name for path in self.work.iterdir()} <= KNOWN
                return answers
            answers.append(answer)

    def job(self, **fields: Any) -> dict[str, Any]:
        """A good job, but for these fields; {work} and {outside} stand for the two folders."""
        job = {
            "id": "job", "model": "{work}/m.tflite", "warmup_runs": 0, "runs": 2, "threads": 1,
            "kernels": "builtin", "compile_deadline_s": 5, "run_deadline_s": 0.3, **fields,
        }  # fmt: skip
        folders = {"{work}": str(self.work), "{outside}": str(self.outside)}
        for name, value in job.items():
            for short, whole in folders.items() if isinstance(value, str) else ():
                job[name] = job[name].replace(short, whole)
        return job

    def write(self, data: bytes) -> None:
        while data:
            data = data[self.runner.process.stdin.write(data) :]


KNOWN = {"m.tflite", "link", "spool", "runner.lock", "reservation.lock"}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    made = Fuzzed(tmp_path_factory.mktemp("fuzz"))
    yield made
    assert made.runner.close() == 0


def is_refused(answer: dict[str, Any]) -> bool:
    return answer["id"] is None and not answer["ok"] and answer["failure"]["kind"] == "harness"


@QUICKLY
@given(st.binary(max_size=300))
def test_any_bytes(fuzzed: Fuzzed, data: bytes) -> None:
    answers = fuzzed.said_to(data)
    assert len(answers) == data.count(b"\n") + 1
    assert all(map(is_refused, answers))


odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@QUICKLY
@given(odd_values)
def test_any_json(fuzzed: Fuzzed, value: object) -> None:
    answers = fuzzed.said_to(json.dumps(value).encode())
    assert len(answers) == 1 and is_refused(answers[0])


ODD_NUMBERS = [float("nan"), float("inf"), -float("inf"), -1, 0, 1e-9, 10**400, 1e308, "5", None, True, [1], 0.3]
ODD_COUNTS = [0, 1, 3, -1, 1.5, True, "3", None, 10**9, 2**31, 2**63, 10**400]
ODD_NAMES = ["", ".", "..", "../x", "a/b", "a\n", "x" * 101, "\0", "\ud800", "runner.lock", "-rf", 5, None, "ok"]
PATHS = [
    "{work}/m.tflite", "{work}/link", "{work}/../outside/m.tflite", "{outside}/m.tflite", "{outside}/pipe",
    "{work}", "{work}/none", "../outside/m.tflite", "m.tflite", "/etc/passwd", "/dev/zero", "/proc/self/mem",
    "", "\0", "{work}/\ud800", "{work}/" + "x" * 5000, "~/x", "file:{work}/m.tflite", 5, None, [], {"a": 1},
]  # fmt: skip

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(ODD_NAMES) | odd_values,
    "model": st.sampled_from(PATHS),
    "input": st.sampled_from(PATHS),
    "expected": st.sampled_from(PATHS),
    "delegate": st.sampled_from(["/no/such.so", "", "\0", "{work}/m.tflite", 5]),
    "delegate_options": odd_values,
    "graph_cache": st.sampled_from(ODD_NAMES),
    "conditions": odd_values,
    "kernels": st.sampled_from(["builtin", "reference", "gpu", "", None, 1, []]),
    "pass": st.sampled_from(["time", "memory", "layers", "power", None, {}]),
    "warmup_runs": st.sampled_from(ODD_COUNTS),
    "warmup_runs_most": st.sampled_from(ODD_COUNTS),
    "runs": st.sampled_from(ODD_COUNTS),
    "threads": st.sampled_from(ODD_COUNTS),
    "compile_deadline_s": st.sampled_from(ODD_NUMBERS),
    "run_deadline_s": st.sampled_from(ODD_NUMBERS),
    "cool_down_s": st.sampled_from(ODD_NUMBERS),
    "max_temperature_c": st.sampled_from(ODD_NUMBERS),
    "sys": st.sampled_from(["{outside}/sys", "/sys", 5]),
    "proc": st.sampled_from(["{outside}", "\0", None]),
    "kmsg": st.sampled_from(["{outside}/pipe", 7]),
    "class_map": st.sampled_from(
        [[], [[4, 6]], [[0, 1]], [[1, 2, 3]], [[1.0, 2]], [[1 << 40, 1]], [[2, 2]] * 9, 5, "x"]
    ),
    "surplus": odd_values,
}
# few at a time: most odd values are refused by themselves
INSIDE = ("{work}/m.tflite", "{work}/none", "{work}/" + "x" * 5000)
jobs = st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


@QUICKLY
@given(jobs, st.integers(0, 10**9))
def test_jobs_with_odd_fields(fuzzed: Fuzzed, odd: dict[str, Any], number: int) -> None:
    job = fuzzed.job(id=f"job-{number}", **odd) if "id" not in odd else fuzzed.job(**odd)
    answers = fuzzed.said_to(json.dumps(job).encode())
    assert len(answers) == 1
    answer = answers[0]
    assert is_refused(answer) or answer["id"] == job["id"]
    if not answer["ok"]:
        assert answer["failure"]["kind"] in ("harness", "board", "model") and isinstance(
            answer["failure"]["reason"], str
        )
    elif job.get("pass", "time") == "time":
        assert job["model"] == f"{fuzzed.work}/m.tflite"
        assert len(answer["latencies_us"]) == job["runs"]
        assert answer["before"]["temperature_c"] != 12.345  # no client names the instruments


@pytest.mark.parametrize("name", ["model", "input", "expected"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:40])
def test_paths_that_lead_elsewhere(fuzzed: Fuzzed, name: str, path: Any) -> None:
    job = fuzzed.job(**{name: path})
    (answer,) = fuzzed.said_to(json.dumps(job).encode())
    if path not in INSIDE and (path or name == "model"):
        assert not answer["ok"] and answer["failure"]["kind"] == "harness"


@QUICKLY
@given(st.lists(st.sampled_from(ODD_NAMES) | st.text(max_size=12), max_size=4))
def test_acknowledgements_of_odd_names(fuzzed: Fuzzed, names: list[Any]) -> None:
    assert all(map(is_refused, fuzzed.said_to(json.dumps({"ack": names}).encode())))
    assert fuzzed.model.exists() and (fuzzed.work / "runner.lock").exists()


def test_a_long_job_is_not_run_shortened(fuzzed: Fuzzed) -> None:
    (answer,) = fuzzed.said_to(json.dumps(fuzzed.job(surplus="x" * (2 << 20))).encode())
    assert is_refused(answer) and "bytes" in answer["failure"]["reason"]


@pytest.mark.parametrize(
    "line",
    [b"9" * (8 << 20), b'{"id": "' + b"x" * (3 << 20) + b'"}', b"[" * 300_000, b'{"a":' * 100_000, b" " * (2 << 20)],
    ids=["number", "id", "lists", "objects", "blanks"],
)
def test_huge_and_deep_lines(fuzzed: Fuzzed, line: bytes) -> None:
    answers = fuzzed.said_to(line)
    assert len(answers) == 1 and is_refused(answers[0])
    assert len(json.dumps(answers[0])) < 1000
