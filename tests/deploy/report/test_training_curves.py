"""Training curves from their files: what was cut by a kill is left out, another file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.formats.plots.figures import Line
from deploy.formats.plots.svg import inline
from deploy.report.training_curves import MOST_POINTS, read_curve, training_curves, training_plots
from hil.errors import UsageError

HEADER = "step,loss,learning_rate,seconds\n"


def written(path: Path, *rows: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_a_row_that_was_cut_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.training.csv", "1,3,0.1,1.5", "2,2,0.05,2")
    path.write_text(path.read_text() + "3,1,0.025,0.2")
    curve = read_curve(path)
    assert curve.name == "a" and curve.steps == (1, 2) and curve.loss == (3, 2)
    assert curve.learning_rate == (0.1, 0.05) and curve.seconds == 3.5


def test_the_teacher_is_first_and_the_students_last(tmp_path: Path) -> None:
    for name in ("supernets", "teacher", "b1", "students/fast"):
        written(tmp_path / f"{name}.training.csv", "1,3,0.1,1")
    written(tmp_path / "empty.training.csv")
    assert [curve.name for curve in training_curves(tmp_path)] == ["teacher", "b1", "supernets", "fast"]


@pytest.mark.parametrize("content", ["", "step,loss\n1,2\n", HEADER + "1,high,0.1,1\n", HEADER + "1,2\n"])
def test_another_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.training.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"a\.training\.csv.*delete"):
        read_curve(path)


def test_a_long_training_is_averaged_and_a_steep_one_logarithmic(tmp_path: Path) -> None:
    rows = (f"{i},{10 * 0.999**i},0.1,{i}" for i in range(1, 10_001))
    loss, rate = training_plots(read_curve(written(tmp_path / "a.training.csv", *rows)))
    (line,) = loss.marks
    assert isinstance(line, Line) and len(line.x) <= MOST_POINTS and "means of 34" in loss.title
    assert loss.y.log and not rate.y.log


def test_a_training_that_diverged_is_drawn(tmp_path: Path) -> None:
    for plot in training_plots(read_curve(written(tmp_path / "a.training.csv", "1,3,0.1,1", "2,nan,0.1,1"))):
        assert "<polyline" in inline(plot)
