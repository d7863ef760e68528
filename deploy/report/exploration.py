"""The front by any two of NSR, size, latency and bits, chosen in the page.

Without JavaScript the static front is there and this is not. The points are the union of the exact fronts over each
pair of quantities; which of them are on the front of the chosen two is worked out in the page.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from html import escape

from deploy.report.material import Material, space_of
from deploy.search.cost_tables import cost_tables_of_run
from hil.errors import HilError
from nas.data.files import evenly_spaced
from nas.errors import NasError
from nas.search.front import front
from nas.search.union import CostTables
from nas.space import Architecture, SearchSpace

MOST = 250  # architectures of each front
QUANTITIES = {
    "nsr": "sum of block NSR",
    "latency": "predicted latency, ms",
    "size": "weights, kB",
    "bits": "mean bits of the blocks' weights",
}
PER_UNIT = {"latency": 1e3, "size": 8e3}

SCRIPT = """
(() => {
  const box = document.getElementById("exploration"), data = JSON.parse(box.querySelector("script").textContent);
  const [byX, byY] = box.querySelectorAll("select"), svg = box.querySelector("svg"), W = 1060, H = 340;
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
    return node;
  };
  const paint = name => "fill: var(--" + name + ")";
  const axis = (key, from, to) => {
    const all = data.points.map(p => p[key]), low = Math.min(...all), high = Math.max(...all);
    const log = low > 0 && high > 5 * low, on = log ? Math.log : Number, back = log ? Math.exp : Number;
    const span = on(high) - on(low) || 1;
    return {
      at: point => from + (on(point[key]) - on(low)) / span * (to - from),
      value: share => Number(back(on(low) + share * span).toPrecision(3)),
      name: data.names[key] + (log ? " (log scale)" : ""),
    };
  };
  const draw = () => {
    svg.textContent = "";
    const x = byX.value, y = byY.value, points = data.points;
    const across = axis(x, 70, W - 20), upwards = axis(y, H - 46, 14);
    for (let i = 0; i <= 4; i++) {
      const px = 70 + i * (W - 90) / 4, py = H - 46 - i * (H - 60) / 4;
      make("text", { x: px, y: H - 26, "text-anchor": "middle", style: paint("muted") }, across.value(i / 4));
      make("text", { x: 62, y: py + 4, "text-anchor": "end", style: paint("muted") }, upwards.value(i / 4));
      make("line", { x1: 70, x2: W - 20, y1: py, y2: py, style: "stroke: var(--grid)" });
    }
    make("text", { x: W / 2, y: H - 6, "text-anchor": "middle", style: paint("ink") }, across.name);
    const best = p => !points.some(q => q[x] <= p[x] && q[y] <= p[y] && (q[x] < p[x] || q[y] < p[y]));
    for (const point of points) {
      const front = best(point), colour = point.model ? "selected" : front ? "models" : "muted";
      const size = { r: point.model ? 6 : front ? 4 : 2.5, "fill-opacity": front || point.model ? 1 : .35 };
      const dot = make("circle", { cx: across.at(point), cy: upwards.at(point), ...size, style: paint(colour) });
      dot.tip = (point.model ? point.model + ": " : "") + point.subnet + "\\n" +
        Object.keys(data.names).map(key => data.names[key] + " " + Number(point[key].toPrecision(4))).join("\\n");
    }
    svg.setAttribute("aria-label", data.names[y] + " against " + data.names[x] + ": " + points.filter(best).length +
      " architectures on the front");
  };
  const tip = document.getElementById("tip");
  svg.addEventListener("pointermove", event => {
    const near = [...svg.querySelectorAll("circle")].map(dot => {
      const at = dot.getBoundingClientRect();
      return [Math.hypot(at.x + at.width / 2 - event.clientX, at.y + at.height / 2 - event.clientY), dot];
    }).sort((a, b) => a[0] - b[0])[0];
    tip.hidden = !near || near[0] > 16;
    if (tip.hidden) return;
    tip.textContent = near[1].tip;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    const below = event.clientY + 18;
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below) + "px";
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  byX.addEventListener("change", draw);
  byY.addEventListener("change", draw);
  box.hidden = false;
  draw();
})();
"""


def exploration(material: Material) -> str:
    """Nothing where the space or its tables are not at hand, and of several schemes."""
    space = space_of(material)
    if space is None:
        return ""
    try:
        tables, *others = cost_tables_of_run(material.folder)
    except (HilError, NasError, OSError):
        return ""
    if others or not {"nsr", "size", "latency"} <= tables.tables.keys():
        return ""
    points = list(_points(material, space, tables))
    content = json.dumps({"names": QUANTITIES, "points": points}).replace("<", "\\u003c")
    return (
        '<div id="exploration" hidden="hidden"><p><label>across '
        f"{_choice('latency')}</label> <label>upwards {_choice('nsr')}</label></p>"
        '<div class="wide"><svg class="plot" viewBox="0 0 1060 340" style="--width: 1060px" role="img" font-size="12" '
        'font-family="system-ui, sans-serif"></svg></div>'
        f'<script type="application/json">{content}</script></div>'
    )


def _choice(chosen: str) -> str:
    options = ""
    for key, name in QUANTITIES.items():
        mark = ' selected="selected"' if key == chosen else ""
        options += f'<option value="{key}"{mark}>{escape(name)}</option>'
    return f"<select>{options}</select>"


def _points(material: Material, space: SearchSpace, tables: CostTables) -> Iterator[dict[str, float | str]]:
    shown: dict[Architecture, str] = {}
    for pair in itertools.combinations(("nsr", "latency", "size"), 2):
        found = front(tables.candidates(space, pair)).architectures
        shown |= dict.fromkeys(evenly_spaced(found, MOST), "")
    shown |= {entry.architecture: entry.name for entry in material.search.selected}
    for architecture, model in shown.items():
        totals = {name: tables.total(name, architecture) for name in ("nsr", "latency", "size")}
        numbers = {name: total / PER_UNIT.get(name, 1.0) for name, total in totals.items()}
        bits = _mean_bits([tables.tables["size"][subnet] for subnet in architecture.subnets], architecture)
        yield {"subnet": str(architecture), "model": model, **numbers, "bits": bits}


def _mean_bits(sizes: Sequence[float], architecture: Architecture) -> float:
    """Of a weight, by the blocks' sizes."""
    weights = [size / subnet.bits for size, subnet in zip(sizes, architecture.subnets, strict=True)]
    return sum(sizes) / sum(weights)
