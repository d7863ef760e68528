"""The lines that a runner of any version reads: their form is fixed."""

from __future__ import annotations

import json
from pathlib import Path

from board_scripts.runner import parse
from hil.boards.config import BoardConfig
from hil.job import Job, MeasureProtocol, RoundTask, request_of
from hil.request import Acknowledgement

FILES = {Path("m.tflite"): "/w/objects/m.tflite", Path("x"): "/w/objects/x", Path("y"): "/w/objects/y"}
PROTOCOL = MeasureProtocol(warmup_runs=1, warmup_runs_most=2, runs=3, compile_deadline_s=20, run_deadline_s=30)
PLAIN = {
    "id": "job", "attempt": 1, "round": 2, "conditions": "key", "model": "/w/objects/m.tflite", "threads": 4,
    "kernels": "builtin", "warmup_runs": 1, "warmup_runs_most": 2, "runs": 3, "compile_deadline_s": 20,
    "run_deadline_s": 30,
}  # fmt: skip


def test_a_plain_job() -> None:
    task = RoundTask(Job(Path("m.tflite"), "m"), "identity", 2, "job", "ab" * 32, attempt=1)
    request = request_of(task, BoardConfig("b", "loopback", threads=4, kernels="builtin"), "key", PROTOCOL, FILES)
    raw = request.to_json()
    assert parse(json.dumps(raw).encode()) == raw
    assert len(raw.pop("graph_cache")) == 32
    assert raw == PLAIN


def test_a_job_with_everything() -> None:
    config = BoardConfig(
        "b", "loopback", threads=4, kernels="builtin", delegate="/d.so", delegate_options={"a": "1"},
        max_temperature_c=80.0, cool_down_s=5.0,
    )  # fmt: skip
    job = Job(Path("m.tflite"), "m", Path("x"), Path("y"), class_map=((4, 6), (8, 12)))
    task = RoundTask(job, "identity", 2, "job", "ab" * 32, attempt=1)
    raw = request_of(task, config, "key", PROTOCOL, FILES, measured="layers").to_json()
    more = {
        "input": "/w/objects/x", "expected": "/w/objects/y", "delegate": "/d.so", "delegate_options": {"a": "1"},
        "max_temperature_c": 80.0, "cool_down_s": 5.0, "pass": "layers", "class_map": [[4, 6], [8, 12]],
    }  # fmt: skip
    assert parse(json.dumps(raw).encode()) == raw
    assert len(raw.pop("graph_cache")) == 32
    assert raw == {**PLAIN, **more}


def test_each_model_has_its_own_cache_file() -> None:
    options = {"allowed_cache_mode": "true", "cache_file_path": "/w/graphs.nb"}
    config = BoardConfig("b", "loopback", delegate="/d.so", delegate_options=options)
    paths = set()
    for model, key in (("ab" * 32, "key"), ("cd" * 32, "key"), ("ab" * 32, "another driver")):
        task = RoundTask(Job(Path("m.tflite"), "m"), "identity", 0, "job", model)
        raw = request_of(task, config, key, PROTOCOL, FILES).to_json()
        assert raw["delegate_options"]["allowed_cache_mode"] == "true"
        paths.add(raw["delegate_options"]["cache_file_path"])
    assert len(paths) == 3 and all(path.startswith("/w/graphs.nb.") for path in paths)
    assert options["cache_file_path"] == "/w/graphs.nb"


def test_an_acknowledgement() -> None:
    raw = Acknowledgement(("a", "b")).to_json()
    assert raw == {"ack": ["a", "b"]} == parse(json.dumps(raw).encode())
