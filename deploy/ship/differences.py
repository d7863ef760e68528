"""A model's score against that of the teacher trained on, in words."""

from __future__ import annotations

from nas.estimate import Estimate

CONTROL = "the teacher trained on"


def difference_text(difference: Estimate, other: str = CONTROL) -> str:
    """The difference with its interval, and what these images show."""
    d = difference
    verdict = "better" if d.low > 0 else "worse" if d.high < 0 else "no difference shown"
    return f"{d.value:+.2f} points [{d.low:+.2f}, {d.high:+.2f}] against {other}, over {d.n} images: {verdict}"
