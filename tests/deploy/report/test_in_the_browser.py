"""A finished run's page in Chromium: nothing is fetched, nothing is complained of, pointing names subnets."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.report.page import write_report
from tests.deploy.tiny_experiment import finished_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BROWSER = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
)
ASKING = """<script>addEventListener("load", () => {
  const box = document.getElementById("exploration"), svg = box.querySelector("svg"), said = {};
  said.points = svg.querySelectorAll("circle").length;
  const [, byY] = box.querySelectorAll("select");
  byY.value = "size";
  byY.dispatchEvent(new Event("change"));
  said.label = svg.getAttribute("aria-label");
  const at = svg.querySelector("circle").getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: at.x + 1, clientY: at.y + 1 }));
  said.tip = document.getElementById("tip").textContent;
  said.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  said.pictures = [...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt);
  said.unnamed = [...document.querySelectorAll("svg.plot, select")].filter(
    node => !node.getAttribute("aria-label") && !node.closest("label")).length;
  document.body.setAttribute("data-said", JSON.stringify(said));
});</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = finished_run(tmp_path_factory).copy(tmp_path_factory.mktemp("page"))
    return write_report(run).read_text(encoding="utf8")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)])
def test_it_works_on_a_screen_and_on_a_phone(page: str, tmp_path: Path, width: int, dark: bool) -> None:
    asked = tmp_path / "asked.html"
    asked.write_text(page.replace("</body>", f"{ASKING}</body>"), encoding="utf8")
    look = ["--blink-settings=preferredColorScheme=0"] if dark else []
    options = [*BROWSER.split(), f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", *look]
    done = subprocess.run(
        [str(CHROMIUM), *options, asked.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert not re.findall(r"CONSOLE|ERR_|Refused", done.stderr), done.stderr
    said = re.search(r'data-said="([^"]*)"', done.stdout)
    assert said is not None
    found = said[1].replace("&quot;", '"')
    assert '"wide":false' in found and '"pictures":true' in found and '"unnamed":0' in found, found
    assert re.search(r'"points":\d*[1-9]', found) and "weights, kB against predicted latency, ms" in found, found
    assert re.search(r'"tip":"(fast: )?b1_k\de\d', found), found
