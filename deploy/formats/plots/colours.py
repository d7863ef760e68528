"""The one palette: a colour stands for one meaning in every figure.

Elements of an SVG carry their light colours as attributes, so that every reader of SVG shows them, and a class by
which a style sheet (`DARK`) gives the dark ones.
"""

from __future__ import annotations

from collections.abc import Mapping

COLOURS: Mapping[str, tuple[str, str]] = {
    "ink": ("#1c2733", "#e6ebf1"),
    "muted": ("#566373", "#a3b1bf"),
    "grid": ("#e3e8ee", "#2b3640"),
    "paper": ("#ffffff", "#12181f"),
    "models": ("#3f73b0", "#7fb2ea"),
    "selected": ("#b85500", "#f5a14d"),
    "offender": ("#c0334a", "#ff8091"),
    "loss": ("#3f73b0", "#7fb2ea"),
    "learning rate": ("#2d7d46", "#6cc48a"),
    **{
        f"{bits} bits": pair
        for bits, pair in enumerate(
            (
                ("#7d4fa8", "#bd98e6"),
                ("#b3307a", "#f07fbb"),
                ("#b85500", "#f5a14d"),
                ("#766700", "#cdbb4e"),
                ("#2d7d46", "#6cc48a"),
                ("#147d8a", "#4fc3cf"),
                ("#3f73b0", "#7fb2ea"),
            ),
            start=2,
        )
    },
}
"""By meaning: on light paper, on dark paper. Each has a contrast of at least 4.5 with its paper, the grid excepted."""


def fill(colour: str) -> str:
    """Attributes of an element that is filled in the colour of a meaning."""
    return f"class='f-{_class(colour)}' fill='{COLOURS[colour][0]}'"


def stroke(colour: str) -> str:
    """Attributes of an element that is drawn in lines."""
    return f"class='s-{_class(colour)}' stroke='{COLOURS[colour][0]}'"


def outlined(colour: str) -> str:
    """Attributes of a text that is set off from what lies beneath by a rim of paper."""
    light, paper = COLOURS[colour][0], COLOURS["paper"][0]
    return f"class='f-{_class(colour)} s-paper' fill='{light}' stroke='{paper}' paint-order='stroke' stroke-width='3'"


def _class(colour: str) -> str:
    return colour.replace(" ", "-")


DARK = "@media screen and (prefers-color-scheme: dark) {{ {} }}".format(
    " ".join(
        f".f-{_class(name)} {{ fill: {dark} }} .s-{_class(name)} {{ stroke: {dark} }}"
        for name, (_, dark) in COLOURS.items()
    )
)
