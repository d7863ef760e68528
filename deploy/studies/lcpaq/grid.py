"""The low-cost search against the exhaustive grid of the same space, on a network small enough to run it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.studies.lcpaq.trained import Trained
from nas.lcpaq import proxy
from nas.lcpaq.policy import INT8
from nas.lcpaq.trial import SPACE, Evaluator, Fidelity, Material, Settings
from nas.tasks.task import score_integer
from nas.training.train import Schedule

FULL = Fidelity(2048, 256)
TRIALS = 56
ALONE = 12  # grid settings that are run with nothing shared, for what each costs by itself


def material(of: Trained, folder: Path) -> Material:
    """All layers at 3 bits, where the settings matter."""
    data = {1.0: of.parts((32, 32))}
    schedule = Schedule(steps=0, optimizer="adamw", batch_size=32, weight_decay=1e-4)
    return Material(of.model, of.uniform(3, INT8), data, schedule, folder, of.key, of.seed)


def grid_scores(of: Trained, folder: Path) -> Iterator[tuple[Settings, float, float]]:
    """(setting, its score on the judged images, CPU seconds); grid.jsonl goes on."""
    path = folder / f"grid-{digest(of.key, asdict(FULL), dict(SPACE))}.jsonl"
    done = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        done[proxy.settings_of(entry["settings"])] = entry
    evaluate = Evaluator(material(of, folder / "grid"))
    with path.open("a") as journal:
        for settings in proxy.grid(SPACE):
            if settings not in done:
                started = time.process_time()
                score = evaluate(settings, FULL)
                entry = {"settings": asdict(settings), "score": score, "cpu_s": time.process_time() - started}
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
                done[settings] = entry
            yield settings, done[settings]["score"], done[settings]["cpu_s"]


def fresh(of: Trained, folder: Path, settings: Settings) -> float:
    """Its score on the validation images, which nothing was chosen by."""
    return score_integer(Evaluator(material(of, folder / "grid")).graph(settings, FULL), of.val)


def alone_s(of: Trained, folder: Path) -> float:
    """CPU seconds of a grid setting by itself: the mean of a few at even distances, nothing shared."""
    path = folder / "alone.json"
    if not path.exists():
        settings = list(proxy.grid(SPACE))
        taken = []
        for i in range(ALONE):
            evaluate = Evaluator(material(of, folder / f"alone{i}"))
            started = time.process_time()
            evaluate(settings[(2 * i + 1) * len(settings) // (2 * ALONE) + i % 2], FULL)
            taken.append(time.process_time() - started)
        write_json(path, {"cpu_s": fmean(taken)})
    return float(read_json(path)["cpu_s"])


def proxies(folder: Path, seeds: Sequence[int], steps: int) -> Iterator[str]:
    """The second table, for the first seed's network; searches with every seed."""
    of = Trained(seeds[0], folder, steps)
    grid = list(grid_scores(of, folder))
    full = {settings: score for settings, score, _ in grid}
    top = max(full, key=lambda settings: full[settings])
    top_fresh = fresh(of, folder, top)
    each_s, shared_s = alone_s(of, folder), sum(cpu_s for *_, cpu_s in grid)
    yield f"{len(grid)} settings; each by itself {each_s:.2f} s of CPU, all {each_s * len(grid):.0f} s;"
    yield f"with shared steps, as this grid was computed, {shared_s:.0f} s. Best {full[top]:.2f} %, on fresh images"
    yield f"{top_fresh:.2f} %: {asdict(top)}."
    yield ""
    yield "| search | full trials | CPU s | grid's cost / its | with shared steps | best | behind | fresh | behind |"
    yield "|---" * 9 + "|"
    rungs = proxy.ladder(FULL)
    tried: list[proxy.Trial] = []
    for seed in seeds:
        evaluate = Evaluator(material(of, folder / f"search{seed}"))
        study = folder / f"study{seed}.sqlite"
        trials = list(proxy.search(evaluate, SPACE, rungs, study, trials=TRIALS, key=of.key, seed=seed))
        tried += trials
        found, cost = proxy.best(trials), proxy.cost_s(trials)
        on_top, found_fresh = (
            sum(len(trial.values) == len(rungs) for trial in trials),
            fresh(of, folder, found.settings),
        )
        yield (
            f"| seed {seed} | {on_top} | {cost:.0f} | {each_s * len(grid) / cost:.0f} | {shared_s / cost:.1f} | "
            f"{found.values[-1]:.2f} | {full[top] - found.values[-1]:.2f} | {found_fresh:.2f} | "
            f"{top_fresh - found_fresh:.2f} |"
        )
    yield ""
    for one in proxy.agreements(tried, full)[: len(rungs) - 1]:
        rung = rungs[one.rung]
        yield (
            f"Rung {one.rung + 1} ({rung.images} images, {rung.steps} steps) against the full evaluation: "
            f"tau-b {one.tau_b:.2f}, Spearman {one.spearman:.2f} over {one.trials} trials."
        )
