"""What each action of `hilnas lcpaq` takes: its steps, each of them only where it is not done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from deploy.lcpaq.blocks import evaluate_blocks
from deploy.lcpaq.own_network import OwnNetwork
from deploy.lcpaq.proxy import search_settings
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.ship import ship
from deploy.lcpaq.steps import measure_latency, refine_policy, sensitivity, solve_policy
from deploy.lcpaq.subject import Subject
from deploy.lcpaq.widths import compare_widths
from deploy.run.folder import Progress

S = TypeVar("S", bound=Subject)
Step = Callable[[S, StepSettings], Iterator[Progress]]
REFINED: tuple[Step[Subject], ...] = (sensitivity, solve_policy, refine_policy)
OF_A_RUN: Mapping[str, tuple[Step[RunNetwork], ...]] = {
    "sensitivity": REFINED[:1],
    "solve": REFINED[:2],
    "refine": (*REFINED, evaluate_blocks),
    "proxy": (search_settings,),
    "run": (*REFINED, evaluate_blocks, search_settings, ship),
}
OF_A_FILE: Mapping[str, tuple[Step[OwnNetwork], ...]] = {
    "sensitivity": REFINED[:1],
    "solve": REFINED[:2],
    "refine": REFINED,
    "run": (*REFINED, compare_widths),
}


def run_steps(action: str, settings: StepSettings) -> tuple[Step[RunNetwork], ...]:
    """Of a run's network; before them the latency of its layers, where it is asked for."""
    measured = "latency_us" in settings.limits or settings.measure_latency
    return (measure_latency, *OF_A_RUN[action]) if measured else OF_A_RUN[action]


def take(steps: Iterable[Step[S]], subject: S, settings: StepSettings) -> Iterator[Progress]:
    """The steps, one after the other."""
    for step in steps:
        yield from step(subject, settings)
