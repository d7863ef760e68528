"""What Netron shows of a model: its own page in headless Chromium, and all that its readers make of the metadata."""

from __future__ import annotations

import importlib.util
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chromium import in_chromium, opened

NETRON = importlib.util.find_spec("netron")
FRAME = """<!DOCTYPE html><html lang="en"><body>
<script>document.cookie = "consent=1";</script>
<iframe width="1200" height="900" src="netron/index.html?url=/model.tflite"></iframe>
<script type="module">
  import { BinaryReader } from "/netron/flatbuffers.js";
  import { tflite } from "/netron/tflite-schema.js";
  const page = document.querySelector("iframe");
  const view = () => page.contentWindow.__view__;
  while (!view() || !view().activeTarget) await fetch("/wait");
  const sidebar = open => {
    open();
    const items = [...page.contentDocument.querySelectorAll("#sidebar-content .sidebar-item")];
    const value = item => item.querySelector(".sidebar-item-value-list").textContent;
    return Object.fromEntries(items.map(item => [item.querySelector("input").value, value(item)]));
  };
  const shown = sidebar(() => view().showModelProperties()), graph = sidebar(() => view().showTargetProperties());
  const model = tflite.Model.create(BinaryReader.open(await (await fetch("/model.tflite")).bytes()));
  const entry = model.metadata.find(one => one.name === "TFLITE_METADATA");
  const read = tflite.ModelMetadata.create(BinaryReader.open(model.buffers[entry.buffer].data));
  const said = { shown, graph, read };
  const plain = (key, value) => ArrayBuffer.isView(value) ? [...value] : value;
  document.body.setAttribute("data-said", JSON.stringify(said, plain));
</script></body></html>"""
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass(frozen=True)
class Shown:
    """What Netron says of a model.

    Attributes:
        model, graph: its sidebars for the model and for the graph, with inputs and outputs by their names.
        metadata: TFLITE_METADATA as its reader of metadata_schema.fbs has it.
    """

    model: dict[str, str]
    graph: dict[str, str]
    metadata: dict[str, Any]


def in_netron(test: Any) -> Any:
    """Marks a test that needs Netron and the browser."""
    missing = pytest.mark.skipif(NETRON is None, reason="needs netron, of the extra `dev`")
    return in_chromium(missing(test))


def shown(model: bytes, folder: Path) -> Shown:
    """`folder` gets what is served: the model, and Netron's page without the date by which it asks to be renewed."""
    assert NETRON is not None and NETRON.origin is not None
    wheel, served = Path(NETRON.origin).parent, folder / "netron"
    served.mkdir()
    for path in wheel.iterdir():
        (served / path.name).symlink_to(path)
    page = (wheel / "index.html").read_text(encoding="utf8")
    (served / "index.html").unlink()
    (served / "index.html").write_text(re.sub(r'<meta name="(version|date)".*', "", page), encoding="utf8")
    (folder / "model.tflite").write_bytes(model)
    (folder / "asked.html").write_text(FRAME, encoding="utf8")
    with serving(folder) as address:
        answer = opened(f"{address}/asked.html", folder, NO_NETWORK)
    return Shown(answer.said["shown"], answer.said["graph"], answer.said["read"])


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of a folder's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Served(SimpleHTTPRequestHandler):
    """Files, and `/wait`: the browser's virtual time stands still while a request is on its way."""

    def do_GET(self) -> None:
        if self.path == "/wait":
            time.sleep(0.1)
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None: ...
