"""The NSR of a block whose layers have bits of their own: what LCPAQ dealt out anew inside a found model's blocks.

It is the NSR table's number, by the table's own descent (`nas.nsr`): with one width in every layer it is the entry bit
for bit. So QA-BWNAS's search can set a refined model beside those of its tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas.networks.blocks import SuperBlock
from nas.errors import ConfigError
from nas.lcpaq.policy import INT8, Policy, applied
from nas.nsr import BlockData, Judged, judge
from nas.quant.float_graph import Node, Weighted
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Subnet


def judge_refined(
    supernet: SuperBlock, data: BlockData, subnet: Subnet, policy: Policy, scheme: Scheme = DEFAULT
) -> Judged:
    """`subnet` at the policy's bits, judged as `nas.nsr.judge` does; its size is that of the graph.

    `policy` is of a whole network, whose layers are named `b2/0/expand`. Raises `ConfigError` for a layer of the block
    that it does not name, and for activations that are not of 8 bits, as they are in the tables.
    """
    check_activations(policy)

    def own(nodes: Sequence[Node], _: int) -> list[Node]:
        names = [node.name for node in nodes if isinstance(node, Weighted)]
        for name in names:
            if name not in policy.bits:
                raise ConfigError(f"policy: it does not name layer '{name}' of {subnet}; it is of another network")
        return applied(nodes, Policy({name: policy.bits[name] for name in names}))

    (judged,) = judge(supernet, data, [subnet], scheme, at=own)
    return judged


def check_activations(policy: Policy) -> None:
    """`ConfigError` unless every layer reads 8 bits."""
    for name, bits in policy.activations.items():
        if bits != INT8:
            raise ConfigError(f"policy: layer '{name}' reads {bits} bits; the tables' NSRs are of 8")
