"""Latency over time: which rounds are one occasion, what changed, what became slower; the figure and its command."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from deploy.formats.plots.figures import Events, Points
from deploy.formats.plots.svg import inline
from deploy.regression.history import Occasion, histories
from deploy.regression.history_plot import history_plot
from hil.measurement import Conditions, Measurement
from hil.store import Store
from tests.deploy.cli.test_results_command import BAD, CONDITIONS, GOOD

START = datetime(2026, 3, 1, tzinfo=UTC)
NEWER = replace(CONDITIONS, kernel="6.6.52", runtime="tflite 2.17")


def occasion(
    day: int,
    us: float,
    conditions: Conditions = CONDITIONS,
    *,
    sha: str = "a",
    path: str = "/w/m.tflite",
    rounds: int = 4,
) -> list[Measurement]:
    """Rounds of one model on one day, a minute apart, of about that latency."""
    rng = np.random.default_rng(day)
    return [
        replace(
            GOOD, job_id=f"{day}-{path}-{i}", model="m.tflite", model_sha256=sha * 64, path=path, round=i, flags=(),
            latencies_us=tuple(us * (1 + 0.001 * rng.random(8))), conditions=conditions,
            started_at=(START + timedelta(days=day, minutes=i)).isoformat(),
        )
        for i in range(rounds)
    ]  # fmt: skip


def failing(day: int) -> list[Measurement]:
    (m,) = occasion(day, 1, rounds=1)
    return [replace(m, status="failed", latencies_us=(), failure=BAD.failure)]


YEAR = [
    *occasion(0, 5000),
    *occasion(1, 5010),
    *occasion(2, 6000, sha="b"),
    *occasion(3, 5100, NEWER, sha="b"),
    *failing(4),
    *occasion(5, 5600, NEWER, sha="b"),
    *occasion(6, 5000, sha="b"),
]


def test_occasions_of_a_model() -> None:
    (one,) = histories(reversed(YEAR), 0.05)
    assert (one.model, one.board) == ("m.tflite", "bench")
    days = [(s.at.day, s.slower, s.new_file, len(s.rounds)) for s in one.occasions]
    assert days == [
        (1, False, False, 4), (2, False, False, 4), (3, True, True, 4), (4, False, False, 4), (5, False, True, 1),
        (6, True, True, 4), (7, False, False, 4),
    ]  # fmt: skip
    assert [s.changed for s in one.occasions if s.changed] == [
        ("kernel 6.6.36 -> 6.6.52", "runtime tflite 2.16 -> tflite 2.17"),
        ("kernel 6.6.52 -> 6.6.36", "runtime tflite 2.17 -> tflite 2.16"),
        ("kernel 6.6.36 -> 6.6.52", "runtime tflite 2.16 -> tflite 2.17"),
        ("kernel 6.6.52 -> 6.6.36", "runtime tflite 2.17 -> tflite 2.16"),
    ]
    failed = one.occasions[4]
    assert failed.failure == "hung [in] its first inference" and failed.levels_us == () and failed.comparison is None
    assert one.occasions[2].level_us == pytest.approx(6000, rel=0.001)
    assert [s.comparison is None for s in one.occasions] == [True, False, False, True, True, False, False]


def test_a_drift_in_small_steps_shows() -> None:
    (one,) = histories((m for day in range(8) for m in occasion(day, 5000 * 1.02**day)), 0.05)
    assert [s.slower for s in one.occasions] == [False] * 3 + [True] * 5


def test_few_rounds_are_drawn_but_not_compared() -> None:
    (one,) = histories([*occasion(0, 5000, rounds=3), *occasion(1, 9000)], 0.05)
    assert [s.comparison for s in one.occasions] == [None, None]


def test_rounds_that_go_on_are_one_occasion() -> None:
    """Whatever the time between them; rounds that are counted anew are another one."""
    later = [replace(m, round=m.round + 4) for m in occasion(9, 5000)]
    (one,) = histories([*occasion(0, 5000), *later, *occasion(10, 5000)], 0.05)
    assert [len(s.rounds) for s in one.occasions] == [8, 4]


def test_files_of_one_name_that_take_turns_are_two_models() -> None:
    twins = [m for day in (0, 1) for where in "ab" for m in occasion(day, 5000, path=f"/w/{where}/m.tflite", sha=where)]
    assert [(one.model, len(one.occasions)) for one in histories(twins, 0.05)] == [("a/m.tflite", 2), ("b/m.tflite", 2)]
    moved = [*occasion(0, 5000, path="/v1/m.tflite"), *occasion(1, 5000, path="/v2/m.tflite")]
    assert [(one.model, len(one.occasions)) for one in histories(moved, 0.05)] == [("m.tflite", 2)]


def test_the_figure_marks_what_matters() -> None:
    (one,) = histories(YEAR, 0.05)
    plot = history_plot(one, 0.05)
    points = {mark.name: mark for mark in plot.marks if isinstance(mark, Points)}
    assert {name: len(mark.x) for name, mark in points.items()} == {
        "occasion": 4, "slower, another file": 2
    }  # fmt: skip
    slower = points["slower, another file"]
    assert slower.colour == "offender" and slower.labels == ("+20.0 %", "+9.8 %")
    other, failed = (mark for mark in plot.marks if isinstance(mark, Events))
    assert other.labels == ("1", "2, fails", "3", "4") and failed.tips == ("hung [in] its first inference",)
    assert plot.notes[0] == "1  2026-03-04: kernel 6.6.36 -> 6.6.52, runtime tflite 2.16 -> tflite 2.17"
    svg = ET.fromstring(inline(plot))  # noqa: S314 (we wrote it)
    said = "".join(svg.itertext())
    assert all(
        words in said for words in ("m.tflite on bench", "2026-03-02", "5 % above the first occasion", "+20.0 %")
    )
    assert "of the first occasion under these conditions" in said and "fails" in said


def test_one_occasion_is_a_figure_too() -> None:
    (one,) = histories(occasion(0, 5000), 0.05)
    assert one.occasions == (Occasion(tuple(occasion(0, 5000))),)
    assert "m.tflite" in inline(history_plot(one, 0.05))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        for m in YEAR[:-4]:
            store.add(m)
        for m in occasion(0, 100, path="/w/n.tflite"):
            store.add(replace(m, model="n.tflite"))
    out = tmp_path / "new" / "latency.svg"
    plot = ["results", "plot", "--store", str(tmp_path / "s.sqlite"), "--out", str(out)]
    assert main(plot) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 7 occasions of 2 models", "SLOWER  m.tflite on bench: +9.8 % since 2026-03-04",
    ]  # fmt: skip
    assert "n.tflite on bench" in out.read_text(encoding="utf8")
    assert main([*plot, "--model", "n*", "--threshold", "9"]) == 0
    assert capsys.readouterr().out == f"{out}: 1 occasions of 1 models\n"
    for code, more, words in (
        (2, ["--out", "a.png"], "--out a.png: figures are written as SVG"),
        (2, ["--threshold", "0"], "threshold 0: give a share above 0"),
        (5, ["--model", "z*"], "no such measurement"),
    ):
        assert main([*plot, *more]) == code
        assert words in capsys.readouterr().err
