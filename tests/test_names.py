"""Names: one public type per name, no module called like one of the standard library, and the field's own words."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hil", "nas", "deploy", "board_scripts")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]

PRIVATE_WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\ba scale a (channel|tensor)\b|\bint8 a tensor\b": "per-channel, per-tensor",
    r"\blikeliest\b": "maximum-likelihood hyperparameters",
    r"(?<![\"`])\bspreads\b(?![\"`])": "prior standard deviations",
    r"\bgive or take\b": "±",
    r"\bdealt? out\b": "assign bit widths",
    r"\bof_teacher_around\b|\baround_(us|bits)\b": "outside the blocks",
    r"\bregressed (latenc|entr|block|from)": "predicted",
    r"\bwhole models?\b": "full model",
    r"\bjudged?\b|\bjudging\b": "evaluate, score",
    r"\bseams?\b": "block boundary",
    r"\bfenced\b|\bfence_(in|out)put": "boundary convolution",
    r"\btold apart\b|\bis told by\b": "predicted",
}


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text(encoding="utf8").splitlines(), start=1)


def test_no_two_public_types_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_is_called_like_one_of_the_standard_library() -> None:
    assert [str(path) for path in MODULES if path.stem in sys.stdlib_module_names and path.stem != "__init__"] == []


@pytest.mark.parametrize("word", PRIVATE_WORDS)
def test_no_private_word_is_left(word: str) -> None:
    pattern = re.compile(word, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]} (say: {PRIVATE_WORDS[word]})"
        for path in [*MODULES, *PAGES]
        for number, line in lines_of(path)
        if pattern.search(line)
    ]
    assert found == []
