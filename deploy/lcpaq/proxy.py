"""LCPAQ's last step over a run: the low-cost search of the hyperparameters for policy.json's bits, in proxy.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.lcpaq.subject import Subject, Wanted, stored_policy
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from nas.data import Dataset, open_data
from nas.data.part import held_out
from nas.errors import ConfigError
from nas.lcpaq import proxy
from nas.lcpaq.policy import applied
from nas.lcpaq.trial import SPACE, Evaluator, Fidelity, Material
from nas.quant.integer_graph import IntegerGraph
from nas.quant.safe_resize import split_resizes
from nas.tasks.task import score_integer
from nas.training.threads import one_thread

SMALL_IMAGE = 64  # pixels a side, below which a smaller image ranks badly (docs/lcpaq.md) and saves little


def material_of(subject: Subject, wanted: Wanted) -> Material:
    """What the proxy's trials are about: policy.json's bits, the run's training images."""
    schedule = replace(subject.context.experiment.retrain.schedule, warmup_steps=0)
    seed, folder = subject.context.experiment.seed, subject.folder / "tuned"
    policy, data = stored_policy(subject), _data(subject, wanted)
    applied(subject.nodes, policy)  # refuses bits that the quantizer cannot give before anything is trained
    return Material(subject.model, policy, data, schedule, folder, subject.key, seed)


def rungs_of(material: Material, wanted: Wanted) -> tuple[Fidelity, ...]:
    """The ladder up to all images that are judged on."""
    _, judged = material.data[1.0]
    return proxy.ladder(Fidelity(len(judged), wanted.tuning_steps), smaller=proxy.SMALL_SHARE in material.data)


def search_settings(subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    """proxy.json: the hyperparameters that the low-cost search found for policy.json's bits; study.sqlite goes on."""
    material = material_of(subject, wanted)
    rungs, evaluate = rungs_of(material, wanted), Evaluator(material)
    key = digest(subject.key, str(material.policy), settings_of(material.schedule), [asdict(rung) for rung in rungs])
    study, trials = subject.folder / "study.sqlite", list[proxy.Trial]()
    with one_thread():
        for trial in proxy.search(evaluate, SPACE, rungs, study, trials=wanted.trials, key=key, seed=material.seed):
            trials.append(trial)
            yield Progress("lcpaq proxy", len(trials), wanted.trials, f"{trial.values[-1]:.2f}")
    best = proxy.best(trials)
    write_json(
        subject.folder / "proxy.json",
        {
            "key": key,
            "policy": str(material.policy),
            "best": asdict(best.settings),
            "score": best.values[-1],
            "rungs": [asdict(rung) for rung in rungs],
            "reached": [sum(len(trial.values) > rung for trial in trials) for rung in range(len(rungs))],
            "cpu_s": round(proxy.cost_s(trials), 2),
            "grid_settings": proxy.grid_size(SPACE),
            "agreement": [_plain(asdict(one)) for one in proxy.agreements(trials)] if len(best.values) > 1 else [],
        },
    )


def deployed(subject: Subject, wanted: Wanted) -> tuple[str, IntegerGraph]:
    """The network to ship at policy.json's bits: by the run's own scheme, or as the proxy search found it.

    The one that scores more on the images which that search judged on; its own scheme where they are even.
    """
    material = material_of(subject, wanted)
    own, found = subject.graph(material.policy), read_json(subject.folder / "proxy.json", ("best", "policy"))
    if found["policy"] != str(material.policy):
        return "own scheme", own
    settings, top = proxy.settings_of(found["best"]), rungs_of(material, wanted)[-1]
    with one_thread():
        tuned = split_resizes(Evaluator(material).graph(settings, top), subject.context.resize_factors)
        _, judged = material.data[1.0]
        better = score_integer(tuned, judged) > score_integer(own, judged)
    return ("proxy's settings", tuned) if better else ("own scheme", own)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in record.items()}


def _data(subject: Subject, wanted: Wanted) -> dict[float, tuple[Dataset, Dataset]]:
    """For each scale the training images without those to judge on, and those; validation is for the end alone."""
    spec, seed = subject.context.experiment.data, subject.context.experiment.seed
    found: dict[float, tuple[Dataset, Dataset]] = {}
    stride = subject.model.output_stride
    for scale in (1.0, proxy.SMALL_SHARE):
        size = (round(spec.size[0] * scale), round(spec.size[1] * scale))
        if scale != 1 and (min(spec.size) < SMALL_IMAGE or size[0] % stride or size[1] % stride):
            continue  # too little is left of it, or its maps would not be those of the full size, only smaller
        try:
            data = open_data(spec.spec, "train", size, seed=seed, count=spec.train)
        except ConfigError:
            continue  # a data set that cannot be drawn so small
        found[scale] = held_out(data, min(wanted.judged, len(data) // 4))
    return found
