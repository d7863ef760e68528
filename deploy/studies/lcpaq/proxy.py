"""The low-cost search against the exhaustive grid of the same space, on a network small enough to run it.

The second table of docs/lcpaq.md. Minutes on one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from deploy.formats.digest import digest
from deploy.formats.journal import Journal
from deploy.studies.lcpaq.records import GridScore, IsolatedCost
from deploy.studies.lcpaq.trained import Trained
from nas.lcpaq import proxy
from nas.lcpaq.policy import INT8
from nas.lcpaq.trial import SPACE, Evaluator, Fidelity, Settings, TrialInputs
from nas.tasks.task import score_integer
from nas.training.threads import one_thread
from nas.training.train import Schedule

FULL = Fidelity(2048, 256)
RUNGS = proxy.ladder(FULL)
TRIALS = 56
ISOLATED = 12  # grid settings that are run with nothing shared, for what each costs by itself


def trial_inputs(trained: Trained, folder: Path) -> TrialInputs:
    """All layers at 3 bits, where the settings matter."""
    data = {1.0: trained.parts((32, 32))}
    schedule = Schedule(steps=0, optimizer="adamw", batch_size=32, weight_decay=1e-4)
    return TrialInputs(trained.model, trained.uniform(3, INT8), data, schedule, folder, trained.key, trained.seed)


def grid_scores(trained: Trained, folder: Path) -> Iterator[GridScore]:
    """Every setting of the grid, scored; the journal goes on."""
    journal = Journal(folder / f"grid-{digest(trained.key, asdict(FULL), dict(SPACE))}.jsonl", GridScore)
    done = {scored.settings: scored for scored in journal.read()}
    evaluate = Evaluator(trial_inputs(trained, folder / "grid"))
    for settings in proxy.grid(SPACE):
        if settings not in done:
            started = time.process_time()
            score = evaluate(settings, FULL)
            done[settings] = GridScore(settings, score, time.process_time() - started)
            journal.append(done[settings])
        yield done[settings]


def fresh(trained: Trained, folder: Path, settings: Settings) -> float:
    """Its score on the validation images, which nothing was chosen by."""
    return score_integer(Evaluator(trial_inputs(trained, folder / "grid")).graph(settings, FULL), trained.val)


def isolated_s(trained: Trained, folder: Path) -> float:
    """CPU seconds of a grid setting by itself: the mean of a few at even distances, nothing shared."""
    path = folder / IsolatedCost.FILE
    if not path.exists():
        settings = list(proxy.grid(SPACE))
        taken = []
        for i in range(ISOLATED):
            evaluate = Evaluator(trial_inputs(trained, folder / f"alone{i}"))
            started = time.process_time()
            evaluate(settings[(2 * i + 1) * len(settings) // (2 * ISOLATED) + i % 2], FULL)
            taken.append(time.process_time() - started)
        IsolatedCost(fmean(taken)).write(path)
    return IsolatedCost.read(path).cpu_s


def proxies(folder: Path, seeds: Sequence[int], steps: int) -> Iterator[str]:
    """The search against the grid, for the first seed's network, with a search for every seed, as lines of Markdown.

    What was finished is kept in `folder` and not computed again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with one_thread():
        trained = Trained(seeds[0], folder, steps)
        grid = list(grid_scores(trained, folder))
        full = {scored.settings: scored.score for scored in grid}
        isolated_grid_s = isolated_s(trained, folder) * len(grid)
        shared_s = sum(scored.cpu_s for scored in grid)
        top = max(full, key=lambda settings: full[settings])
        top_fresh = fresh(trained, folder, top)
        each_s = isolated_grid_s / len(grid)
        yield f"{len(grid)} settings; each isolated {each_s:.2f} s of CPU, all {isolated_grid_s:.0f} s;"
        yield f"with shared steps, as this grid was computed, {shared_s:.0f} s. Best {full[top]:.2f} %, on fresh images"
        yield f"{top_fresh:.2f} %: {asdict(top)}."
        yield ""
        heads = "full trials | CPU s | grid's cost / its | with shared steps | best | behind | fresh | behind"
        yield f"| search | {heads} |"
        yield "|---" * 9 + "|"
        tried: list[proxy.Trial] = []
        for seed in seeds:
            trials = searched(trained, folder, seed)
            tried += trials
            best, cost_s = proxy.best(trials), proxy.cost_s(trials)
            on_top = sum(len(trial.values) == len(RUNGS) for trial in trials)
            best_fresh = fresh(trained, folder, best.settings)
            yield (
                f"| seed {seed} | {on_top} | {cost_s:.0f} | {isolated_grid_s / cost_s:.0f} | {shared_s / cost_s:.1f} | "
                f"{best.values[-1]:.2f} | {full[top] - best.values[-1]:.2f} | {best_fresh:.2f} | "
                f"{top_fresh - best_fresh:.2f} |"
            )
    yield ""
    for one in proxy.agreements(tried, full)[: len(RUNGS) - 1]:
        rung = RUNGS[one.rung]
        yield (
            f"Rung {one.rung + 1} ({rung.images} images, {rung.steps} steps) against the full evaluation: "
            f"tau-b {one.tau_b:.2f}, Spearman {one.spearman:.2f} over {one.trials} trials."
        )


def searched(trained: Trained, folder: Path, seed: int) -> list[proxy.Trial]:
    """The trials of one search."""
    evaluate, study = Evaluator(trial_inputs(trained, folder / f"search{seed}")), folder / f"study{seed}.sqlite"
    return list(proxy.search(evaluate, SPACE, RUNGS, study, trials=TRIALS, key=trained.key, seed=seed))
