"""The additive estimates that a search can minimise, all from the tables stage's NSRs, and how far these decide.

`nsr` is the plain sum over blocks. `weighted` counts each channel by what its noise does to the task's loss
(`nas.tasks.sensitivity`), `channels` does so inside a block only, and `blocks` weighs whole blocks. All are sums over
blocks, so the exact front and the k best hold for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deploy.run.settings.search import EstimateName
from nas.errors import TableError
from nas.estimate import Estimate
from nas.space import SearchSpace, Subnet
from nas.table import Table

WEIGHTED_NSR = "weighted-nsr"
"""Name of the table of NSRs with weights for blocks and channels."""
BLOCK_WEIGHTS = "block_weights"
"""In that table's provenance: what each block counts, 1 in the mean over blocks."""
SPLIT_HALF = "split_half_tau_b"
"""In the NSR table's provenance: by block, tau-b between the NSRs of two halves of the evaluation images."""
RELIABLE = 0.8
FEWEST = 10  # subnets of a block whose tau-b is held to `RELIABLE`: of fewer, one swapped pair is a lot


def estimate_table(tables: Mapping[str, Table], name: EstimateName) -> Table:
    """The table of an estimate, as quantity `estimate`, from `nsr` and, but for that itself, `weighted-nsr`.

    Raises `TableError` without the latter.
    """
    plain = tables["nsr"]
    if name == "nsr":
        return replace(plain, quantity="estimate")
    if WEIGHTED_NSR not in tables:
        raise TableError(f"search.estimate '{name}': no table of the {WEIGHTED_NSR}; populate it with `hilnas lut nsr`")
    weighted = tables[WEIGHTED_NSR]
    weights: Sequence[float] = weighted.provenance[BLOCK_WEIGHTS]

    def value(subnet: Subnet) -> float:
        block = weights[subnet.block - 1]
        if name == "blocks":
            return plain[subnet] * block
        return weighted[subnet] / (block if name == "channels" and block else 1.0)

    entries = {subnet: Estimate.exact(value(subnet)) for subnet in plain.entries}
    return replace(plain, quantity="estimate", entries=entries)


def split_half_tau_b(halves: Sequence[tuple[float, float]]) -> float:
    """Tau-b between two NSRs of each of a block's subnets; 0 where they rank nothing (one image, all alike)."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(*np.array(halves).T, variant="b").statistic)
    return tau if np.isfinite(tau) else 0.0


def split_half_text(nsr: Table) -> str:
    """What an NSR table says of its own reliability, in words; of an earlier version's, or another table, nothing."""
    by_block = " ".join(f"b{i} {tau:.2f}" for i, tau in enumerate(nsr.provenance.get(SPLIT_HALF, ()), start=1))
    return f"NSRs of two halves of the images: tau-b {by_block}" if by_block else ""


def unreliable(nsr: Table, space: SearchSpace, images: int) -> str:
    """The advice where two halves of the evaluation images rank a block's subnets differently; empty if they agree."""
    counts = [len(list(space.subnets(block))) for block in range(1, len(space.blocks) + 1)]
    low = {
        block: tau
        for block, (tau, count) in enumerate(zip(nsr.provenance[SPLIT_HALF], counts, strict=True), start=1)
        if tau < RELIABLE and count >= FEWEST
    }
    if not low:
        return ""
    blocks = ", ".join(f"block {block}'s with tau-b {tau:.2f}" for block, tau in low.items())
    return (
        f"two halves of the {images} evaluation images rank subnets differently ({blocks}, below {RELIABLE}): "
        "raise quantization.evaluation_images"
    )
