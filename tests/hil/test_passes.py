from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.benchmark_model import ProfiledLayer
from hil.boards.kinds import open_board
from hil.errors import BoardError, BoardFault, ModelError, UsageError
from hil.measure import Job, MeasureProtocol
from hil.passes import layers_of, memory_of, read_vendor_log
from hil.request import Request
from hil.session import Session
from tests.hil import tiny_model
from tests.hil.benchmark_texts import Program, render, report
from tests.hil.loopback_boards import add_job, loopback

PROTOCOL = MeasureProtocol(warmup_runs=1, runs=3, compile_deadline_s=20, run_deadline_s=20)
ONE_MB = 1 << 20
REQUEST = Request(
    id="job", name="m", model="m", warmup_runs=1, runs=3, threads=1, kernels="xnnpack", compile_deadline_s=20,
    run_deadline_s=20,
)  # fmt: skip

VENDOR = """prev_ptrs = 0xffff8ee6e240
---------------------------End VerifyTiling -------------------------
layer_id: 0 layer name:TensorTranspose operation[0]:VXNNE_OPERATOR_TENSOR_TRANS target:VXNNE_OPERATION_TARGET_TP.
uid: 0
abs_op_id: 0
execution time:               153 us
[     1] TOTAL_READ_BANDWIDTH  (MByte): 0.540481
[     2] GPUTOTALCYCLES: 94344921
layer_id: 1 layer name:ConvolutionReluPoolingLayer2 operation[0]:unkown operation type target:unkown target.
uid: 1
execution time:               1.25 ms
layer_id:2 layer_name:NotRun
operation_id:0 operation_name:X operation_target:Y
layer id: 3 layer name:Last
execution time: 7 us
execution time: 99999 us
"""
ROWS = (
    ProfiledLayer("TensorTranspose", "VXNNE_OPERATOR_TENSOR_TRANS on VXNNE_OPERATION_TARGET_TP", 153.0),
    ProfiledLayer("ConvolutionReluPoolingLayer2", "unkown operation type on unkown target", 1250.0),
    ProfiledLayer("Last", "", 7.0),
)


def test_the_vendors_log() -> None:
    assert read_vendor_log(VENDOR) == ROWS
    assert read_vendor_log("") == ()


@given(st.lists(st.one_of(st.sampled_from(VENDOR.splitlines()), st.text()), max_size=20).map("\n".join))
def test_any_log_is_read(text: str) -> None:
    assert all(layer.name for layer in read_vendor_log(text))


def test_peak_memory_grows_by_what_the_model_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Job(tiny_model.int8_add(tmp_path / "small.tflite"), "small")
    monkeypatch.setattr(tiny_model, "SHAPE", (1, 512, 512, 64))  # 16 MB each of input, constant and output
    large = Job(tiny_model.int8_add(tmp_path / "large.tflite"), "large")
    with open_board(loopback("asyncssh", kernels="builtin")) as board, Session(board) as session:
        little, much = memory_of(session, small, PROTOCOL), memory_of(session, large, PROTOCOL)
    for found in (little, much):
        assert found.before_bytes and found.loaded_bytes
        assert 10 * ONE_MB < found.before_bytes <= found.loaded_bytes <= found.peak_bytes
    grown = (much.peak_bytes - (much.before_bytes or 0)) - (little.peak_bytes - (little.before_bytes or 0))
    assert 47 * ONE_MB < grown < 70 * ONE_MB  # the input a second time, as the array that fills it
    assert abs((much.before_bytes or 0) - (little.before_bytes or 0)) < 4 * ONE_MB


def test_a_pass_says_whose_fault_it_is(tmp_path: Path) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(add_job(tmp_path, 1).model.read_bytes()[:200])
    with open_board(loopback("asyncssh")) as board, Session(board) as session:
        for ask in (memory_of, layers_of):
            with pytest.raises(ModelError, match=r"bench: cut failed in loading the model"):
                ask(session, Job(cut, "cut"), PROTOCOL)
        with pytest.raises(UsageError, match="none of time, memory, layers"):
            session.run(replace(REQUEST, measured="odd"))  # type: ignore[arg-type]


def test_without_a_vendor_there_are_no_layers(tmp_path: Path) -> None:
    with open_board(loopback("asyncssh")) as board, Session(board) as session:
        found = layers_of(session, add_job(tmp_path, 1), PROTOCOL)
    assert found.layers == () and found.complete


def test_the_log_is_of_one_steady_inference(tmp_path: Path) -> None:
    """A runtime that prints as the vendor's library does, from C and from the process, at each inference."""
    script = """
import ctypes, json, os, sys
from types import SimpleNamespace
from board_scripts.passes import run_layers

out, runs = os.dup(1), []
def invoke():
    runs.append(os.environ.get("CNN_PERF"))
    ctypes.CDLL(None).printf(b"inference %d\\n", len(runs))
    os.write(2, sys.argv[2].encode())

interpreter = SimpleNamespace(allocate_tensors=lambda: None, get_input_details=list, invoke=invoke)
runtime = SimpleNamespace(Interpreter=lambda **_: interpreter, OpResolverType=SimpleNamespace(AUTO=0))
job = {"model": sys.argv[1], "threads": 1, "kernels": "xnnpack"}
answer = run_layers(runtime, job, lambda stage: None)
os.write(out, json.dumps([answer["log"], runs]).encode())
"""
    model = tiny_model.int8_add(tmp_path / "a.tflite")
    argv = [sys.executable, "-c", script, str(model), VENDOR]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    log, environments = json.loads(done.stdout)
    assert environments == ["1", "1"]
    assert log.startswith("inference 2") or log.startswith(VENDOR)  # and not with what an emptied file leaves
    assert "inference 2" in log and "inference 1" not in log and "\0" not in log
    assert read_vendor_log(log) == ROWS


def test_the_program_takes_the_passes_too(tmp_path: Path) -> None:
    program = Program(tmp_path)
    layer = ProfiledLayer("x:0", "CONV_2D", 500.0)
    whole = render(report(8000.0, 7990.0, peak_mb=81.5, layers=(layer,)))
    config = loopback("asyncssh", driver="benchmark_model", benchmark_model=str(program.path))
    with open_board(config) as board, Session(board) as session:
        program.says(whole)
        found = memory_of(session, add_job(tmp_path, 1), PROTOCOL)
        assert (found.before_bytes, found.peak_bytes) == (None, round(81.5 * ONE_MB))
        ((arguments, environment, _),) = program.calls()
        assert "--report_peak_memory_footprint=true" in arguments and not environment
        program.says(whole)
        assert layers_of(session, add_job(tmp_path, 1), PROTOCOL).layers == (layer,)
        ((arguments, environment, _),) = program.calls()
        assert "--enable_op_profiling=true" in arguments
        assert environment == {"CNN_PERF": "1", "VIV_VX_DEBUG_LEVEL": "1"}
        program.says(VENDOR + whole)
        both = layers_of(session, add_job(tmp_path, 1), PROTOCOL)
        assert both.layers == ROWS and "CONV_2D" in both.log and both.complete
        program.says("FLOOD\n" + whole)
        assert not layers_of(session, add_job(tmp_path, 1), PROTOCOL).complete
        program.says(render(report()))
        with pytest.raises(BoardError, match="too old"):
            memory_of(session, add_job(tmp_path, 1), PROTOCOL)
        program.path.unlink()
        with pytest.raises(BoardFault, match="cannot start"):
            layers_of(session, add_job(tmp_path, 1), PROTOCOL)
