"""The scatter of predicted against measured, as a page and as files."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deploy.formats.figures import check_image
from deploy.latency.scatter import points, scatter, title, write_image, write_page
from hil.errors import UsageError

SAMPLES = [
    {"subnet": f"b1_k3e{e}_w8", "additive_us": 900.0 * e, "predicted_us": 1000.0 * e, "measured_us": 1000.0 * e}
    for e in (1, 2, 3)
]
WORST = {"subnet": "b1_k5e6_w8", "additive_us": 3000.0, "predicted_us": 3000.0, "measured_us": 4000.0}
JUDGED: dict[str, Any] = {
    "agreement": {"tau_b": 0.9, "ci95": [0.8, 0.95], "n_models": 4, "ceiling_tau_b": 0.97, "offset_us": 50.0},
    "samples": [*SAMPLES, WORST],
    "offenders": [{"subnet": "b1_k5e6_w8"}],
}
LABEL = "+25.0 %  b1_k5e6_w8"


def test_the_worst_are_named_and_the_title_tells_the_noise():
    figure = scatter(JUDGED)
    diagonal, models, worst = figure.data
    assert list(diagonal.x) == list(diagonal.y) == [1.0, 4.0]
    assert list(models.x) == list(models.y) == [1.0, 2.0, 3.0]
    assert (worst.x[0], worst.y[0], worst.name) == (3.0, 4.0, f"1  {LABEL}")
    assert figure.layout.title.text == title(JUDGED)
    for words in ("tau-b 0.900 [0.800, 0.950]", "4 whole models", "noise ceiling 0.970"):
        assert words in title(JUDGED)


def test_a_record_of_an_earlier_version_is_drawn():
    older = [{key: s[key] for key in ("subnet", "additive_us", "measured_us")} for s in SAMPLES]
    p = points({"agreement": JUDGED["agreement"], "samples": older})
    assert p.predicted_ms == pytest.approx((0.95, 1.85, 2.75)) and p.worst == ()


def test_the_page_is_one_file_and_bears_the_mark(tmp_path):
    write_page(tmp_path / "a.html", JUDGED, "REPLAY: no board")
    page = (tmp_path / "a.html").read_text()
    assert not re.findall(r"<script[^>]*\bsrc\s*=", page)
    for words in ("REPLAY: no board", LABEL, "noise ceiling"):
        assert words in page


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_files_for_documents(tmp_path, name):
    path = tmp_path / "new" / name
    write_image(path, JUDGED, "REPLAY: no board")
    if path.suffix == ".png":
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width > 800
    else:
        said = " ".join(ET.parse(path).getroot().itertext())  # noqa: S314 (we wrote it)
        assert LABEL in said and "REPLAY: no board" in said and "noise ceiling" in said
    content = path.read_bytes()
    write_image(path, JUDGED, "REPLAY: no board")
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_what_cannot_be_drawn_is_said_first(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"a\.pdf: give a file that ends in \.png or \.svg"):
        check_image(Path("a.pdf"))
    monkeypatch.setattr("deploy.formats.figures.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'hilnas\[plots\]'"):
        write_image(tmp_path / "a.png", JUDGED)
