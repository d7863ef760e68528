"""The low-cost proxy: a search of quantization's hyperparameters in which most trials are evaluated cheaply.

Source: LCPAQ (arXiv 2402.17706), third module: a proxy that takes 1/200 of the time, without details. Chosen here:
successive halving (Li et al., arXiv 1810.05934) over fewer images, fewer fine-tuning steps and smaller images, with
proposals by Optuna's tree-structured Parzen estimator (Bergstra et al., 2011). The study is an SQLite file; one that
was killed is resumed, and at most the running trial is repeated.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nas.errors import ConfigError
from nas.lcpaq.trial import Fidelity, Settings, Space
from nas.settings import build

Evaluate = Callable[[Settings, Fidelity], float]  # more is better

REDUCTION = 4
PROPOSALS = 4  # in a row that were all tried before, until a new one is drawn at random
DRAWS = 200  # near the best ones, until it is drawn from all
SMALL_SHARE = 0.75  # of the image's side, on the lowest rung


@dataclass(frozen=True)
class Trial:
    """One trial's scores, on as many rungs of the ladder as it reached; costs in CPU seconds."""

    settings: Settings
    values: tuple[float, ...]
    cpu_s: tuple[float, ...]


@dataclass(frozen=True)
class RankCorrelation:
    """The rank correlation of a cheap rung with the last one: over `trials` evaluated on both. NaN below 3 of them."""

    rung: int
    trials: int
    tau_b: float
    spearman: float


def ladder(full: Fidelity, *, rungs: int = 2, smaller: bool = False) -> tuple[Fidelity, ...]:
    """Fidelities from the cheapest to `full`, each with a quarter of the next one's steps and half of its images.

    Images cost less than steps, and a score on fewer images is noisier. `smaller`: the cheapest also uses smaller
    images. Raises `ConfigError` where `full` has too few images to divide.
    """
    if rungs < 1 or full.images < 1 or full.steps < 0:
        raise ConfigError(f"proxy: {rungs} rungs up to {full.images} images and {full.steps} steps: give positive ones")
    if full.images < 2 ** (rungs - 1):
        raise ConfigError(
            f"proxy: {full.images} evaluation images are too few for {rungs} rungs; give {2 ** (rungs - 1)}"
        )
    fidelities = [
        Fidelity(full.images // 2**below, full.steps // REDUCTION**below, full.scale)
        for below in reversed(range(rungs))
    ]
    if smaller and rungs > 1:
        fidelities[0] = Fidelity(fidelities[0].images, fidelities[0].steps, full.scale * SMALL_SHARE)
    return tuple(fidelities)


def grid(space: Space) -> Iterator[Settings]:
    """Every setting of `space`."""
    for values in itertools.product(*space.values()):
        yield settings_of(dict(zip(space, values, strict=True)))


def grid_size(space: Space) -> int:
    return math.prod(len(values) for values in space.values())


def settings_of(values: Mapping[str, Any]) -> Settings:
    """`ConfigError` for an unknown hyperparameter, or a value that it cannot have."""
    return build(Settings, dict(values), "proxy")


def search(
    evaluate: Evaluate, space: Space, rungs: Sequence[Fidelity], study: Path, *, trials: int, key: str, seed: int = 0
) -> Iterator[Trial]:
    """`trials` trials, finished ones first; each is durable when yielded.

    The surrogate's proposals are promoted from rung to rung while they are among the best quarter of the trials on that
    rung; where it only repeats itself, one of the best quarter is changed in one or two hyperparameters. The last third
    of `trials` differ from the best in one hyperparameter, and are promoted to the top unless they are in the worse
    half on the lowest rung, as long as there are such settings that were not. `key` names the study inside the file: a
    digest of everything that a score depends on.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = _opened(study, _name(key, space, rungs), seed)
    done = finished(opened)
    proposed = trials - trials // 3
    for left in opened.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # killed while running: repeat it
        opened.tell(left.number, state=optuna.trial.TrialState.FAIL)
        if len(left.params) == len(space) and len(done) < proposed:
            opened.enqueue_trial(left.params)
    yield from done[:trials]
    while len(done) < trials:
        beside = _beside(done, space, len(rungs)) if len(done) >= proposed else None
        if beside:
            opened.enqueue_trial({name: asdict(beside)[name] for name in space})
            asked = opened.ask()
            done.append(_climb(evaluate, _suggested(asked, space), asked, rungs, opened, floor=_median(done)))
        elif len({trial.settings for trial in done}) < grid_size(space):
            done.append(_climb(evaluate, *_new(opened, space, done, seed), rungs, opened))
        else:
            return
        yield done[-1]


def _beside(done: Sequence[Trial], space: Space, rungs: int) -> Settings | None:
    """Settings that differ from the best in one hyperparameter and may still reach the top; None if there are none."""
    floor = _median(done)
    settled = {trial.settings for trial in done if len(trial.values) == rungs or trial.values[0] < floor}
    top = asdict(best(done).settings)
    near = (settings_of({**top, name: value}) for name, values in space.items() for value in values)
    return next((settings for settings in near if settings not in settled), None)


def _median(done: Sequence[Trial]) -> float:
    """Of the scores on the lowest rung."""
    return median(trial.values[0] for trial in done)


def _suggested(asked: Any, space: Space) -> Settings:
    return settings_of({name: asked.suggest_categorical(name, values) for name, values in space.items()})


def _new(study: Any, space: Space, done: Sequence[Trial], seed: int) -> tuple[Settings, Any]:
    """New settings with their trial: the surrogate's, or drawn at random where it only repeats itself."""
    import optuna

    known = {trial.settings for trial in done}
    for attempt in range(PROPOSALS + 1):
        if attempt == PROPOSALS:
            drawn = asdict(_drawn(space, done, random.Random(f"{seed}/{len(known)}")))
            study.enqueue_trial({name: drawn[name] for name in space})
        asked = study.ask()
        settings = _suggested(asked, space)
        if settings not in known:
            break
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return settings, asked


def _drawn(space: Space, done: Sequence[Trial], rng: random.Random) -> Settings:
    """New settings: those of one of the best quarter with one or two hyperparameters redrawn, else any."""
    known = {trial.settings for trial in done}
    good = sorted(done, key=lambda trial: -trial.values[0])[: max(1, len(done) // REDUCTION)]
    for draw in itertools.count():
        changed = rng.sample(list(space), min(rng.choice((1, 2)), len(space))) if draw < DRAWS else list(space)
        values = asdict(rng.choice(good).settings)
        settings = settings_of({**values, **{name: rng.choice(space[name]) for name in changed}})
        if settings not in known:
            break
    return settings


def _climb(
    evaluate: Evaluate,
    settings: Settings,
    asked: Any,
    rungs: Sequence[Fidelity],
    study: Any,
    *,
    floor: float | None = None,
) -> Trial:
    """Evaluate `settings` rung by rung up to the top or until pruned: only by the lowest rung's `floor`, if given."""
    from optuna.trial import TrialState

    values: list[float] = []
    cpu_s: list[float] = []
    for i, fidelity in enumerate(rungs):
        started = time.process_time()
        value = evaluate(settings, fidelity)
        cpu_s.append(round(time.process_time() - started, 4))
        if not math.isfinite(value):
            raise ConfigError(f"proxy: a trial of {settings} scored {value}; fix the network or the data first")
        values.append(value)
        asked.report(value, REDUCTION**i)
        pruned = asked.should_prune() if floor is None else i == 0 and value < floor
        if pruned and i + 1 < len(rungs):
            break
    asked.set_user_attr("values", values)
    asked.set_user_attr("cpu_s", cpu_s)
    complete = len(values) == len(rungs)
    study.tell(asked, values[-1] if complete else None, state=TrialState.COMPLETE if complete else TrialState.PRUNED)
    return Trial(settings, tuple(values), tuple(cpu_s))


def _name(key: str, space: Space, rungs: Sequence[Fidelity]) -> str:
    return json.dumps([key, space, [asdict(rung) for rung in rungs]])


def _opened(path: Path, name: str, seed: int) -> Any:
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # one flush to disk per commit
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: not a study that can be read ({error}); delete it to search again") from None
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    names = {study.study_name for study in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    done = len(optuna.load_study(study_name=name, storage=storage).trials) if name in names else 0
    return optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed * 10_000 + done),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )


def finished(study: Any) -> list[Trial]:
    """A study's trials that came to an end, in order."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [
        Trial(settings_of(trial.params), tuple(trial.user_attrs["values"]), tuple(trial.user_attrs["cpu_s"]))
        for trial in ended
        if {"values", "cpu_s"} <= trial.user_attrs.keys()
    ]


def best(trials: Sequence[Trial]) -> Trial:
    """The one with the highest score on the highest rung reached; of equal ones the earliest."""
    if not trials:
        raise ConfigError("proxy: no trial was finished; run it again")
    return max(trials, key=lambda trial: (len(trial.values), trial.values[-1]))


def cost_s(trials: Sequence[Trial]) -> float:
    """CPU seconds of all evaluations."""
    return sum(sum(trial.cpu_s) for trial in trials)


def agreements(trials: Sequence[Trial], full: Mapping[Settings, float] | None = None) -> list[RankCorrelation]:
    """Each cheap rung's rank correlation with the full evaluation: that of `full`, or of the trials themselves.

    Without `full` only those that reached the top can be compared, and these were selected for high scores.
    """
    if full is None:
        top = max(len(trial.values) for trial in trials)
        full = {trial.settings: trial.values[-1] for trial in trials if len(trial.values) == top}
    else:
        top = 1 + max(len(trial.values) for trial in trials)
    rungs = []
    for rung in range(top - 1):
        pairs = [
            (trial.values[rung], full[trial.settings])
            for trial in trials
            if len(trial.values) > rung and trial.settings in full
        ]
        rungs.append(RankCorrelation(rung, len(pairs), *rank_correlations(pairs)))
    return rungs


def rank_correlations(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(tau-b, Spearman) of paired scores; NaN for fewer than 3 pairs, or if all scores on one side are equal."""
    from scipy.stats import kendalltau, spearmanr

    cheap, full = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < 3 or len(set(cheap)) == 1 or len(set(full)) == 1:
        return math.nan, math.nan
    return float(kendalltau(cheap, full).statistic), float(spearmanr(cheap, full).statistic)
