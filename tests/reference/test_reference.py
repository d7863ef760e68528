"""The generated reference pages: every command, every key, every field, each with what it means."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Literal, get_type_hints

import pytest

from deploy.cli import parser
from deploy.run.config import Experiment
from hil.boards.config import BoardConfig
from nas.space import SearchSpace
from reference import commands, records, settings
from reference.docstrings import attributes, classes
from reference.markdown import plain


def settings_classes() -> list[type]:
    return [cls for top in (Experiment, SearchSpace, BoardConfig) for cls in (top, *dict(settings.tables(top)))]


@pytest.mark.parametrize("cls", settings_classes(), ids=lambda cls: cls.__name__)
def test_every_key_has_a_meaning(cls):
    """A table is explained by its class; a board's name is its table's."""
    meanings, hints = attributes(cls), get_type_hints(cls)
    silent = [f.name for f in fields(cls) if not meanings.get(f.name) and not list(classes(hints[f.name]))]
    assert silent == (["name"] if cls is BoardConfig else [])


def test_every_key_is_on_its_page_with_its_default():
    page = settings.configuration()
    assert '| `granularity` | `"channel"`, `"tensor"` | `"channel"` |' in page
    assert "| `rates` | list of whole number | `[12, 24, 36]` |" in page
    assert "| `budget` | text | none |" in page
    assert "| `schedule` | [`[teacher.schedule]`](#teacherschedule) | required |" in page
    assert "## [[budgets]]" in page and "[`[[budgets]]`](#budgets)" in page
    assert page.count("\n## [teacher.schedule]\n") == 1 and "## [distil.schedule]" not in page
    assert "| `dilate` |" in settings.spaces() and "| `name` |" not in settings.boards()


def test_every_command_and_option_is_on_its_page():
    page, waiting = commands.page(parser()), [parser()]
    waiting = [p for top in waiting for p in top.commands.choices.values()]
    while waiting:
        command = waiting.pop()
        assert f"### {command.prog}\n" in page
        section = page.split(f"### {command.prog}\n")[1].split("###")[0]
        for action in command._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
            elif action.option_strings and action.option_strings[0] != "-h":
                assert f"`{', '.join(action.option_strings)}" in section, (command.prog, action.option_strings)
    assert "%(" not in page


def test_every_record_and_part_is_on_its_page():
    page = records.page()
    for record in records.FILES:
        assert f"## {record.FILE}\n" in page
    assert "### Estimate\n" in page and "[Estimate](#estimate) or null" in page
    assert "| `spreads` | object of number |" in page  # a field that has another name on disk


@dataclass(frozen=True)
class Inner:
    """Within."""

    depth: int = 1


@dataclass(frozen=True)
class Outer(Inner):
    """One line,
    and its second.

    Attributes:
        kind, other: explained
            together.
        parts: several.
    """

    kind: Literal["a", "b"] = "a"
    other: str | None = None
    parts: tuple[Inner, ...] = ()
    pair: tuple[int, float] = (1, 2.0)


def test_what_a_dataclass_says_of_itself():
    assert attributes(Outer) == {"kind": "explained together.", "other": "explained together.", "parts": "several."}
    hints = get_type_hints(Outer)
    assert [list(classes(hints[name])) for name in ("kind", "parts")] == [[], [Inner]]
    assert dict(settings.tables(Outer)) == {Inner: "[[parts]]"}
    assert settings.written(hints["pair"]) == "list: whole number, number"
    assert settings.written(hints["other"]) == "text" and records.written(hints["other"]) == "text or null"
    assert records.written(hints["parts"]) == "list of [Inner](#inner)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a_b *c*", "a&#95;b &#42;c&#42;"), ("`a_b` <x>", "`a_b` &#60;x&#62;"), ("two\n  lines", "two lines")],
)
def test_nothing_in_a_text_is_markup_but_code(text, shown):
    assert plain(text) == shown
