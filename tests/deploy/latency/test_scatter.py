"""The scatter of predicted against measured, as a page and as a file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from deploy.formats.plots.figures import Points
from deploy.latency.scatter import HALVES, residuals, scatter, title, write_image, write_page
from hil.errors import UsageError
from tests.deploy.run_records import agreement

LABEL = "+25.0 %  b1_k5e6_w8"


def test_the_worst_are_named_and_the_title_has_the_noise():
    plot = scatter(agreement())
    models, worst = plot.marks
    assert isinstance(models, Points) and isinstance(worst, Points)
    assert models.x == models.y == (1.0, 2.0, 3.0)
    assert (worst.x, worst.y, worst.labels, worst.colour) == ((3.0,), (4.0,), ("1",), "offender")
    assert plot.notes == (HALVES, f"1  {LABEL}") and worst.y_intervals == ((4.0, 4.0),)
    assert plot.diagonal == "predicted = measured"
    assert "measured 4.000 ms (+25.0 %)" in worst.tips[0]
    for words in ("tau-b 0.900 [0.800, 0.950]", "4 full models", "noise ceiling 0.970"):
        assert words in title(agreement()) == plot.title


def test_without_offenders_there_is_one_kind_of_point():
    assert len(scatter(agreement(offenders=0)).marks) == 1 and residuals(agreement(offenders=0)).worst == ()


def test_the_page_is_one_file_and_bears_the_mark(tmp_path):
    write_page(tmp_path / "a.html", agreement(), "REPLAY: no board")
    page = (tmp_path / "a.html").read_text(encoding="utf8")
    assert "http" not in page and not re.findall(r"<script[^>]*\bsrc\s*=", page) and len(page) < 30_000
    said = "".join(ET.fromstring(page).itertext())  # noqa: S314 (we wrote it)
    for words in ("REPLAY: no board", LABEL, "noise ceiling"):
        assert words in said


def test_a_file_for_documents(tmp_path):
    path = tmp_path / "a.svg"
    write_image(path, agreement(), "REPLAY: no board")
    said = "".join(ET.parse(path).getroot().itertext())  # noqa: S314 (we wrote it)
    assert LABEL in said and "REPLAY: no board" in said and "noise ceiling" in said
    with pytest.raises(UsageError, match=r"a\.png: figures are written as SVG"):
        write_image(tmp_path / "a.png", agreement())
