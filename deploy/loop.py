"""The loop, stage by stage: what runs after what, and what is already done.

teacher -> distil -> tables (NSR, size, every subnet compiled) -> profile (every subnet measured) -> agree
(whole models measured, table corrected) -> search -> retrain -> ship (measured, bundled, verified).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from deploy.context import Context
from deploy.run import Progress
from deploy.stages.distillation import distil
from deploy.stages.judge import agree, search
from deploy.stages.networks import retrain, train_teacher
from deploy.stages.ship import ship
from deploy.stages.tables import populate, profile

STAGES: Mapping[str, Callable[[Context], Iterator[Progress]]] = {
    "teacher": train_teacher,
    "distil": distil,
    "tables": populate,
    "profile": profile,
    "agree": agree,
    "search": search,
    "retrain": retrain,
    "ship": ship,
}

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "teacher": ("teacher.pt",),
    "distil": ("supernets.pt",),
    "tables": ("tables/nsr.parquet", "tables/size.parquet"),
    "profile": ("tables/latency.parquet", "profile.json"),
    "agree": ("tables/latency-corrected.parquet", "agreement.json"),
    "search": ("search.json",),
    "retrain": ("students/{found}.pt",),
    "ship": (
        *("final.json", "bundle/manifest.json", "bundle/model.tflite"),
        *(
            f"models/{name}.{kind}"
            for name in ("teacher", "{found}")
            for kind in ("tflite", "input.bin", "expected.bin")
        ),
    ),
}
"""What a stage leaves in the run's folder for others, `{found}` being each budget's name."""


def is_done(context: Context, name: str) -> bool:
    """Whether a stage ended well under its present key, and what it made is still there."""
    found = [budget.name for budget in context.experiment.budgets]
    paths = {context.path / output.format(found=model) for output in OUTPUTS[name] for model in found}
    return context.run.is_done(name, context.keys[name]) and all(path.exists() for path in paths)


def loop(context: Context, until: str = "ship") -> Iterator[Progress]:
    """Run the stages that are not done under their present key, up to `until`; yields how far each is.

    Any of them may be killed at any moment: the next call goes on from what had been finished.
    """
    names = list(STAGES)
    for i, (name, stage) in enumerate(STAGES.items()):
        if not is_done(context, name):
            context.run.reopen(names[i:])  # what is built on it may change, whatever its own key says
            with context.run.stage(name, context.keys[name]):
                yield Progress(name, 0, 1, "starts")
                yield from stage(context)
        yield Progress(name, 1, 1, "done")
        if name == until:
            return
