"""The README's figure shows the record that its table is from."""

from __future__ import annotations

from reference.figures import FIGURE, draw
from tests.conftest import REPOSITORY


def test_it_is_the_record(tmp_path):
    draw(tmp_path / "demo.svg")
    assert FIGURE.read_text(encoding="utf8") == (tmp_path / "demo.svg").read_text(encoding="utf8")
    assert str(FIGURE.relative_to(REPOSITORY)) in (REPOSITORY / "README.md").read_text(encoding="utf8")
