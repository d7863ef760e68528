"""A policy as record, text and file; layers, ties and costs of a folded network."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError
from nas.lcpaq.options import options_of
from nas.lcpaq.policy import (
    Layer,
    Options,
    Policy,
    applied,
    layers_of,
    load_policy,
    network_digest,
    policy_of,
    save_policy,
    ties,
)
from nas.quant import post_training
from nas.quant.float_graph import INPUT, Add, Conv, Node, Pad, Weighted
from nas.quant.integer_graph import QConv
from nas.quant.scheme import FewBits, Granularity, Scheme
from tests.nas.lcpaq.lcpaq_problem import curved_problem, small_nodes

NAMES = st.from_regex(r"[a-z0-9/_=.-]{1,12}", fullmatch=True)
BITS = st.integers(1, 32)
POLICIES = st.dictionaries(NAMES, st.tuples(BITS, BITS), min_size=1, max_size=8).map(
    lambda found: Policy({n: w for n, (w, _) in found.items()}, {n: a for n, (_, a) in found.items()})
)


@given(POLICIES)
def test_the_text_names_the_policy(policy: Policy) -> None:
    assert Policy.parse(str(policy)) == policy
    assert list(Policy.parse(str(policy)).bits) == list(policy.bits)


@given(POLICIES)
def test_the_file_holds_the_policy(policy: Policy) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.json"
        save_policy(policy, path, "abc")
        assert load_policy(path, "abc") == policy
        assert [found.name for found in Path(folder).iterdir()] == ["policy.json"]


def test_eight_bits_need_not_be_written() -> None:
    policy = Policy({"stem": 8, "b1/0/expand": 4}, {"b1/0/expand": 6})
    assert str(policy) == "stem=8 b1/0/expand=w4a6"
    assert Policy.parse("stem=w8a8") == Policy({"stem": 8}) == Policy({"stem": 8}, {"stem": 8})
    assert policy.choice("b1/0/expand") == (4, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no layer"),
        ("stem", "'stem' is not LAYER=BITS"),
        ("stem=four", "'stem=four' is not LAYER=BITS"),
        ("stem=w4", "'stem=w4' is not LAYER=BITS"),
        ("stem=0", "integers from 1 to 32, not 0"),
        ("stem=99", "integers from 1 to 32, not 99"),
        ("stem=4 stem=8", "'stem' is named twice"),
    ],
)
def test_a_wrong_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy.parse(text)


COMPLETE = {"weight_bits": 8, "activation_bits": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a policy of format"),
        ('{"format": "hilnas-policy/2"}', "not a policy of format"),
        (json.dumps({"format": "hilnas-policy/1", "network": "x", "layers": {"a": COMPLETE}}), "of another network"),
        (json.dumps({"format": "hilnas-policy/1", "network": "abc"}), "incomplete"),
        (json.dumps({"format": "hilnas-policy/1", "network": "abc", "layers": {}}), "incomplete"),
        (json.dumps({"format": "hilnas-policy/1", "network": "abc", "layers": {"a": 8}}), "incomplete"),
        (
            json.dumps({"format": "hilnas-policy/1", "network": "abc", "layers": {"a": COMPLETE | {"c": 1}}}),
            "incomplete",
        ),
        (
            json.dumps(
                {"format": "hilnas-policy/1", "network": "abc", "layers": {"a": COMPLETE | {"weight_bits": "4"}}}
            ),
            "integers",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(content, "utf8")
    with pytest.raises(ConfigError, match=message) as raised:
        load_policy(path, "abc")
    assert str(path) in str(raised.value)
    with pytest.raises(ConfigError, match="no policy can be read"):
        load_policy(tmp_path / "none.json", "abc")


def test_layers_are_counted_as_they_are_deployed() -> None:
    layers = layers_of(small_nodes(), (8, 8, 3))
    assert layers == (
        Layer("stem", "conv", 108, 4, 16 * 108, 32),
        Layer("depthwise", "depthwise", 36, 4, 16 * 36, 32),
        Layer("project", "pointwise", 16, 4, 16 * 16, 32),
        Layer("logits", "linear", 12, 3, 12, 24),
    )
    assert layers[0].bops(4, 6) == 16 * 108 * 24


def test_layers_of_imported_networks_are_counted_too() -> None:
    kinds = {layer.name: (layer.kind, layer.macs) for layer in layers_of(curved_problem().nodes, (8, 8, 3))}
    assert kinds == {
        "stem": ("conv", 16 * 108),
        "grouped": ("pointwise", 16 * 8),
        "squeeze": ("linear", 16),
        "up": ("conv", 16 * 48),  # each weight meets each position of the input
        "mixed": ("linear", 8 * 120),
        "last": ("linear", 8 * 10),
    }


@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("bits", [4, 7, 8])
def test_layers_have_the_size_of_the_deployed_integers(bits: int, granularity: Granularity, few_bits: FewBits) -> None:
    scheme = Scheme(granularity, few_bits=few_bits)
    layers = layers_of(small_nodes(), (8, 8, 3), scheme)
    nodes = applied(small_nodes(), Policy(dict.fromkeys((layer.name for layer in layers), bits)))
    graph = post_training.quantize(nodes, [torch.randn(2, 3, 8, 8)], (8, 8, 3), scheme)
    assert graph.size_bits == sum(layer.size_bits(bits) for layer in layers)


def conv(name: str, x: str) -> Node:
    return Conv(name, x, torch.zeros(3, 3, 1, 1), torch.zeros(3))


def test_layers_that_meet_in_additions_are_tied() -> None:
    nodes = [
        conv("a", INPUT),
        conv("b", "a"),
        Add("ab", "a", "b"),
        conv("c", "ab"),
        Add("abc", "ab", "c"),
        conv("d", "abc"),  # read by nothing that adds
        conv("e", "d"),
        Pad("padded", "e", (0, 0), (0, 0)),
        conv("f", "d"),
        Add("ef", "f", "padded"),
        conv("g", INPUT),
        Add("gi", "g", INPUT),  # a layer and no other
        conv("h", "gi"),
    ]
    assert ties(nodes) == (("a", "b", "c"), ("e", "f"))
    assert ties([*nodes, Add("cf", "abc", "ef")]) == (("a", "b", "c", "e", "f"),)
    assert ties([conv("a", INPUT)]) == ()


def test_a_policy_is_applied_and_read_back() -> None:
    nodes = small_nodes()
    policy = Policy({"stem": 8, "depthwise": 6, "project": 4, "logits": 8})
    changed = applied(nodes, policy)
    assert policy_of(changed) == policy and policy_of(nodes) == Policy(dict.fromkeys(policy.bits, 8))
    assert [node.name for node in changed] == [node.name for node in nodes]
    assert policy_of(applied(nodes, Policy({"project": 2}))).bits["stem"] == 8
    graph = post_training.quantize(changed, [torch.randn(2, 3, 8, 8)], (8, 8, 3))
    project = next(op for op in graph.operators if op.name == "project")
    assert isinstance(project, QConv) and project.bits == 4 and np.ptp(project.weight.reshape(4, -1), 1).max() <= 15


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy({"projekt": 4}), "no layer 'projekt' with weights in this network; did you mean 'project'"),
        (Policy({"add": 4}), "no layer 'add' with weights"),
        (Policy({"project": 16}), "'project': weights take 2 to 8 bits .*, not 16"),
        (Policy({"project": 1}), "'project': weights take 2 to 8 bits .*, not 1"),
        (Policy({"project": 4}, {"project": 3}), "'project': activations take 4 to 8 bits, not 3"),
    ],
)
def test_bits_that_the_quantizer_cannot_give_are_refused(policy: Policy, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        applied(small_nodes(), policy)


def test_names_and_bits_are_checked_when_a_policy_is_made() -> None:
    for bits in (True, 4.0, "4", 0, 33):
        with pytest.raises(ConfigError, match="'stem': bits are integers"):
            Policy({"stem": bits})
    for name in ("", "a b", "a\n"):
        with pytest.raises(ConfigError, match="a layer's name is one word"):
            Policy({name: 4})
    with pytest.raises(ConfigError, match="no layer 'b'"):
        Policy({"a": 4}, {"b": 8})


def test_the_digest_is_of_the_structure_and_not_of_the_weights() -> None:
    nodes = small_nodes()
    assert network_digest(nodes) == network_digest(small_nodes(seed=1))
    assert network_digest(applied(nodes, Policy({"stem": 4}))) == network_digest(nodes)
    assert network_digest(nodes[:-1]) != network_digest(nodes)
    stem = nodes[0]
    assert isinstance(stem, Weighted)
    assert network_digest([replace(stem, weight=stem.weight[:, :2]), *nodes[1:]]) != network_digest(nodes)


def tables() -> tuple[tuple[Layer, ...], dict[str, dict[int, float]]]:
    layers = layers_of(small_nodes(), (8, 8, 3))
    return layers, {layer.name: {4: 2.0, 8: 0.5} for layer in layers}


def test_options_hold_every_cost_of_every_choice() -> None:
    layers, perturbation = tables()
    latencies = {"stem": 5.0, "depthwise": {4: 1.0, 8: 2.0}, "project": 3.0, "logits": 1.0}
    options = options_of(
        layers,
        [(8, 8), (4, 8), (4, 4)],
        perturbation,
        activation_perturbation={layer.name: {4: 0.25, 8: 0.0} for layer in layers},
        latency_us=latencies,
        groups=(("stem", "project"),),
    )
    assert list(options.costs) == ["perturbation", "size_bits", "bops", "latency_us"]
    assert options.choices == (((4, 4), (4, 8), (8, 8)),) * 4
    np.testing.assert_array_equal(options.costs["perturbation"][2], [2.25, 2.0, 0.5])
    np.testing.assert_array_equal(options.costs["size_bits"][3], [12 * 4 + 24 + 96, 12 * 4 + 24 + 96, 12 * 8 + 96])
    np.testing.assert_array_equal(options.costs["bops"][1], [576 * 16, 576 * 32, 576 * 64])
    np.testing.assert_array_equal(options.costs["latency_us"][1], [1.0, 1.0, 2.0])
    np.testing.assert_array_equal(options.costs["latency_us"][0], [5.0] * 3)
    policy = options.policy((2, 1, 0, 2))
    assert str(policy) == "stem=8 depthwise=4 project=w4a4 logits=8" and options.rows(policy) == (2, 1, 0, 2)
    assert options.total("latency_us", (2, 1, 0, 2)) == 5 + 1 + 3 + 1


def test_incomplete_options_are_refused() -> None:
    layers, perturbation = tables()
    choices = [(4, 8), (8, 8)]
    with pytest.raises(ConfigError, match="perturbation: no entry for layer 'stem' at 6 bits"):
        options_of(layers, [(6, 8)], perturbation)
    with pytest.raises(ConfigError, match="latency: no entry for layer 'depthwise'"):
        options_of(layers, choices, perturbation, latency_us={"stem": 1.0})
    with pytest.raises(ConfigError, match="activation bits other than 8 need a table"):
        options_of(layers, [(4, 4)], perturbation)
    with pytest.raises(ConfigError, match="perturbation of layer 'project': give a finite number"):
        options_of(layers, choices, perturbation | {"project": {4: float("nan"), 8: 0.0}})
    with pytest.raises(ConfigError, match="ties: no layer 'x'"):
        options_of(layers, choices, perturbation, groups=(("x", "stem"),))
    options: Options = options_of(layers, choices, perturbation)
    with pytest.raises(ConfigError, match="'stem' takes none of the bits"):
        options.rows(Policy({"stem": 6}))
