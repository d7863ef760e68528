"""Headless Chromium: a page as a screen or a phone shows it, and what a script finds in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr --virtual-time-budget=60000 "
    "--window-size=1400,1000 --dump-dom"
)
SCREEN, PHONE = 1200, 390  # pixels
HEIGHT = 900
ASKING = """<script>addEventListener("load", async () => {{
  const said = await (async () => {{ {script} }})();
  parent.document.body.setAttribute("data-said", JSON.stringify(said));
}});</script>"""


@dataclass(frozen=True)
class Answer:
    """What a script returned, and the browser's complaints: of the console, of what it could not fetch."""

    said: Any
    complaints: tuple[str, ...]


def in_chromium(test: Any) -> Any:
    """Marks a test that needs the browser."""
    missing = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
    return pytest.mark.system(missing(test))


def ask(page: str, script: str, folder: Path, *, width: int = SCREEN, dark: bool = False, library: str = "") -> Answer:
    """What the body of a function, `script`, returns in the page when it has loaded.

    The page fills a frame of such a width, as a window is never as narrow as a phone. `library`: a script before it.
    """
    used = f"<script>{library}</script>" if library else ""
    asked = page.replace("</body>", f"{used}{ASKING.format(script=script)}</body>")
    frame = (
        f'<iframe width="{width}" height="{HEIGHT}" style="border: 0" srcdoc="{escape(asked, quote=True)}"></iframe>'
    )
    outside = folder / "asked.html"
    outside.write_text(f'<!DOCTYPE html><html lang="en"><body>{frame}</body></html>', encoding="utf8")
    return opened(outside.as_uri(), folder, *(["--blink-settings=preferredColorScheme=0"] if dark else []))


def opened(address: str, folder: Path, *options: str) -> Answer:
    """What a page writes into the attribute `data-said` of its body, once it has done its work."""
    command = [str(CHROMIUM), *OPTIONS.split(), *options, f"--user-data-dir={folder / 'profile'}", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said = re.search(r'<body data-said="([^"]*)"', done.stdout)
    assert said is not None, f"no answer: {done.stderr[-2000:]}"
    complaints = (line for line in done.stderr.splitlines() if re.search(r"CONSOLE|ERR_|Refused", line))
    return Answer(json.loads(unescape(said[1])), tuple(complaints))
