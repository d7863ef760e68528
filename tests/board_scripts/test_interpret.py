from __future__ import annotations

import statistics
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


def is_steady_slowly(latencies_us: Sequence[int]) -> bool:
    if len(latencies_us) < 6:
        return False
    before, last = statistics.median(latencies_us[-6:-3]), statistics.median(latencies_us[-3:])
    return abs(last - before) <= 0.02 * before + 1


@given(st.lists(st.integers(0, 300) | st.integers(0, 10**7), max_size=12))
def test_steady_is_what_it_says(latencies_us: list[int]) -> None:
    assert interpret.is_steady(latencies_us) == is_steady_slowly(latencies_us)


@pytest.mark.parametrize(
    ("scripted", "least", "most", "wanted"),
    [
        ([100] * 20, 5, 20, (6, True)),
        ([100] * 20, 8, 20, (8, True)),
        ([100] * 20, 2, 2, (2, False)),
        ([900, 500, 300, 200, 150, 120, 100, 100, 100, 100, 100, 100], 2, 20, (11, True)),
        (list(range(1000, 100, -30)), 3, 12, (12, False)),
        ([100] * 20, 0, 0, (0, False)),
        ([100] * 20, 7, 3, (7, True)),
    ],
)
def test_the_warm_up_ends_when_runs_are_steady(
    monkeypatch: pytest.MonkeyPatch, scripted: list[int], least: int, most: int, wanted: tuple[int, bool]
) -> None:
    remaining = iter(scripted)
    monkeypatch.setattr(interpret, "timed", lambda call: next(remaining))
    found = interpret.warm_up({"warmup_runs": least, "warmup_runs_most": most}, lambda: None)
    assert found == (scripted[: wanted[0]], wanted[1])


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


def test_others_are_all_but_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of all cores: user nice system idle iowait irq softirq steal; guest counts in user already."""
    stat = write(tmp_path / "stat", "cpu 100 0 50 800 50 0 0 0 7 7\ncpu0 1 2 3\n")
    own = iter((20.0, 50.0, 1000.0))
    monkeypatch.setattr(interpret, "own_ticks", lambda: next(own))
    since = (interpret.cpu_ticks(str(tmp_path)), interpret.own_ticks())
    assert since[0] == (150, 1000)
    stat.write_text("cpu 160 5 70 900 50 3 2 0 9 9\n")  # 90 busy of 190, 30 of them ours
    assert interpret.others_busy(since, str(tmp_path)) == round(60 / 190, 3)
    assert interpret.others_busy(since, str(tmp_path)) == 0.0  # never below
    monkeypatch.setattr(interpret, "own_ticks", lambda: 0.0)
    assert interpret.others_busy(((0, 0), 0.0), str(tmp_path / "none")) == 0.0


def test_a_graph_cache_is_cold_once(golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = golden()
    job = {"id": "1", "model": str(model), "warmup_runs": 0, "runs": 1, "threads": 1, "kernels": "builtin"}
    runtime = interpret.import_runtime()

    def cache(key: str) -> object:
        monkeypatch.setenv(interpret.GRAPH_CACHE, str(tmp_path / "graphs"))
        return interpret.run_job(runtime, {**job, "graph_cache": key}, lambda stage: None)["cache"]

    monkeypatch.delenv(interpret.GRAPH_CACHE, raising=False)
    assert interpret.run_job(runtime, {**job, "graph_cache": "a"}, lambda stage: None)["cache"] == "none"
    assert cache("a") == "cold"
    write(tmp_path / "graphs/a/graph.nb", "compiled")  # the driver's work
    assert (cache("a"), cache("b")) == ("warm", "cold")
    assert interpret.use_graph_cache(job) is None


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
