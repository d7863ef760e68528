"""The NSR of a block with bit widths per layer, as LCPAQ reassigns them inside a selected model's blocks.

It is computed by the same traversal as the NSR table (`nas.nsr`): with one width in every layer it is the table's entry
bit for bit. So QA-BWNAS's search can compare a refined model with those of its tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas.errors import ConfigError
from nas.lcpaq.policy import INT8, Policy, applied
from nas.networks.blocks import SuperBlock
from nas.nsr import BlockData, EvaluatedSubnet, evaluate
from nas.quant.float_graph import Node, Weighted
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Subnet


def evaluate_refined(
    supernet: SuperBlock, data: BlockData, subnet: Subnet, policy: Policy, scheme: Scheme = DEFAULT
) -> EvaluatedSubnet:
    """`subnet` at the policy's bits, evaluated as by `nas.nsr.evaluate`; its size is that of the graph.

    `policy` is of a full network, whose layers are named `b2/0/expand`. Raises `ConfigError` for a layer of the block
    that it does not name, and for activations that do not have 8 bits, as in the tables.
    """
    check_activations(policy)

    def at_policy(nodes: Sequence[Node], _: int) -> list[Node]:
        names = [node.name for node in nodes if isinstance(node, Weighted)]
        for name in names:
            if name not in policy.bits:
                raise ConfigError(f"policy: it does not name layer '{name}' of {subnet}; it is of another network")
        return applied(nodes, Policy({name: policy.bits[name] for name in names}))

    (evaluated,) = evaluate(supernet, data, [subnet], scheme, at=at_policy)
    return evaluated


def check_activations(policy: Policy) -> None:
    """`ConfigError` unless every layer reads 8 bits."""
    for name, bits in policy.activations.items():
        if bits != INT8:
            raise ConfigError(f"policy: layer '{name}' reads {bits} bits; the tables' NSRs are of 8")
