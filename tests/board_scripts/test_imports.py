"""The board's scripts must run on an old Python with nothing of ours beside them but each other."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "board_scripts").glob("*.py"))
ALLOWED = {*sys.stdlib_module_names, "numpy", "ai_edge_litert", "tflite_runtime", "tensorflow", "board_scripts"}


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_needs_nothing_else_and_parses_as_python_39(script: Path) -> None:
    tree = ast.parse(script.read_text(), feature_version=(3, 9))
    assert imported(tree) <= ALLOWED
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    # annotations written X | Y are only text there
    if len(tree.body) > 1:
        assert "annotations" in {alias.name for node in tree.body[:3] for alias in getattr(node, "names", [])}


def test_the_check_itself_sees_a_foreign_import() -> None:
    assert imported(ast.parse("def f():\n    import hil.stats\n    from . import x")) == {"hil", "."}
