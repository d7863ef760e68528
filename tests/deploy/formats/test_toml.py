"""Settings as TOML: tomllib reads back what was written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.formats.toml import to_toml

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner.filter(lambda v: v is not None), max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=8,
)


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(entry) for key, entry in value.items() if entry is not None}
    return [without_none(entry) for entry in value] if isinstance(value, list) else value


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_it_comes_back(settings: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(settings)) == without_none(settings)


def test_it_reads_like_a_configuration() -> None:
    text = to_toml({"seed": 0, "data": {"spec": "scenes", "size": (64, 96), "val": None}, "budgets": ({"name": "a"},)})
    assert text == 'seed = 0\nbudgets = [{ name = "a" }]\n\n[data]\nspec = "scenes"\nsize = [64, 96]\n'


def test_what_toml_has_not() -> None:
    with pytest.raises(TypeError, match="object"):
        to_toml({"a": object()})
