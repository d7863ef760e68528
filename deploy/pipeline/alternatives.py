"""The stage that makes the tables of the other schemes that an experiment names.

Each has its own NSRs, files, measurements and constant. uint8's integers are those of int8 a tensor, but its depthwise
convolutions round otherwise (nas/quant/uint8.py), and so do all layers behind them: its NSRs are walked apart. A third
of [agreement] models, whole ones of the scheme, give what lies around the blocks as one constant: stem, head and edges
are where schemes differ most, so the main scheme's correction is not taken over, and so few models fit no slopes.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.scheme import Alternative
from deploy.compile.subtrees import Population
from deploy.latency.agreement import FEWEST, stratified, tau_b
from deploy.latency.estimates import of_summary
from deploy.latency.key import BELONGS, TableKey
from deploy.latency.predictor import predict
from deploy.latency.table import CPU_OPERATORS, cpu_operators_table, latency_table, measured_as, summaries
from deploy.pipeline.profiling import PARITY, posterior
from deploy.pipeline.tables import fill
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from deploy.run.networks import assembled
from deploy.run.quantizing import quantize_network
from deploy.run.records import SchemeResult, SchemesRecord
from deploy.search.cost_tables import key_of, tables_folder
from hil.errors import CheckFailed
from hil.measure import MeasureProtocol
from hil.measurement import Measurement
from nas.networks.blocks import recalibrate
from nas.space import Architecture, Subnet
from nas.table import Table

STAGE = "alternatives"
FORM: Final = "isolated"  # with the graph's ends in each entry, which the constant takes out again


def alternatives(context: Context) -> Iterator[Progress]:
    """Tables of every alternative: tables/SCHEME/*.parquet, subnets-SCHEME/, and schemes.json."""
    records = {}
    for alternative in context.experiment.quantization.others:
        made = _Making(context, alternative)
        yield from made.populate()
        profiled = yield from made.profile()
        agreed = yield from made.agree()
        records[str(alternative)] = SchemeResult(**profiled, **agreed)
    SchemesRecord(records).write(context.path / SchemesRecord.FILE)


class _Making:
    """One alternative in the making; its parts say how far they are and return what they found."""

    def __init__(self, context: Context, alternative: Alternative) -> None:
        self.context, self.alternative = context, alternative
        self.tables = tables_folder(context.path, alternative)
        self.subnets = (context.path / f"subnets-{alternative.slug}").resolve()
        self.scheme = alternative.scheme(context.experiment.quantization.scheme)

    def populate(self) -> Iterator[Progress]:
        key = key_of(self.context.keys["tables"], self.alternative)
        task = Population(self.context.space, self.scheme, self.subnets, key, form=self.alternative.form)
        yield from fill(self.context, task, self.tables, STAGE, {"scheme": str(self.alternative)})

    def profile(self) -> Generator[Progress, None, dict[str, Any]]:
        """Parity of every subnet, and the latency of each that no wider one runs as; a table of blocks alone."""
        space, size = self.context.space, self.context.experiment.data.size
        subnets = list(space.all_subnets())
        timed = [subnet for subnet in subnets if measured_as(space, subnet) == subnet]
        checked = yield from self._measured(self._artifacts(sorted(set(subnets) - set(timed))), PARITY)
        alone = yield from self._measured(self._artifacts(timed), protocol(self.context.experiment.profile))
        measurements, conditions = [*checked, *alone], alone[0].conditions
        times = summaries(measurements)  # a wrong answer is an error at any width
        scheme = str(self.alternative)
        provenance = {
            "key": key_of(self.context.keys["profile"], self.alternative),
            BELONGS: TableKey.under(conditions, space.digest, size, scheme, FORM).to_json(),
            "conditions": conditions.to_json(),
            "size": list(size),
            "scheme": scheme,
        }
        entries = {subnet: of_summary(times[str(subnet)]) for subnet in timed}
        known = predict(posterior(space, size, entries), entries)
        latency_table(space, known, provenance).save(self.tables / "latency.parquet")
        left = self.tables / f"{CPU_OPERATORS}.parquet"
        left.unlink(missing_ok=True)
        if conditions.delegate != "none":
            cpu_operators_table(space, measurements, provenance).save(left)
        exact = {m.model for m in measurements if m.parity is not None and m.parity.mismatched == 0}
        return {"measured": len(timed), "compiled": len(subnets), "exact_parity": len(exact)}

    def agree(self) -> Generator[Progress, None, dict[str, Any]]:
        """The constant, and how well it and the table's sums tell whole models that the table never saw."""
        settings = self.context.experiment.agreement
        table = Table.load(self.tables / "latency.parquet")
        rng = random.Random(f"{self.context.experiment.seed}/{self.alternative}")
        architectures = stratified(self.context.space, table, max(FEWEST, settings.models // 3), rng)
        artifacts = []
        for i, architecture in enumerate(architectures):
            artifacts.append(self._compiled(architecture, f"sample{i:03d}"))
            yield Progress(STAGE, i + 1, len(architectures), f"{self.alternative}: compiled {i + 1}")
        medians = summaries((yield from self._measured(artifacts, protocol(settings.measuring))))
        sums = np.array([table.total(architecture) for architecture in architectures])
        measured = np.array([medians[artifact.name].median_us for artifact in artifacts])
        gap = measured - sums
        others = np.array([np.median(np.delete(gap, i)) for i in range(len(gap))])
        tau = None
        with suppress(CheckFailed):  # too few, or all alike: nothing to rank
            tau = tau_b(sums, measured)
        return {
            "models": len(architectures),
            "constant_us": float(np.median(gap)),
            "error_held_out": float(100 * np.mean(np.abs(sums + others - measured) / measured)),
            "tau_b": tau,
        }

    def _compiled(self, architecture: Architecture, name: str) -> Artifact:
        context = self.context
        model = assembled(context, architecture)
        recalibrate(model, context.calibration)
        graph = quantize_network(context, model, architecture, scheme=self.scheme)
        metadata = model_metadata(graph, str(architecture), key_of(context.keys["agree"], self.alternative))
        artifact = Artifact.at(context.path / f"models-{self.alternative.slug}", name)
        form = self.alternative.form
        return save_model(graph, context.evaluation[:1], artifact, metadata, context.target, form=form)

    def _artifacts(self, subnets: Iterable[Subnet]) -> list[Artifact]:
        return [subtrees.artifact(self.subnets, subnet) for subnet in subnets]

    def _measured(
        self, artifacts: Sequence[Artifact], settings: MeasureProtocol
    ) -> Generator[Progress, None, list[Measurement]]:
        """The measurements of the files, which the store knows as SCHEME/NAME."""
        prefix = f"{self.alternative.slug}/"
        jobs = [replace(artifact.job(), name=prefix + artifact.name) for artifact in artifacts]
        found = yield from measure_with_progress(self.context, jobs, settings, STAGE)
        return [replace(done, model=done.model.removeprefix(prefix)) for done in found]
