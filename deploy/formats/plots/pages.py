"""A self-contained HTML page: its style for light, dark and paper, and the script that names what is pointed at.

Nothing is fetched. Without JavaScript everything is there; only names under the pointer come later, as the
browser shows an SVG's <title>. The text is well-formed XML, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from deploy.formats.plots.colours import COLOURS, DARK
from deploy.formats.plots.figures import Plot
from deploy.formats.plots.svg import inline

VARIABLES = ("ink", "muted", "grid", "paper", "offender", "models", "selected")
TINTS = ("offender", "models")  # of which cells are coloured, by how much they hold
WIDE, NARROW = 1060.0, 400.0  # pixels of a plot that has a row for itself, on a screen and on a phone


def _variables(which: int) -> str:
    colours = {name: COLOURS[name][which] for name in VARIABLES}
    solid = [f"--{name}: {colour}" for name, colour in colours.items()]
    parts = {name: " ".join(map(str, bytes.fromhex(colours[name].lstrip("#")))) for name in TINTS}
    return "; ".join([*solid, *(f"--{name}-tint: {part}" for name, part in parts.items())])


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(0)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}
{DARK}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin: 0 }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .3rem }} p {{ margin: .3rem 0 }}
[hidden] {{ display: none !important }} .narrow {{ display: none }}
@media screen and (max-width: 640px) {{ .broad {{ display: none }} .narrow {{ display: block }} }}
.muted {{ color: var(--muted) }} code, .subnet td {{ font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere }}
.wide {{ overflow-x: auto }} .wide + .wide, .above {{ margin-top: 1.2rem }}
table {{ border-collapse: collapse; margin-top: .6rem; width: 100%; font-size: 15px }}
th {{ font-weight: 600; vertical-align: bottom }} th, td {{ padding: .3rem .6rem; text-align: right }}
td {{ white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }} thead tr, tbody {{ border-bottom: 1px solid var(--grid) }}
.subnet td {{ color: var(--muted); padding-top: 0; white-space: normal }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 1rem 1.5rem;
  align-items: start; margin: 1rem 0 }}
.figures > div {{ overflow-x: auto }} .figures > :only-child {{ grid-column: 1 / -1 }}
.plot {{ width: 100%; height: auto; display: block;
  min-width: calc(.7 * var(--width)); max-width: calc(1.2 * var(--width)) }}
.plot .hover {{ stroke: var(--ink); stroke-width: 2 }}
.headline {{ font-size: 1.15rem; margin: .8rem 0 .4rem }}
.checks {{ list-style: none; padding: 0; margin: .5rem 0 1rem; color: var(--muted); font-size: 15px;
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(500px, 100%), 1fr)); column-gap: 1.5rem }}
.checks .fails, .wrong {{ color: var(--offender); font-weight: 600 }}
.texts td, .texts th {{ text-align: left; vertical-align: top }} .texts td {{ white-space: normal }}
.texts {{ min-width: 44rem }} .offenders {{ min-width: 50rem }}
.gallery {{ table-layout: fixed; min-width: calc(92px * var(--columns)) }} .gallery th {{ font-size: 13px }}
.gallery td, .gallery tbody {{ border: 0 }}
.gallery td, .gallery th {{ text-align: left; padding: .2rem; vertical-align: top }}
.gallery .note td {{ padding-bottom: .8rem }}
.gallery img, .cards img {{ width: 100%; height: auto; display: block; image-rendering: pixelated }}
small {{ color: var(--muted); white-space: normal; display: block; overflow-wrap: anywhere }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1rem; margin: .8rem 0 }}
.cards figure {{ margin: 0; font-size: 14px; line-height: 1.35 }} .cards b, .cards span {{ display: block }}
.cards b {{ margin-top: .3rem }}
.key span {{ margin-right: .9rem; white-space: nowrap }} .key i {{ display: inline-block; width: .9em; height: .9em;
  margin-right: .35em; border: 1px solid var(--muted); vertical-align: -.1em }}
.confusions {{ width: auto }} .confusions td, .confusions thead th {{ text-align: center }}
.confusions .right, .confusions .wrong {{ color: var(--ink); font-weight: 600;
  background: rgb(var(--cell) / calc(.12 + .28 * var(--share))) }}
.confusions .right {{ --cell: var(--models-tint) }} .confusions .wrong {{ --cell: var(--offender-tint) }}
.offenders td:last-child, .offenders th:last-child {{ text-align: left; white-space: normal }}
pre {{ overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; border: 1px solid var(--grid); padding: .6rem .8rem }}
summary {{ cursor: pointer; margin: .5rem 0 }}
.warning {{ border: 2px solid var(--offender); color: var(--offender); padding: .5rem .8rem; font-weight: 600 }}
#tip {{ position: fixed; max-width: 28rem; padding: .35rem .6rem; background: var(--ink); color: var(--paper);
  font: 12px/1.4 ui-monospace, monospace; white-space: pre-line; overflow-wrap: anywhere; border-radius: 4px;
  pointer-events: none; z-index: 1 }}
@media print {{ body {{ margin: 0; max-width: none; font-size: 12px }} table {{ font-size: 10px }}
  #tip, #exploration {{ display: none !important }} #front {{ display: block !important }}
  pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}
  th, td {{ padding: .15rem .3rem }} .plot, tbody {{ break-inside: avoid }}
  h2 {{ break-after: avoid }} .plot {{ min-width: 0 }} h1, h2 {{ font-size: 15px }}
  code, .subnet td {{ font-size: 10px }}
  .figures {{ grid-template-columns: 1fr 1fr }} .wide {{ overflow: visible }} }}
"""

SCRIPT = """
const tip = document.getElementById("tip");
const beyond = (from, to, at) => Math.max(from - at, 0, at - to);
for (const plot of document.querySelectorAll("svg.plot")) {
  const marks = [...plot.querySelectorAll("title")].map(title => [title.parentNode, title.textContent]);
  for (const [mark] of marks) mark.querySelector("title").remove();
  let shown = null;
  const show = event => {
    let least = 16, nearest = null;
    for (const one of marks) {
      const box = one[0].getBoundingClientRect();
      const away = Math.hypot(beyond(box.left, box.right, event.clientX), beyond(box.top, box.bottom, event.clientY));
      if (least > away) { least = away; nearest = one; }
    }
    if (shown) shown.classList.remove("hover");
    shown = nearest ? nearest[0] : null;
    tip.hidden = !nearest;
    if (!nearest) return;
    shown.classList.add("hover");
    tip.textContent = nearest[1];
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    const below = event.clientY + 18;
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : below) + "px";
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerleave", () => { tip.hidden = true; if (shown) shown.classList.remove("hover"); });
}
"""


def page(title: str, body: str, refresh_s: float | None = None) -> str:
    """The page; `body` is HTML that is well-formed XML. `refresh_s`: after which a browser loads it again."""
    again = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s:g}" />\n'
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8" /><meta name="viewport" content="width=device-width, initial-scale=1" />
{again}<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<main>
{body}
</main>
<div id="tip" hidden="hidden"></div><script>{SCRIPT}</script>
</body></html>
"""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of texts; it scrolls where it is wider than the page."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def scrolled(content: str) -> str:
    """What may be wider than the page; the keyboard reaches it, too."""
    return f'<div class="wide" tabindex="0">{content}</div>'


def figures(plots: list[str]) -> str:
    """Plots, drawn by `deploy.formats.plots.svg.inline`, side by side where there is room."""
    return f'<div class="figures">{"".join(f"<div>{one}</div>" for one in plots)}</div>'


def wide(plot: Plot, width: float = WIDE) -> str:
    """A plot in a row for itself, drawn for a screen and for a phone: letters keep their size."""
    broad, narrow = inline(plot, width), inline(plot, NARROW)
    return figures([f'<div class="broad">{broad}</div><div class="narrow">{narrow}</div>'])
