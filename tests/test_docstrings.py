"""Every name that a class docstring lists under `Attributes:` is a field or property of that class."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("hil", "nas", "deploy", "board_scripts")
SECTION = re.compile(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", re.M)
ENTRY = re.compile(r"^    (\w+(?:, \w+)*):", re.M)


@cache
def modules() -> dict[Path, ast.Module]:
    paths = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    return {path: ast.parse(path.read_text(encoding="utf8")) for path in paths}


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """By name, over all packages: bases are looked up here."""
    found: dict[str, list[ast.ClassDef]] = {}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def documented(node: ast.ClassDef) -> list[str]:
    """The names under `Attributes:`."""
    section = SECTION.search(f"{ast.get_docstring(node) or ''}\n")
    return [name for entry in ENTRY.findall(section[1]) for name in entry.split(", ")] if section else []


def fields(node: ast.ClassDef) -> Iterator[str]:
    """Names that the class body, its methods (`self.name = ...`) or its bases define."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
        elif isinstance(statement, ast.FunctionDef):
            if any("property" in ast.unparse(decorator) for decorator in statement.decorator_list):
                yield statement.name
            for child in ast.walk(statement):
                if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
                    yield child.attr
    for base in node.bases:
        for parent in classes().get(ast.unparse(base).rpartition(".")[2], []):
            if parent is not node:
                yield from fields(parent)


def wrong(node: ast.ClassDef) -> list[str]:
    known = set(fields(node))
    return [name for name in documented(node) if name not in known]


@pytest.mark.parametrize("package", PACKAGES)
def test_documented_attributes_exist(package: str) -> None:
    missing = {
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}": names
        for path, tree in modules().items()
        if path.is_relative_to(REPOSITORY / package)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and (names := wrong(node))
    }
    assert not missing


def test_a_name_that_is_no_field_is_noticed() -> None:
    source = '''
class ABaseOfNoOther:
    width: int

class Made(ABaseOfNoOther):
    """Something.

    Attributes:
        width: inherited.
        height, depth: two; the second is assigned in a method,
            and this line names nothing: not even this.
        volume: a property.
        weight: nothing.

    Raises:
        ValueError: never.
    """

    height: int

    def __post_init__(self):
        self.depth = 1

    @property
    def volume(self):
        return 0
'''
    base, made = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    classes()["ABaseOfNoOther"] = [base]
    assert documented(made) == ["width", "height", "depth", "volume", "weight"]
    assert wrong(made) == ["weight"]
    del classes()["ABaseOfNoOther"]
