from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board_scripts import interpret


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_hottest_zone_and_the_fastest_core(tmp_path: Path) -> None:
    assert interpret.readings(str(tmp_path)) == {"temperature_c": None, "frequency_khz": None}
    for zone, text in enumerate(("41000", "55500\n", "broken", "")):
        write(tmp_path / f"class/thermal/thermal_zone{zone}/temp", text)
    for cpu, text in enumerate(("600000", "1800000", "?")):
        write(tmp_path / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", text)
    assert interpret.readings(str(tmp_path)) == {"temperature_c": 55.5, "frequency_khz": 1_800_000}


def test_the_gate_waits_for_the_board_to_cool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"max_temperature_c": 60.0, "cool_down_s": 10.0}
    interpret.cool_down(job, str(tmp_path))  # no thermometer, no gate
    zone = write(tmp_path / "class/thermal/thermal_zone0/temp", "60000")
    with monkeypatch.context() as patch:
        patch.setattr(interpret.time, "sleep", lambda _: pytest.fail("it is cool enough already"))
        interpret.cool_down(job, str(tmp_path))
    begin = time.monotonic()
    zone.write_text("60001")
    cooler = write(tmp_path / "cooler", "59000")
    cooling = threading.Timer(0.5, cooler.replace, [zone])  # a thermometer is never read half-written
    cooling.start()
    interpret.cool_down(job, str(tmp_path))
    cooling.join()
    assert 0.5 <= time.monotonic() - begin < 5
    zone.write_text("95000")
    with pytest.raises(interpret.MachineFault, match=r"still 95 C after 0\.3 s, allowed are 60: cool the board"):
        interpret.cool_down({**job, "cool_down_s": 0.3}, str(tmp_path))
    interpret.cool_down({}, str(tmp_path))


def test_a_graph_cache_is_cold_once(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = golden()
    job = {"id": "1", "model": str(model), "warmup_runs": 0, "runs": 1, "threads": 1, "kernels": "builtin"}
    runtime = interpret.import_runtime()

    def cache(key: str, compiled: Path | None = None, **more: object) -> object:
        """The state that a job reports; `compiled`: what the driver writes, once it has compiled the graph."""
        monkeypatch.setenv(interpret.GRAPH_CACHE, str(tmp_path / "graphs"))

        def mark(stage: str) -> None:
            if stage == "cool" and compiled:
                write(compiled, "compiled")

        return interpret.run_job(runtime, {**job, "graph_cache": key, **more}, mark)["cache"]

    monkeypatch.delenv(interpret.GRAPH_CACHE, raising=False)
    assert interpret.run_job(runtime, {**job, "graph_cache": "a"}, lambda stage: None)["cache"] == "none"
    assert (cache("a", tmp_path / "graphs/a/graph.nb"), cache("a")) == ("cold", "warm")
    assert (cache("b"), cache("b")) == ("unused", "unused")  # a driver that has no such cache
    own = {interpret.DELEGATE_CACHE: str(tmp_path / "delegate.b")}
    assert cache("b", tmp_path / "delegate.b", delegate_options=own) == "cold"
    assert (cache("b", delegate_options=own), cache("b")) == ("warm", "unused")
    assert interpret.use_graph_cache(job) == []


def test_outputs_that_are_no_numbers_compare_too() -> None:
    inf, nan = float("inf"), float("nan")
    output = np.array([1.0, inf, -inf, inf, 2.0], np.float32)
    found = interpret.compare(np, [output], np.array([1.0, inf, inf, 5.0, nan], np.float32).tobytes())
    assert (found["elements"], found["mismatched"]) == (5, 3)
    assert found["max_abs_diff"] == np.finfo(np.float64).max
    assert interpret.compare(np, [output], output.tobytes())["mismatched"] == 0


@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=20))
def test_integers_compare_exactly(pairs: list[tuple[int, int]]) -> None:
    output, expected = (np.array(column, np.int8) for column in zip(*pairs, strict=True))
    apart = [abs(a - b) for a, b in pairs]
    assert interpret.compare(np, [output], expected.tobytes()) == {
        "elements": len(pairs), "mismatched": sum(a > 0 for a in apart), "max_abs_diff": float(max(apart)),
    }  # fmt: skip


def node(name: str, inputs: Sequence[int], outputs: Sequence[int]) -> dict[str, Any]:
    return {"op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


def test_what_a_delegate_left_is_named() -> None:
    """A chain 0 - A - 1 - B - 2 - C - 3 - D - 4 with a side input 9 of C; a delegate has B and C."""
    chain = [node("A", [0], [1]), node("B", [1], [2]), node("C", [2, 9], [3]), node("D", [3], [4])]
    assert interpret.left_to_cpu([*chain, node("DELEGATE", [1, 9], [3])]) == ["A", "D"]
    assert interpret.left_to_cpu([*chain, node("DELEGATE", [0], [1]), node("DELEGATE", [1, 9], [4])]) == []
    assert interpret.left_to_cpu(chain) == ["A", "B", "C", "D"]
