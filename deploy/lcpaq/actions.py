"""What each action of `hilnas lcpaq` takes: its steps, each of them only where it is not done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from deploy.lcpaq.blocks import evaluate_blocks
from deploy.lcpaq.proxy import search_settings
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.ship import ship
from deploy.lcpaq.steps import measure_latency, refine_policy, sensitivity, solve_policy
from deploy.lcpaq.subject import Subject
from deploy.run.folder import Progress

Step = Callable[[Subject, StepSettings], Iterator[Progress]]
REFINED: tuple[Step, ...] = (sensitivity, solve_policy, refine_policy, evaluate_blocks)
STEPS: Mapping[str, tuple[Step, ...]] = {
    "sensitivity": REFINED[:1],
    "solve": REFINED[:2],
    "refine": REFINED,
    "proxy": (search_settings,),
    "run": (*REFINED, search_settings, ship),
}


def take(action: str, subject: Subject, settings: StepSettings) -> Iterator[Progress]:
    """The steps of an action, a key of `STEPS`; before them the latency of the layers, where it is asked for."""
    if "latency_us" in settings.limits or settings.measure_latency:
        yield from measure_latency(subject)
    for step in STEPS[action]:
        yield from step(subject, settings)
