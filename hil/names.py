"""Models are known by content and path, and shown by the shortest path that tells them apart."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True)
class Known:
    """A model that was measured.

    Attributes:
        name: what it was called then.
        path: of its file; "" where it is not known.
    """

    name: str
    path: str
    sha256: str


def shortest(paths: Sequence[str | Path]) -> list[str]:
    """For each path its last parts, as few as no other of them ends with; one path has one name."""
    parts = [PurePath(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 - a link keeps its own name
    names: dict[tuple[str, ...], str] = {}
    depth = 1
    while len(names) < len(set(parts)):
        endings = Counter(own[-depth:] for own in set(parts))
        names |= {own: str(PurePath(*own[-depth:])) for own in parts if own not in names and endings[own[-depth:]] == 1}
        depth += 1
    return [names[own] for own in parts]


def told_apart(models: Sequence[Known]) -> list[str]:
    """Their names, and where one name is of several contents, their shortest paths; NAME@SHA where those do not help.

    A file that changed has one path and two contents, and records of an earlier version have no path.
    """
    shown = [model.name for model in models]
    for name in _ambiguous(shown, models):
        alike = [i for i, model in enumerate(models) if model.name == name]
        if all(models[i].path for i in alike):
            for i, path in zip(alike, shortest([models[i].path for i in alike]), strict=True):
                shown[i] = path
    still = _ambiguous(shown, models)
    return [f"{name}@{m.sha256[:8]}" if name in still else name for name, m in zip(shown, models, strict=True)]


def _ambiguous(shown: Sequence[str], models: Sequence[Known]) -> set[str]:
    """The names that stand for more than one content."""
    pairs = {(m.sha256, name) for m, name in zip(models, shown, strict=True)}
    return {name for name, count in Counter(name for _, name in pairs).items() if count > 1}
