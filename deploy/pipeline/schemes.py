"""The stage that makes the tables of the other quantization schemes that an experiment names.

Each has its own NSRs, files, measurements and constant. uint8's integers are those of int8 per-tensor, but on a CPU its
depthwise convolutions round otherwise, and so do all layers behind them: its NSRs follow the target's arithmetic
(nas/quant/simulations.py). A third of [agreement] models, full ones of the scheme, give the latency outside the blocks
as one constant: stem, head, graph inputs and outputs are where schemes differ most, so the main scheme's correction is
not taken over, and so few models fit no slopes.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from contextlib import suppress

import numpy as np

from deploy.latency.agreement import FEWEST, stratified, tau_b
from deploy.latency.table import summaries
from deploy.pipeline.agree import measure_samples
from deploy.pipeline.profiling import profile_scheme
from deploy.pipeline.tables import populate_scheme
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import ProfileRecord, SchemeResult, SchemesRecord
from deploy.run.schemes import SchemeRun, other_scheme_runs
from hil.errors import CheckFailed
from nas.table import Table


def schemes(context: Context) -> Iterator[Progress]:
    """Tables of every other scheme: tables/SCHEME/*.parquet, subnets-SCHEME/, and schemes.json."""
    results = {}
    for of in other_scheme_runs(context):
        yield from populate_scheme(context, of)
        profiled = yield from profile_scheme(context, of)
        results[str(of.scheme)] = yield from _agree(context, of, profiled)
    SchemesRecord(results, context.arithmetic).write(context.path / SchemesRecord.FILE)


def _agree(context: Context, of: SchemeRun, profiled: ProfileRecord) -> Generator[Progress, None, SchemeResult]:
    """The constant, and how well it and the table's sums predict full models that the table never saw."""
    table = Table.load(of.tables / "latency.parquet")
    rng = random.Random(f"{context.experiment.seed}/{of.scheme}")
    count = max(FEWEST, context.experiment.agreement.models // 3)
    architectures = stratified(context.space, table, count, rng)
    samples, measurements = yield from measure_samples(context, of, architectures)
    medians = summaries(measurements)
    sums = np.array([table.total(architecture) for architecture in architectures])
    measured = np.array([medians[artifact.name].median_us for artifact in samples])
    gap = measured - sums
    others = np.array([np.median(np.delete(gap, i)) for i in range(len(gap))])
    tau = None
    with suppress(CheckFailed):  # too few, or all alike: nothing to rank
        tau = tau_b(sums, measured)
    return SchemeResult(
        compiled=profiled.compiled,
        measured=profiled.measured,
        exact_parity=profiled.exact_parity,
        models=len(architectures),
        constant_us=float(np.median(gap)),
        error_held_out=float(100 * np.mean(np.abs(sums + others - measured) / measured)),
        tau_b=tau,
    )
