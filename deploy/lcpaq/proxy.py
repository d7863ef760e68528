"""LCPAQ's last step over a run: the low-cost search of the hyperparameters for policy.json's bits, in proxy.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace

from deploy.formats.digest import digest
from deploy.lcpaq.records import ProxyRecord, RungAgreement
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import kept_policy
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from nas.data import Crops, Dataset, open_data
from nas.data.part import evenly_spaced
from nas.errors import ConfigError
from nas.lcpaq import proxy
from nas.lcpaq.policy import applied
from nas.lcpaq.trial import Evaluator, Fidelity, TrialInputs
from nas.quant.integer_graph import IntegerGraph
from nas.quant.safe_resize import split_resizes
from nas.tasks.task import score_integer
from nas.training.threads import one_thread

SMALL_IMAGE = 64  # pixels a side, below which a smaller image ranks badly (docs/lcpaq.md) and saves little


def trial_inputs(subject: RunNetwork, settings: StepSettings) -> TrialInputs:
    """What the proxy's trials are about: policy.json's bits, the training images, the held-out ones to score on."""
    schedule = replace(subject.context.experiment.retrain.schedule, warmup_steps=0)
    seed, folder = subject.context.experiment.seed, subject.folder / "tuned"
    policy, data = kept_policy(subject), _data(subject, settings)
    applied(subject.nodes, policy)  # refuses bits that the quantizer cannot give before anything is trained
    return TrialInputs(subject.model, policy, data, schedule, folder, subject.key, seed)


def rungs_of(inputs: TrialInputs, settings: StepSettings) -> tuple[Fidelity, ...]:
    """The ladder up to all images that trials are scored on."""
    _, unseen = inputs.data[1.0]
    return proxy.ladder(Fidelity(len(unseen), settings.tuning_steps), smaller=proxy.SMALL_SHARE in inputs.data)


def search_settings(subject: RunNetwork, settings: StepSettings) -> Iterator[Progress]:
    """proxy.json: the hyperparameters that the low-cost search found for policy.json's bits; study.sqlite goes on."""
    inputs = trial_inputs(subject, settings)
    rungs, evaluate = rungs_of(inputs, settings), Evaluator(inputs)
    key = digest(subject.key, str(inputs.policy), settings_of(inputs.schedule), [asdict(rung) for rung in rungs])
    study, trials = subject.folder / "study.sqlite", list[proxy.Trial]()
    with one_thread():
        space, most = settings.space, settings.trials
        for trial in proxy.search(evaluate, space, rungs, study, trials=most, key=key, seed=inputs.seed):
            trials.append(trial)
            yield Progress("lcpaq proxy", len(trials), settings.trials, f"{trial.values[-1]:.2f}")
    best = proxy.best(trials)
    record = ProxyRecord(
        key=key,
        policy=str(inputs.policy),
        best=best.settings,
        score=best.values[-1],
        rungs=rungs,
        reached=tuple(sum(len(trial.values) > rung for trial in trials) for rung in range(len(rungs))),
        cpu_s=round(proxy.cost_s(trials), 2),
        grid_settings=proxy.grid_size(settings.space),
        agreement=tuple(map(_agreement, proxy.agreements(trials))) if len(best.values) > 1 else (),
    )
    record.write(subject.folder / record.FILE)


def _agreement(found: proxy.RankCorrelation) -> RungAgreement:
    """JSON has no NaN."""
    tau_b, spearman = (None if math.isnan(value) else value for value in (found.tau_b, found.spearman))
    return RungAgreement(found.rung, found.trials, tau_b, spearman)


def deployed(subject: RunNetwork, settings: StepSettings) -> tuple[str, IntegerGraph]:
    """The network to ship at policy.json's bits: by the run's scheme, or as the proxy search found it.

    The one that scores more on the images which that search scored on; the run's scheme where they are even. Where
    every hyperparameter was given, as they make it.
    """
    inputs = trial_inputs(subject, settings)
    plain, found = subject.graph(inputs.policy), ProxyRecord.read(subject.folder / ProxyRecord.FILE)
    if found.policy != str(inputs.policy):
        return "the run's scheme", plain
    top = rungs_of(inputs, settings)[-1]
    with one_thread():
        tuned = split_resizes(Evaluator(inputs).graph(found.best, top), subject.context.resize_factors)
        if settings.nothing_to_search:
            return "the settings given", tuned
        _, unseen = inputs.data[1.0]
        better = score_integer(tuned, unseen) > score_integer(plain, unseen)
    return ("proxy's settings", tuned) if better else ("the run's scheme", plain)


def _data(subject: RunNetwork, settings: StepSettings) -> dict[float, tuple[Dataset, Dataset]]:
    """For each scale the training images, and those of the held-out ones to score on; validation is for the end alone.

    Crops are of the full size, as a folded network is for images of one.
    """
    spec, seed = subject.context.experiment.data, subject.context.experiment.seed
    parts: dict[float, tuple[Dataset, Dataset]] = {}
    stride = subject.model.output_stride
    for scale in (1.0, proxy.SMALL_SHARE):
        size = (round(spec.size[0] * scale), round(spec.size[1] * scale))
        if scale != 1 and (min(spec.size) < SMALL_IMAGE or size[0] % stride or size[1] % stride):
            continue  # too little is left of it, or its maps would not be those of the full size, only smaller
        try:
            data = open_data(spec.spec, "train", size, seed=seed, count=spec.train, crops=Crops(None, spec.scales))
        except ConfigError:
            continue  # a data set that cannot be drawn so small
        seen, unseen = spec.split_training(data)
        parts[scale] = seen, evenly_spaced(unseen, settings.scoring_images)
    return parts
