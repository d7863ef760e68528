"""The loop, stage by stage: what runs after what, and what is already done.

teacher -> distil -> tables (NSR, size, every subnet compiled) -> tail (where full networks end, where that is to be
measured) -> profile (every subnet measured) -> agree (full models measured, table corrected) -> schemes (the tables of
other ones, where some are named) -> search -> retrain -> ship (measured, bundled, verified).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from deploy.pipeline.agree import agree
from deploy.pipeline.distillation import distil
from deploy.pipeline.gating import settle
from deploy.pipeline.profiling import profile
from deploy.pipeline.schemes import schemes
from deploy.pipeline.search import search
from deploy.pipeline.ship import ship
from deploy.pipeline.tables import populate
from deploy.pipeline.tail import tail
from deploy.pipeline.training import retrain, train_teacher
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import SearchRecord
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from deploy.search.cost_tables import CONFIRMED
from hil.errors import UsageError

STAGES: Mapping[str, Callable[[Context], Iterator[Progress]]] = {
    "teacher": train_teacher,
    "distil": distil,
    "tables": populate,
    "tail": tail,
    "profile": profile,
    "agree": agree,
    "schemes": schemes,
    "search": search,
    "retrain": retrain,
    "ship": ship,
}

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "teacher": ("teacher.pt",),
    "distil": ("supernets.pt",),
    "tables": ("tables/nsr.parquet", "tables/weighted-nsr.parquet", "tables/size.parquet"),
    "tail": ("tail.json",),
    "profile": ("tables/latency.parquet", "profile.json"),
    "agree": ("tables/latency-corrected.parquet", "agreement.json"),
    "schemes": (
        "schemes.json",
        *(f"tables/{{scheme}}/{name}.parquet" for name in ("nsr", "size", "latency")),
    ),
    "search": ("search.json",),
    "retrain": ("students/{selected}.pt", f"students/{TEACHER_PLUS}.pt"),
    "ship": (
        *("final.json", "bundle/manifest.json", "bundle/model.tflite"),
        *(
            f"models/{name}.{kind}"
            for name in (TEACHER, TEACHER_PLUS, "{selected}")
            for kind in ("tflite", "input.bin", "expected.bin")
        ),
    ),
}
"""What a stage leaves in the run's folder; `{selected}`: each budget's name, `{scheme}`: each other scheme's."""


def stages_of(context: Context) -> list[str]:
    """The stages that the configuration has, in their order."""
    return [name for name in STAGES if name in context.keys]


def stages_until(context: Context, until: str) -> list[str]:
    """Those up to `until`; `UsageError` if it is none of them."""
    names = stages_of(context)
    if until not in names:
        raise UsageError(f"--until {until}: the configuration has no such stage; it has {', '.join(names)}")
    return names[: names.index(until) + 1]


def missing_files(context: Context, stage: str) -> list[str]:
    """What the stage leaves and is not in the run's folder, sorted."""
    selected = [budget.name for budget in context.experiment.budgets if budget.name not in _missed(context)]
    schemes = [scheme.slug for scheme in context.experiment.quantization.other_schemes] or [""]
    made = itertools.product(OUTPUTS[stage], selected, schemes)
    names = {output.format(selected=model, scheme=scheme) for output, model, scheme in made}
    if stage == "search" and context.experiment.confirms:
        names.add(f"tables/{CONFIRMED}.parquet")
    return sorted(name for name in names if not (context.path / name).exists())


def _missed(context: Context) -> set[str]:
    """Budgets for which the search found no model."""
    path = context.path / SearchRecord.FILE
    return {budget.name for budget in SearchRecord.read(path).missed} if path.exists() else set()


def is_done(context: Context, stage: str) -> bool:
    """Whether a stage ended well under its present key, and what it made is still there."""
    return context.run.is_done(stage, context.keys[stage]) and not missing_files(context, stage)


def loop(context: Context, until: str = "ship") -> Iterator[Progress]:
    """Run the stages that are not done under their present key, up to `until`; yields how far each is.

    Any of them may be killed at any moment: the next call goes on from what had been finished.
    """
    names = stages_of(context)
    for i, name in enumerate(stages_until(context, until)):
        if not is_done(context, name):
            context.run.reopen(names[i:])  # what is built on it may change, whatever its own key says
            identity = context.identities[name]
            with context.run.stage(name, identity.key, version=identity.version, settings=identity.values):
                yield Progress(name, 0, 1, "starts")
                yield from STAGES[name](context)
        settle(context, name)
        yield Progress(name, 1, 1, "done")
