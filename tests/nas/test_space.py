"""The space, its text form, and the strictness of its files."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.settings import build, read_toml
from nas.space import Architecture, Block, Choice, SearchSpace, Subnet

choices = st.builds(Choice, st.integers(1, 99), st.integers(1, 99))
subnets = st.builds(
    Subnet, st.integers(1, 999), st.lists(choices, min_size=1, max_size=6).map(tuple), st.integers(1, 99)
)


@given(subnets)
def test_parse_and_print_are_inverses(subnet):
    assert Subnet.parse(str(subnet)) == subnet


@given(st.lists(subnets, min_size=1, max_size=6))
def test_architectures_too(parts):
    ordered = tuple(Subnet(i, part.choices, part.bits) for i, part in enumerate(parts, start=1))
    whole = Architecture(ordered)
    assert Architecture.parse(str(whole)) == whole


@given(st.text(max_size=30))
def test_what_parses_prints_the_same(text):
    try:
        assert str(Subnet.parse(text)) == text
    except ConfigError as error:
        assert "\n" not in str(error).replace(text, "")


@pytest.mark.parametrize("text", ["", "b0_k3e3_w8", "b1_k3e3", "b1_k3e3_w8\n", "b1_k3e3-_w8", "b1_k03e3_w8", "b1__w8"])
def test_what_is_no_subnet(text):
    with pytest.raises(ConfigError):
        Subnet.parse(text)


def test_table1_is_the_papers(repository):
    space = SearchSpace.load(repository / "nas/spaces/table1.toml")
    assert [block.layers for block in space.blocks] == [3, 3, 4, 4, 3, 1]
    assert space.count() == 3246
    assert replace(space, bits=(4, 6, 8)).count() == 9738
    assert space.output_stride == 8
    os16 = SearchSpace.load(repository / "nas/spaces/table1-os16.toml")
    assert os16.output_stride == 16
    assert [block.layers for block in os16.blocks] == [block.layers for block in space.blocks]
    assert len(list(space.subnets(3))) == 1296
    assert space.layer_geometry(5, 0) == (96, 160, 1, 4)
    assert space.layer_geometry(5, 1) == (160, 160, 1, 1)


def test_every_shipped_space_and_config_reads(repository):
    from deploy.run.config import Overrides, load_experiment

    for path in sorted((repository / "deploy/configs").glob("*.toml")):
        experiment, space = load_experiment(path, Overrides())
        assert experiment.budgets and space.blocks


def test_samples_belong_to_the_space(repository):
    space = SearchSpace.load(repository / "nas/spaces/demo.toml")
    drawn = [space.sample(random.Random(i)) for i in range(50)]
    for architecture in drawn:
        space.check(architecture)
    assert len(set(drawn)) > 45
    with pytest.raises(ConfigError, match="not in space 'demo'"):
        space.check(
            Architecture.parse(
                "+".join(str(s) for s in drawn[0].subnets).replace("k3", "k9").replace("k5", "k9").replace("k7", "k9")
            )
        )


def test_the_digest_follows_the_space_not_its_name(repository):
    raw = read_toml(repository / "nas/spaces/demo.toml")
    space = build(SearchSpace, raw, "x")
    assert build(SearchSpace, {**raw, "name": "other"}, "x").digest == space.digest
    assert build(SearchSpace, {**raw, "bits": [4]}, "x").digest != space.digest


def test_unknown_key_names_the_near_miss(repository):
    raw = read_toml(repository / "nas/spaces/demo.toml")
    with pytest.raises(ConfigError, match=r"here: unknown key 'kernel'; did you mean 'kernels'\?"):
        build(SearchSpace, {**raw, "kernel": [3]}, "here")
    raw["blocks"][0]["chanels"] = 3
    with pytest.raises(ConfigError, match=r"unknown key 'blocks.0.chanels'; did you mean 'channels'\?"):
        build(SearchSpace, raw, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [("bits", [9]), ("bits", []), ("kernels", [4]), ("stem_channels", "many"), ("expansions", [0]), ("dilate", "some")],
)
def test_wrong_values_are_refused(repository, key, value):
    raw = read_toml(repository / "nas/spaces/demo.toml")
    with pytest.raises(ConfigError):
        build(SearchSpace, {**raw, key: value}, "here")


def test_a_broken_file_is_one_line(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("name = [")
    with pytest.raises(ConfigError, match="not readable as TOML"):
        SearchSpace.load(path)
    with pytest.raises(ConfigError, match="no such file"):
        SearchSpace.load(tmp_path / "none.toml")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path, repository):
    """Notepad writes one."""
    text = (repository / "nas/spaces/demo.toml").read_text(encoding="utf8").replace("\n", "\r\n")
    (tmp_path / "space.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert (
        SearchSpace.load(tmp_path / "space.toml").digest == SearchSpace.load(repository / "nas/spaces/demo.toml").digest
    )


def spaced(teacher: str, depth: int | None = None) -> SearchSpace:
    return SearchSpace("t", 8, 8, (Block(2, 12, 1, depth), Block(1, 16, 2, depth)), (3,), (2,), teacher=teacher)


def test_a_teacher_is_any_of_the_family_and_part_of_the_space():
    named = spaced("b1_k5e4-k3e1+b2_k7e6")
    assert named.teacher_layers == ((Choice(5, 4), Choice(3, 1)), (Choice(7, 6),))
    plain = spaced("", 2)
    assert plain.teacher_layers == ((Choice(3, 6),) * 2,) * 2
    assert spaced("b1_k3e6-k3e6+b2_k3e6-k3e6").teacher_layers == plain.teacher_layers
    assert named.digest != spaced("b1_k5e4-k3e1+b2_k7e4").digest


@pytest.mark.parametrize(
    ("teacher", "depth", "says"),
    [
        ("", None, "which teacher"),
        ("resnet18", None, "joined with"),
        ("b1_k3e6", None, "b1 to b2"),
        ("b2_k3e6+b1_k3e6", None, "in order"),
        ("b1_k3e6+b2_k4e6", None, "even kernel"),
        ("b1_k3e6+b2_k3e6_w8", None, "joined with"),
        ("b1_k3e6+b2_k3e6", 2, "teacher_layers"),
        ("b1_k3e6+b2_", None, "joined with"),
    ],
)
def test_a_teacher_outside_the_family_is_refused(teacher, depth, says):
    with pytest.raises(ConfigError, match=says):
        spaced(teacher, depth)
