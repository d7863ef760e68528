"""The loop, stage by stage: what runs after what, and what is already done.

teacher -> distil -> tables (NSR, size, every subnet compiled) -> profile (every subnet measured) -> agree
(whole models measured, table corrected) -> search -> retrain -> ship (measured, bundled, verified).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from deploy.context import Context
from deploy.run import Progress
from deploy.stages.judge import agree, search
from deploy.stages.networks import distil, retrain, train_teacher
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


def loop(context: Context, until: str = "ship") -> Iterator[Progress]:
    """Run the stages that are not done under their present key, up to `until`; yields how far each is.

    Any of them may be killed at any moment: the next call goes on from what had been finished.
    """
    for name, stage in STAGES.items():
        key = context.keys[name]
        if not context.run.is_done(name, key):
            with context.run.stage(name, key):
                yield Progress(name, 0, 1, "starts")
                yield from stage(context)
        yield Progress(name, 1, 1, "done")
        if name == until:
            return
