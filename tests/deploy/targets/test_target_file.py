"""A target's text reads back as the target, whatever its rules hold."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.targets.placement import Note, Target, load_target
from deploy.targets.rule import Cost, Evidence, Place, Rule
from deploy.targets.target_file import text_of

texts = st.text(min_size=1, max_size=30) | st.just("\x7f \0")
rules = st.builds(
    Rule,
    place=st.sampled_from(get_args(Place)),
    reason=texts,
    evidence=st.sampled_from(get_args(Evidence)),
    cost=st.sampled_from(get_args(Cost)),
    wrong=st.booleans(),
    slow=st.booleans(),
    operators=st.none() | st.just(("CONV_2D", "ADD")),
    weight_bits=st.none() | st.just((2, 4)),
    custom=st.none() | st.tuples(texts),
    kernel=st.none() | st.just(("3x3",)),
    effective_kernel_min=st.none() | st.integers(0, 99),
    grouped=st.none() | st.booleans(),
    scale_ratio_min=st.none() | st.floats(0, 1e9),
)
notes = st.builds(
    Note, dtypes=st.just(("INT8",)), text=texts, evidence=st.just("board"), cost=st.sampled_from(get_args(Cost))
)
targets = st.builds(
    Target,
    name=st.just("mine"),
    description=texts,
    fast_place=st.sampled_from(get_args(Place)),
    rules=st.lists(rules, min_size=1, max_size=4).map(tuple),
    safe_resize_factors=st.sampled_from([(), (2, 3)]),
    schemes=st.sampled_from([(), ("tensor uint8",)]),
    notes=st.lists(notes, max_size=2).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(targets, st.lists(st.text(max_size=40), max_size=2))
def test_what_is_written_is_read(tmp_path, target, comments):
    (tmp_path / "mine.toml").write_text(text_of(target, comments), encoding="utf8", newline="")
    assert load_target(tmp_path, "mine") == target


@pytest.mark.parametrize("name", ["imx8mp-vx", "cpu-xnnpack"])
def test_the_targets_that_ship(tmp_path, name):
    target = load_target(None, name)
    (tmp_path / "copy.toml").write_text(text_of(target, ["a copy"]))
    assert load_target(tmp_path, "copy") == dataclasses.replace(target, name="copy")
