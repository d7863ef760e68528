"""The front by any two of NSR, size, latency and bits, chosen in the page.

Without JavaScript the static front is there and this is not; with it this takes its place. The points are the union of
the exact fronts over each pair of quantities; which of them are on that of the chosen two is worked out in the page.
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
KEY = (
    "Blue: the exact front of these two; grey: on the front of another two; orange: selected models. "
    "Less is better in all four."
)
PER_UNIT = {"latency": 1e3, "size": 8e3}

SCRIPT = """
(() => {
  const box = document.getElementById("exploration"), data = JSON.parse(box.querySelector("script").textContent);
  const [byX, byY] = box.querySelectorAll("select"), svg = box.querySelector("svg");
  const W = innerWidth > 640 ? 1060 : 400, H = 340;
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.style.setProperty("--width", W + "px");
  const make = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
    return node;
  };
  const rim = "; stroke: var(--paper); stroke-width: 3; paint-order: stroke";
  const paint = name => "fill: var(--" + name + ")";
  const round = (low, high, log, most) => {
    if (!log) {
      const power = 10 ** Math.floor(Math.log10((high - low) / most || 1));
      const step = [1, 2, 5, 10].map(m => m * power).find(s => (high - low) / s <= most);
      const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
      return Array.from({ length: count }, (_, i) => (first + i) * step);
    }
    const found = [], mantissas = high > 20 * low ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
    for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
      found.push(...mantissas.map(m => m * power).filter(value => value >= low && value <= high));
    return found;
  };
  const axis = (key, from, to, most) => {
    const all = data.points.map(p => p[key]), low = Math.min(...all), high = Math.max(...all);
    const log = low > 0 && high > 5 * low, on = log ? Math.log : Number, span = on(high) - on(low) || 1;
    const at = value => from + (0.04 + 0.92 * (on(value) - on(low)) / span) * (to - from);
    const ticks = round(low, high, log, most).map(value => [at(value), Number(value.toPrecision(6))]);
    return { at: point => at(point[key]), ticks, name: data.names[key] + (log ? " (log scale)" : "") };
  };
  const draw = () => {
    svg.textContent = "";
    const x = byX.value, y = byY.value, points = data.points;
    const left = 70, right = W - 20, top = 14, bottom = H - 46;
    const across = axis(x, left, right, W / 120), upwards = axis(y, bottom, top, 6), named = [];
    for (const [at, text] of across.ticks) {
      make("text", { x: at, y: bottom + 18, "text-anchor": "middle", style: paint("muted") }, text);
      make("line", { x1: at, x2: at, y1: top, y2: bottom, style: "stroke: var(--grid)" });
    }
    for (const [at, text] of upwards.ticks) {
      make("text", { x: left - 8, y: at + 4, "text-anchor": "end", style: paint("muted") }, text);
      make("line", { x1: left, x2: right, y1: at, y2: at, style: "stroke: var(--grid)" });
    }
    const frame = "fill: none; stroke: var(--muted)";
    make("polyline", { points: [left, top, left, bottom, right, bottom].join(" "), style: frame });
    make("text", { x: (left + right) / 2, y: H - 6, "text-anchor": "middle", style: paint("ink") }, across.name);
    const turned = `translate(16 ${(top + bottom) / 2}) rotate(-90)`;
    make("text", { transform: turned, "text-anchor": "middle", style: paint("ink") }, upwards.name);
    const best = p => !points.some(q => q[x] <= p[x] && q[y] <= p[y] && (q[x] < p[x] || q[y] < p[y]));
    for (const point of points) {
      const front = best(point), colour = point.model ? "selected" : front ? "models" : "muted";
      const size = { r: point.model ? 6 : front ? 4 : 2.5, "fill-opacity": front || point.model ? 1 : .35 };
      const dot = make("circle", { cx: across.at(point), cy: upwards.at(point), ...size, style: paint(colour) });
      dot.tip = (point.model ? point.model + ": " : "") + point.subnet + "\\n" +
        Object.keys(data.names).map(key => data.names[key] + " " + Number(point[key].toPrecision(4))).join("\\n");
      const late = across.at(point) > right - 80;
      const beside = { x: across.at(point) + (late ? -10 : 10), y: upwards.at(point) - 7 };
      const long = 8 * point.model.length, start = beside.x - (late ? long : 0);
      const over = at => at.start < start + long && start < at.end && Math.abs(at.y - beside.y) < 13;
      while (point.model && named.some(over)) beside.y -= 13;
      if (point.model) named.push({ start, end: start + long, y: beside.y });
      const bold = { "font-weight": 600, "text-anchor": late ? "end" : "start", style: paint("selected") + rim };
      if (point.model) make("text", { ...beside, ...bold }, point.model);
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
  document.getElementById("front").hidden = true;
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
        f'<p class="muted">{KEY}</p>'
        '<div class="wide" tabindex="0"><svg class="plot" role="img" font-size="12" '
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
