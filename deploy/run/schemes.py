"""One quantization scheme's part of a run: where its files are, and under which keys they were made.

The stages populate, profile and agree take it as an argument, so one implementation serves the experiment's main scheme
and the others that `[quantization] schemes` names.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.compile import subtrees
from deploy.compile.artifact import Artifact
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.measuring import measure_with_progress
from hil.job import MeasureProtocol
from hil.measurement import Measurement
from nas.quant.arithmetic import Arithmetic
from nas.quant.scheme import Scheme
from nas.space import Subnet

STAGE = "schemes"


def key_of(stage_key: str, scheme: QuantizationScheme, arithmetic: Arithmetic) -> str:
    """What another scheme's files and tables were made with, from the key of the main scheme's stage."""
    return digest(stage_key, "scheme", *scheme.key(arithmetic))


def tables_folder(run: Path, scheme: QuantizationScheme) -> Path:
    """The tables of another scheme than the main one."""
    return run / "tables" / scheme.slug


@dataclass(frozen=True)
class SchemeRun:
    """A scheme's part of a run.

    Attributes:
        options: how its networks are quantized.
        run: the run's folder; `keys`: of the stages tables, profile and agree for this scheme.
        main: it is the experiment's. The others are made in one stage, and their files and models bear the scheme.
        arithmetic: that the expected outputs and NSRs follow.
    """

    scheme: QuantizationScheme
    options: Scheme
    run: Path
    keys: Mapping[str, str]
    main: bool
    arithmetic: Arithmetic

    @property
    def tables(self) -> Path:
        return self.run / "tables" if self.main else tables_folder(self.run, self.scheme)

    @property
    def subnets(self) -> Path:
        """Absolute, for workers."""
        return (self.run / ("subnets" if self.main else f"subnets-{self.scheme.slug}")).resolve()

    @property
    def models(self) -> Path:
        return self.run / ("models" if self.main else f"models-{self.scheme.slug}")

    @property
    def prefix(self) -> str:
        """Of the names by which the store knows this scheme's models."""
        return "" if self.main else f"{self.scheme.slug}/"

    @property
    def provenance(self) -> dict[str, str]:
        """What a table of it says beyond one of the main scheme."""
        return {} if self.main else {"scheme": str(self.scheme), "arithmetic": self.arithmetic}

    def stage(self, name: str) -> str:
        """The stage whose progress is shown where the main scheme's is `name`."""
        return name if self.main else STAGE

    def artifacts(self, subnets: Iterable[Subnet]) -> list[Artifact]:
        """The files of subnets, each with its golden pair."""
        return [subtrees.artifact(self.subnets, subnet) for subnet in subnets]

    def measure(
        self,
        context: Context,
        artifacts: Sequence[Artifact],
        protocol: MeasureProtocol,
        stage: str,
        text: str = "measured",
        *,
        done: int = 0,
        check: Callable[[Measurement], None] | None = None,
    ) -> Generator[Progress, None, list[Measurement]]:
        """All measurements of the files, under the files' names; otherwise `measure_with_progress`."""
        jobs = [replace(artifact.job(), name=self.prefix + artifact.name) for artifact in artifacts]
        found = yield from measure_with_progress(
            context, jobs, protocol, self.stage(stage), text, done=done, check=check
        )
        return [replace(m, model=m.model.removeprefix(self.prefix)) for m in found] if self.prefix else found


def main_scheme_run(context: Context) -> SchemeRun:
    """The scheme of the experiment's granularity."""
    settings = context.experiment.quantization
    return SchemeRun(
        settings.main_scheme, settings.scheme, context.path, context.keys, main=True, arithmetic=context.arithmetic
    )


def other_scheme_runs(context: Context) -> list[SchemeRun]:
    """Those that the experiment names beside it."""
    settings, stages = context.experiment.quantization, ("tables", "profile", "agree")
    return [
        SchemeRun(
            scheme,
            scheme.scheme(settings.scheme),
            context.path,
            {stage: key_of(context.keys[stage], scheme, context.arithmetic) for stage in stages},
            main=False,
            arithmetic=context.arithmetic,
        )
        for scheme in settings.other_schemes
    ]
