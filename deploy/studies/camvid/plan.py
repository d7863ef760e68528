"""The study of docs/camvid.md as the commands that make it, in their order, with what each takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hil.errors import UsageError

CONFIG = "camvid"
SEEDS = (0, 1, 2, 3, 4)
CONTROLLED = ("fast", "small")
"""Models that have controls; those of the first seed."""
RIVALS = ("blockwise", "spos", "random")
CONTROLS = ("random_blocks", "fewer_layers")
HOMOGENEOUS_WIDTHS = (6, 4)
FINISHED = ("teacher_plus", "fast", "small", "best")
"""Models of 8 bits, which are looked at with and without quantization-aware steps."""
ABLATION, ABLATED = "ablation", "best"
"""The step, and the model whose recipe loses one part after the other."""
SOFT_TARGETS = "soft targets"
"""The part of the recipe that every seed's models are trained without, too."""
LCPAQ_SHARES = (67, 58)  # percent of the INT8 size
LCPAQ_COST = ("--trials", "12", "--images", "16")
"""Maps have many labels an image, and 60 layers' traces many probes."""
ANYWHERE = ("camvid:CAMVID", Path("ENCODER.tflite"), Path("OUT"))
"""What commands name that are published, in place of somebody's folders."""
FEWER_MODELS = "24"
"""Full networks that the agreement is of, with every seed but the first."""
RANKED_STEPS = 100  # of a retraining, where 24 architectures are ranked, each retrained twice


@dataclass(frozen=True)
class StudyStep:
    """A command of the study.

    Attributes:
        arguments: of hilnas.
        minutes: that it took on one core of the machine of docs/camvid.md.
        needs: the steps that it goes on from.
    """

    name: str
    arguments: tuple[str, ...]
    minutes: int
    needs: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return shlex.join(("hilnas", *self.arguments))


def run_name(seed: int) -> str:
    return f"seed{seed}"


def finish_step(seed: int) -> str:
    return f"finish{seed}"


def hard_step(seed: int) -> str:
    return f"hard{seed}"


FINISHED_CONTROLS = "finished-controls"


def lcpaq_step(model: str, share: int) -> str:
    return f"lcpaq-{model}-{share}"


def steps(
    data: str, encoder: Path, out: Path, seeds: Sequence[int] = SEEDS, controls: int | None = None
) -> list[StudyStep]:
    """`data`: as --data; `out`: the folder of the runs; `controls`: the seed with controls and rankings.

    None: the first. `UsageError` for one that is none of `seeds`.
    """

    def of(seed: int) -> tuple[str, ...]:
        where = ("--runs-dir", str(out), "--name", run_name(seed), "--seed", str(seed))
        return ("--config", CONFIG, "--data", data, "--encoder-from", str(encoder), *where)

    first, *others = seeds
    controlled = first if controls is None else controls
    if controlled not in seeds:
        raise UsageError(f"--controls {controlled}: none of the seeds {', '.join(map(str, seeds))}")
    agreed = () if controlled == first else ("--set", f"agreement.models={FEWER_MODELS}")
    return [
        StudyStep(run_name(first), ("loop", *of(first)), 120),
        *(StudyStep(run_name(seed), ("loop", *of(seed), "--models", FEWER_MODELS), 105) for seed in others),
        *(_finish(seed, of(seed)) for seed in seeds),
        *(_hard(seed, of(seed)) for seed in seeds),
        *_compared(run_name(controlled), of(controlled), agreed),
        *_looked_into(run_name(controlled), of(controlled), agreed),
    ]


def _finish(seed: int, of: tuple[str, ...]) -> StudyStep:
    arguments = ("study", "finish", *of, "--models", ",".join(FINISHED))
    return StudyStep(finish_step(seed), arguments, 12, (run_name(seed),))


def _hard(seed: int, of: tuple[str, ...]) -> StudyStep:
    arguments = ("study", "ablation", *of, "--models", ",".join(FINISHED), "--without", SOFT_TARGETS)
    return StudyStep(hard_step(seed), arguments, 30, (run_name(seed),))


def _compared(run: str, of: tuple[str, ...], agreed: tuple[str, ...]) -> Iterator[StudyStep]:
    """Controls and rivals; `agreed`: options of the run's agreement, which these go on from."""
    for budget, methods in zip(CONTROLLED, ((*RIVALS, *CONTROLS), CONTROLS), strict=True):
        arguments = ("compare-search", *of, *agreed, "--budget", budget, "--methods", ",".join(methods))
        yield StudyStep(f"controls-{budget}", arguments, 30 if len(methods) > len(CONTROLS) else 20, (run,))
    compared = tuple(f"controls-{budget}" for budget in CONTROLLED)
    yield StudyStep(FINISHED_CONTROLS, ("study", "finish", *of, "--compared", ",".join(CONTROLLED)), 15, compared)


def _looked_into(run: str, of: tuple[str, ...], agreed: tuple[str, ...]) -> Iterator[StudyStep]:
    """Recipe, widths and estimate of one run."""
    widths = ",".join(map(str, HOMOGENEOUS_WIDTHS))
    ranked = ("--models", "24", "--steps", str(RANKED_STEPS), "--bits", "8")
    yield StudyStep(ABLATION, ("study", "ablation", *of, "--models", ABLATED), 60, (run,))
    yield StudyStep("widths", ("study", "widths", *of, "--models", "teacher_plus,small", "--bits", widths), 15, (run,))
    yield StudyStep("ranking", ("study", "ranking", *of, *ranked), 60, (run,))
    for model, share in (("teacher", LCPAQ_SHARES[0]), *(("small", share) for share in LCPAQ_SHARES)):
        limited = ("--model", model, "--size-limit", f"{share}%", *LCPAQ_COST)
        yield StudyStep(lcpaq_step(model, share), ("lcpaq", "run", *of, *agreed, *limited), 60, (run,))


def chosen(steps: Sequence[StudyStep], names: str | None) -> list[StudyStep]:
    """Those of these names, with commas between, in the plan's order; None: all. `UsageError` for another name."""
    if names is None:
        return list(steps)
    wanted = names.split(",")
    known = [step.name for step in steps]
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"--only {unknown[0]}: no such step; there are {', '.join(known)}")
    return [step for step in steps if step.name in wanted]
