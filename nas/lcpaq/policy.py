"""LCPAQ's decision: the bits of each layer of a folded network, as a record, a text and a file.

Source: LCPAQ (arXiv 2402.17706) and HAWQ-V3 (arXiv 2011.10680), which it builds on. Layers whose outputs are added in a
residual connection share their bits, as HAWQ-V3 ties its down-sampling layers to the main branch.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas.atomic import write_atomically
from nas.errors import ConfigError, QuantizationError
from nas.quant.float_graph import (
    Add,
    Conv,
    FullyConnected,
    Node,
    Rearranging,
    TransposedConv,
    Weighted,
    inputs_of,
)
from nas.quant.lowered_operators import is_depthwise
from nas.quant.ranges import shared, widths_of
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.shapes import Shape, shapes_of

FORMAT = "hilnas-policy/1"
INT8 = 8
FEWEST = 2
WEIGHT_BITS = range(FEWEST, INT8 + 1)
"""Of weights, as `nas.quant.weights` quantizes them; stored in int8."""
ACTIVATION_BITS = range(4, INT8 + 1)
"""Of the tensors that layers read: asymmetric, and stored in int8."""
WORD = re.compile(r"(?P<name>\S+)=(?:(?P<bits>\d{1,2})|w(?P<weights>\d{1,2})a(?P<activations>\d{1,2}))")

Kind = Literal["pointwise", "depthwise", "conv", "linear"]
Choice = tuple[int, int]  # weight bits, activation bits
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One layer with weights: its numbers of weights and biases, and its multiply-accumulates for one image.

    `offset_bits` is what its offsets take where its weights have fewer than 8 bits (`Scheme.offset_bits`).
    """

    name: str
    kind: Kind
    weights: int
    biases: int
    macs: int
    offset_bits: int = 0

    def size_bits(self, weight_bits: int) -> int:
        """Weights packed at their width, offsets at 8 bits, biases at 32 (as `IntegerGraph.size_bits`)."""
        return self.weights * weight_bits + (self.offset_bits if weight_bits < INT8 else 0) + self.biases * 32

    def bops(self, weight_bits: int, activation_bits: int) -> int:
        """Bit operations for one image (as HAWQ-V3 counts them)."""
        return self.macs * weight_bits * activation_bits


@dataclass(frozen=True)
class Policy:
    """Bits by layer: of its weights, in the graph's order, and of its input (8 where none are given).

    The text is `stem=8 b1/0/expand=4 b1/0/project=w4a6`; `Policy.parse(str(policy)) == policy`.
    """

    bits: Mapping[str, int]
    activations: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bits in (*self.bits.items(), *self.activations.items()):
            if not isinstance(name, str) or not name or re.search(r"\s", name):
                raise ConfigError(f"policy: a layer's name is one word, not {name!r}")
            if type(bits) is not int or not 1 <= bits <= 32:
                raise ConfigError(f"policy: layer '{name}': bits are integers from 1 to 32, not {bits!r}")
        _check_known(self.activations, self.bits, "policy")
        # One form for one policy, with or without the default of 8.
        object.__setattr__(self, "activations", {name: self.activations.get(name, INT8) for name in self.bits})

    def __str__(self) -> str:
        return " ".join(f"{name}={self._word(name)}" for name in self.bits)

    def _word(self, name: str) -> str:
        activations = self.activations[name]
        return str(self.bits[name]) if activations == INT8 else f"w{self.bits[name]}a{activations}"

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy that `text` names; `ConfigError` naming the word that is not `layer=bits`."""
        bits: dict[str, int] = {}
        activations: dict[str, int] = {}
        for word in text.split():
            match = WORD.fullmatch(word)
            if match is None:
                raise ConfigError(f"policy: '{word}' is not LAYER=BITS, as b1/0/expand=4 or b1/0/expand=w4a6")
            if match["name"] in bits:
                raise ConfigError(f"policy: layer '{match['name']}' is named twice")
            bits[match["name"]] = int(match["bits"] or match["weights"])
            activations[match["name"]] = int(match["activations"] or INT8)
        if not bits:
            raise ConfigError("policy: it names no layer; write stem=8 b1/0/expand=4 ...")
        return cls(bits, activations)

    def choice(self, name: str) -> Choice:
        return self.bits[name], self.activations[name]


def layers_of(nodes: Iterable[Node], input_shape: Shape, scheme: Scheme = DEFAULT) -> tuple[Layer, ...]:
    """The layers with weights, in order, of a network that reads (H, W, C), as `scheme` quantizes them."""
    nodes = list(nodes)
    shapes = shapes_of(nodes, input_shape)
    layers = []
    for node in nodes:
        if isinstance(node, Weighted):
            weights, outputs = node.weight.numel(), node.bias.numel()
            met = node.x if isinstance(node, TransposedConv) else node.name  # whose positions each weight meets
            macs = math.prod(shapes[met][:-1]) * weights
            kind = _kind(node, shapes[node.x][-1])
            layers.append(Layer(node.name, kind, weights, outputs, macs, scheme.offset_bits(outputs, FEWEST)))
    return tuple(layers)


def _kind(node: Weighted, channels: int) -> Kind:
    if isinstance(node, FullyConnected):
        return "linear"
    if isinstance(node, Conv) and is_depthwise(node.weight, channels):
        return "depthwise"
    return "pointwise" if node.weight.shape[2:] == (1, 1) else "conv"


def ties(nodes: Iterable[Node], *, activations: bool = False) -> tuple[tuple[str, ...], ...]:
    """Layers that must share bits: those whose outputs are added, directly or through other additions.

    With `activations`, where these have widths to choose, also those that read the same tensor, which has one width.
    A single layer is in no group. Padding, pooling and the like pass a layer's output on.
    """
    nodes = list(nodes)
    order: list[str] = []
    made_by: dict[str, frozenset[str]] = {}  # for each tensor, the layers that it is a sum of
    group_of: dict[str, frozenset[str]] = {}
    for node in nodes:
        if isinstance(node, Weighted):
            order.append(node.name)
            made_by[node.name] = frozenset([node.name])
            continue
        through = isinstance(node, Add | Rearranging)
        makers = frozenset().union(*(made_by.get(x, frozenset()) for x in inputs_of(node))) if through else frozenset()
        made_by[node.name] = makers
        if isinstance(node, Add):
            _merge(group_of, makers)
    for read in shared(nodes) if activations else ():
        _merge(group_of, frozenset(read.readers))
    groups = dict.fromkeys(group_of[name] for name in order if len(group_of.get(name, ())) > 1)
    return tuple(tuple(name for name in order if name in group) for group in groups)


def _merge(group_of: dict[str, frozenset[str]], names: frozenset[str]) -> None:
    group = names.union(*(group_of.get(name, frozenset()) for name in names))
    group_of.update(dict.fromkeys(group, group))


def policy_of(nodes: Iterable[Node]) -> Policy:
    """The policy of the nodes' present bits."""
    layers = [node for node in nodes if isinstance(node, Weighted)]
    return Policy({layer.name: layer.bits for layer in layers}, {layer.name: layer.input_bits for layer in layers})


def applied(nodes: Sequence[Node], policy: Policy) -> list[Node]:
    """`nodes` with the policy's bits; layers that it does not name keep theirs.

    Raises `ConfigError` naming a layer that does not exist, bits that the quantizer does not support, or layers that
    read the same tensor at different bits.
    """
    _check_known(policy.bits, [node.name for node in nodes if isinstance(node, Weighted)], "policy")
    for name, bits in policy.bits.items():
        if bits not in WEIGHT_BITS:
            raise ConfigError(f"policy: layer '{name}': weights take 2 to 8 bits (they are stored in int8), not {bits}")
        if policy.activations[name] not in ACTIVATION_BITS:
            raise ConfigError(f"policy: layer '{name}': activations take 4 to 8 bits, not {policy.activations[name]}")
    changed: list[Node] = [
        replace(node, bits=policy.bits[node.name], input_bits=policy.activations[node.name])
        if isinstance(node, Weighted) and node.name in policy.bits
        else node
        for node in nodes
    ]
    try:
        widths_of(changed)
    except QuantizationError as error:
        raise ConfigError(f"policy: {error}") from None
    return changed


def network_digest(nodes: Iterable[Node]) -> str:
    """Identifies a policy's network: operators, their order and shapes, not the weights, which fine-tuning changes."""
    record = [
        (type(node).__name__, node.name, inputs_of(node), list(node.weight.shape) if isinstance(node, Weighted) else [])
        for node in nodes
    ]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]


def save_policy(policy: Policy, path: Path, network: str) -> None:
    """Write JSON, atomically; `network` is `network_digest`'s."""
    layers = {
        name: {"weight_bits": policy.bits[name], "activation_bits": policy.activations[name]} for name in policy.bits
    }
    record = {"format": FORMAT, "network": network, "layers": layers}
    write_atomically(path, json.dumps(record, indent=1) + "\n")


def load_policy(path: Path, network: str) -> Policy:
    """The policy in a file; `ConfigError` if it is missing, damaged, or of another network than `network`."""
    try:
        record = json.loads(path.read_text("utf8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise ConfigError(f"{path}: no policy can be read ({reason}); run hilnas lcpaq solve") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a policy of format {FORMAT}; run hilnas lcpaq solve")
    if record.get("network") != network:
        raise ConfigError(f"{path}: the policy of another network ({record.get('network')}, not {network})")
    try:
        return _policy(record["layers"])
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        reason = str(error) if isinstance(error, ConfigError) else "its layers are incomplete"
        raise ConfigError(f"{path}: {reason}; run hilnas lcpaq solve") from None


def _policy(layers: Mapping[str, Mapping[str, Any]]) -> Policy:
    if not layers or any(set(layer) != {"weight_bits", "activation_bits"} for layer in layers.values()):
        raise TypeError
    weights, activations = (
        {name: layer[f"{what}_bits"] for name, layer in layers.items()} for what in ("weight", "activation")
    )
    return Policy(weights, activations)


def _check_known(names: Iterable[str], known: Collection[str], where: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"{where}: no layer '{name}' with weights in this network{hint}")


@dataclass(frozen=True, eq=False)
class Options:
    """The choices of a solver and their costs; all costs are additive over layers.

    Attributes:
        layers: in the network's order.
        choices: for each layer its (weight bits, activation bits), ascending.
        costs: by objective, for each layer an array over its choices: "perturbation" first (what is minimised),
            "size_bits", "bops" and, where it was measured, "latency_us".
        groups: names of layers that must take the same choice.
    """

    layers: tuple[Layer, ...]
    choices: tuple[tuple[Choice, ...], ...]
    costs: Mapping[str, tuple[Vector, ...]]
    groups: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        for objective, by_layer in self.costs.items():
            for name, of_layer, row in zip(names, self.choices, by_layer, strict=True):
                if row.shape != (len(of_layer),) or not np.isfinite(row).all():
                    raise ConfigError(f"{objective} of layer '{name}': give a finite number for each of {of_layer}")
        for group in self.groups:
            _check_known(group, names, "ties")

    def policy(self, rows: Sequence[int]) -> Policy:
        """The policy that takes choice number rows[i] of layer i."""
        taken = {layer.name: self.choices[i][row] for i, (layer, row) in enumerate(zip(self.layers, rows, strict=True))}
        return Policy({n: w for n, (w, _) in taken.items()}, {n: a for n, (_, a) in taken.items()})

    def rows(self, policy: Policy) -> tuple[int, ...]:
        """The inverse of `policy`; `ConfigError` naming a layer whose bits are no choice here."""
        rows = []
        for layer, choices in zip(self.layers, self.choices, strict=True):
            if layer.name not in policy.bits or policy.choice(layer.name) not in choices:
                raise ConfigError(f"policy: layer '{layer.name}' takes none of the bits {choices}")
            rows.append(choices.index(policy.choice(layer.name)))
        return tuple(rows)

    def total(self, objective: str, rows: Sequence[int]) -> float:
        """What these choices cost together."""
        return float(sum(cost[row] for cost, row in zip(self.costs[objective], rows, strict=True)))
