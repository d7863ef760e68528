"""Which of a bundle's models runs here: one for a delegate beside one for the CPU. Needs Python 3.9."""

from __future__ import annotations

from typing import Any

PLACES = ("delegate", "cpu")


def chosen(manifest: dict[str, Any], *, delegate: bool) -> tuple[dict[str, Any], str]:
    """(what has the "model" with its "golden" pairs and "class_map", why that one); of one model it is the manifest."""
    entries = manifest.get("variants") or []
    if not entries:
        return manifest, "it is the only model"
    wanted, given = ("delegate", "a delegate is given") if delegate else ("cpu", "no delegate is given")
    for entry in entries:
        if entry["place"] == wanted:
            return dict(entry), f"{entry['model']}, for the {wanted}: {given}"
    return dict(entries[0]), f"{entries[0]['model']}: {given}, and no model is for the {wanted}"
