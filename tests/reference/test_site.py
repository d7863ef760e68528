"""The documentation as a site: it builds strictly, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [
    pytest.mark.docs,
    pytest.mark.skipif(not importlib.util.find_spec("material"), reason="needs the extra `docs`"),
]
SOURCES = ("docs", "reference", "mkdocs.yml", "README.md", "ARCHITECTURE.md")


def build(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy, so that nothing is left in ours."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = REPOSITORY / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
    return folder


def test_it_builds_strictly_and_asks_no_other_server(checkout):
    ended = build(checkout)
    assert ended.returncode == 0, ended.stderr
    site = checkout / "site"
    home = (site / "index.html").read_text(encoding="utf8")
    assert 'href="architecture.html"' in home and 'href="data.html"' in home and 'href="README' not in home
    assert "MODEL|RUN" in home
    assert "--split train|val" in (site / "reference" / "commands.html").read_text(encoding="utf8")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf8")
        assert '<script src="http' not in text and "fonts.googleapis" not in text, page


@pytest.mark.parametrize("target", ["no-such-page.md", "measuring.md#no-such-heading"])
def test_a_link_that_leads_nowhere_fails(checkout, target):
    page = checkout / "docs" / "ci.md"
    before = page.read_text(encoding="utf8")
    page.write_text(f"{before}\n[nowhere]({target})\n", encoding="utf8")
    ended = build(checkout)
    page.write_text(before, encoding="utf8")
    assert ended.returncode == 1 and target in ended.stderr, ended.stderr
