"""From what the runs hold to what the study says: differences and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from deploy.lcpaq.records import ShippedRecord
from deploy.run.records import AgreementRecord, FinalRecord, RunState
from deploy.run.settings.deployment import TEACHER, TEACHER_PLUS
from deploy.studies.ablation import NOTHING
from deploy.studies.camvid.conduct import StepRecord, ended, output
from deploy.studies.camvid.evidence import (
    FINAL,
    FINISHED,
    IMAGES,
    PLAIN,
    WITHOUT,
    FinishedRun,
    ModelEvidence,
    ablated,
    at_one_width,
    both_ways,
    compared,
    finished_controls,
    policy_of_layers,
    write_images,
)
from deploy.studies.camvid.plan import (
    ABLATION,
    ANYWHERE,
    CONTROLLED,
    FINISHED_CONTROLS,
    LCPAQ_SHARES,
    StudyStep,
    finish_step,
    hard_step,
    lcpaq_step,
    run_name,
)
from deploy.studies.camvid.plan import steps as planned
from deploy.studies.camvid.record import (
    CamvidRecord,
    Control,
    OneWidth,
    PartOfRecipe,
    Ranking,
    RunAgreement,
    SameRecipe,
    StageCost,
    StudiedModel,
    StudyClaim,
    Verdict,
)
from deploy.studies.ranking_record import RankingRecord
from nas.estimate import Estimate
from nas.tasks.counted import Counted, trained_difference

BLOCK = 10  # consecutive frames
MARGIN = -1.0  # points


def verdict(difference: Estimate) -> Verdict:
    """By its 95 % interval."""
    if difference.low > 0:
        return "better"
    return "without loss" if difference.low > MARGIN else "undecided"


@dataclass(frozen=True, eq=False)
class StudyFindings:
    """What runs hold, of one machine or of several: all that the record is concluded from."""

    evidence: tuple[ModelEvidence, ...] = ()
    models: tuple[StudiedModel, ...] = ()
    controls: tuple[Control, ...] = ()
    widths: tuple[OneWidth, ...] = ()
    ablation: tuple[PartOfRecipe, ...] = ()
    agreements: tuple[RunAgreement, ...] = ()
    costs: tuple[StageCost, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    ceiling: float | None = None
    steps: tuple[StepRecord, ...] = ()


def collect(steps: Sequence[StudyStep], seeds: Sequence[int], out: Path, controls: int | None = None) -> CamvidRecord:
    """What is done so far: camvid.json, and every image's confusions in camvid.parquet. `controls` as of the steps."""
    return publish(_gather(steps, seeds, out, seeds[0] if controls is None else controls), out)


def publish(found: StudyFindings, out: Path) -> CamvidRecord:
    """Conclude, and write both files into the folder `out`."""
    record = CamvidRecord(
        block=BLOCK,
        margin=MARGIN,
        claims=tuple(_claims(found)),
        models=found.models,
        controls=found.controls,
        widths=found.widths,
        agreements=found.agreements,
        costs=found.costs,
        rankings=tuple(sorted(found.rankings, key=lambda ranking: -ranking.tau_b)),
        ceiling=found.ceiling,
        steps=found.steps,
        same_recipe=tuple(_same_recipe(found.evidence)),
        ablation=found.ablation,
    )
    record.write(out / CamvidRecord.FILE)
    write_images(found.evidence, out / IMAGES)
    return record


def _gather(steps: Sequence[StudyStep], seeds: Sequence[int], out: Path, controlled: int) -> StudyFindings:
    known = [one for step in steps if (one := ended(step, out))]
    general = {step.name: step.command for step in planned(*ANYWHERE, seeds, controlled)}
    done = {one.name for one in known if one.code == 0}
    runs = [
        FinishedRun.read(out / run_name(seed), seed)
        for seed in seeds
        if (out / run_name(seed) / FinalRecord.FILE).exists() and run_name(seed) in done
    ]
    evidence = [one for run in runs for one in run.evidence.values()]
    parts: list[PartOfRecipe] = []
    for seed in seeds:
        if finish_step(seed) in done:
            evidence += both_ways(out / run_name(seed), seed)
        if hard_step(seed) in done or (seed == controlled and ABLATION in done):
            models = list(ablated(out / run_name(seed), seed))
            parts += _parts(models)
            evidence += models
    controls: list[Control] = []
    widths: Sequence[OneWidth] = ()
    rankings: list[Ranking] = []
    ceiling = None
    for first in (run for run in runs if run.seed == controlled):
        folder = out / run_name(controlled)
        for budget in CONTROLLED:
            if f"controls-{budget}" in done:
                with_steps = finished_controls(folder, controlled) if FINISHED_CONTROLS in done else {}
                ours = [one for one in evidence if (one.seed, one.kind, one.name) == (controlled, FINISHED, budget)]
                rows = list(_controls(first, folder, budget, with_steps, ours))
                controls += [control for control, _ in rows]
                evidence += [one for _, found in rows for one in found]
        pairs: list[tuple[OneWidth, ModelEvidence | None]] = []
        pairs += _widths(first, folder) if "widths" in done else ()
        pairs += _policies(first, {step.name: step for step in steps if step.name in done}, out)
        widths = [width for width, _ in pairs]
        evidence += [one for _, one in pairs if one]
        if "ranking" in done:
            ranked = RankingRecord.read(folder / RankingRecord.FILE)
            rankings = [Ranking(first.seed, way, one.tau_b, one.tau_b_ci95) for way, one in ranked.rank.items()]
            ceiling = ranked.noise_ceiling.tau_b if ranked.noise_ceiling else None
    return StudyFindings(
        evidence=tuple(evidence),
        models=tuple(model for run in runs for model in _models(run)),
        controls=tuple(controls),
        widths=tuple(widths),
        ablation=tuple(parts),
        agreements=tuple(_agreement(out, run.seed) for run in runs),
        costs=tuple(cost for run in runs for cost in _costs(out, run.seed)),
        rankings=tuple(rankings),
        ceiling=ceiling,
        steps=tuple(replace(one, command=general[one.name]) for one in known),
    )


def _models(run: FinishedRun) -> Iterator[StudiedModel]:
    teacher = run.teacher
    for model in (*run.final.models, run.final.teacher_plus):
        size, latency = model.size_bits / teacher.size_bits, model.latency_us.median / teacher.latency_us.median
        measured = {v.name: v.share.value for v in run.final.budgets if v.quantity == "latency"}
        score = run.evidence[model.name].counted.score
        yield StudiedModel(run.seed, model.name, model.subnet, score, size, measured.get(model.name, latency))


def _claims(found: StudyFindings) -> Iterator[StudyClaim]:
    for name in dict.fromkeys(model.name for model in found.models):
        if name == TEACHER_PLUS:
            continue
        models = [model for model in found.models if model.name == name]
        seeds = tuple(model.seed for model in models)
        ours, theirs = (_counted(found.evidence, FINAL, one, seeds) for one in (name, TEACHER_PLUS))
        difference = trained_difference(ours, theirs, block=BLOCK)
        size = fmean(model.size_share for model in models)
        latency = fmean(model.latency_share for model in models)
        yield StudyClaim(name, seeds, difference, verdict(difference), size, latency)


def _same_recipe(evidence: Sequence[ModelEvidence]) -> Iterator[SameRecipe]:
    both = [one for one in evidence if one.kind == PLAIN]
    for name in dict.fromkeys(one.name for one in both):
        seeds = tuple(one.seed for one in both if one.name == name)
        ours = [_counted(evidence, way, name, seeds) for way in (PLAIN, FINISHED)]
        theirs = [_counted(evidence, way, TEACHER_PLUS, seeds) for way in (PLAIN, FINISHED)]
        plain, finished = (
            trained_difference(mine, other, block=BLOCK) for mine, other in zip(ours, theirs, strict=True)
        )
        yield SameRecipe(name, seeds, plain, finished, *(fmean(one.score for one in way) for way in ours))


def _counted(evidence: Sequence[ModelEvidence], kind: str, name: str, seeds: Sequence[int]) -> list[Counted]:
    found = {one.seed: one for one in evidence if (one.kind, one.name) == (kind, name)}
    return [found[seed].counted for seed in seeds]


def _controls(
    run: FinishedRun,
    folder: Path,
    budget: str,
    finished: Mapping[str, ModelEvidence],
    ours_finished: Sequence[ModelEvidence],
) -> Iterator[tuple[Control, list[ModelEvidence]]]:
    """Each with what it is of; `finished`: by the retraining's key; `ours_finished`: the selected model's, or none."""
    ours, teacher = run.evidence[budget].counted, run.teacher
    for method, evidence in compared(folder, run.seed, budget):
        control = Control(
            run.seed,
            budget,
            method.method,
            method.subnet,
            evidence.counted.score,
            method.size_bits / teacher.size_bits,
            trained_difference([ours], [evidence.counted], block=BLOCK),
            {step: seconds.cpu_s for step, seconds in method.spent.items()},
        )
        again = [one for key in method.retrained[:1] if (one := finished.get(key))]
        for mine, other in zip(ours_finished, again, strict=False):
            difference = trained_difference([mine.counted], [other.counted], block=BLOCK)
            control = replace(control, finished_score=other.counted.score, finished_found=difference)
        yield control, [evidence, *again]


def _widths(run: FinishedRun, folder: Path) -> Iterator[tuple[OneWidth, ModelEvidence]]:
    theirs = run.evidence[TEACHER_PLUS].counted
    for model, evidence in at_one_width(folder, run.seed):
        difference = trained_difference([evidence.counted], [theirs], block=BLOCK)
        share = model.size_bits / run.teacher.size_bits
        yield OneWidth(run.seed, model.name, model.bits, model.score, share, difference), evidence


def _parts(models: Sequence[ModelEvidence]) -> Iterator[PartOfRecipe]:
    """Each against the same model with the whole recipe, and against the teacher trained on without the same part."""
    made = {(one.name, one.kind.removeprefix(WITHOUT)): one for one in models}
    for (name, without), one in made.items():
        change = trained_difference([one.counted], [made[name, NOTHING].counted], block=BLOCK)
        against = None
        if name != TEACHER_PLUS and (theirs := made.get((TEACHER_PLUS, without))):
            against = trained_difference([one.counted], [theirs.counted], block=BLOCK)
        yield PartOfRecipe(one.seed, name, without, one.counted.score, change, against)


def _policies(
    run: FinishedRun, done: dict[str, StudyStep], out: Path
) -> Iterator[tuple[OneWidth, ModelEvidence | None]]:
    """LCPAQ's, a width for each layer; no image's result is kept where a board gave no outputs."""
    for model, share in ((TEACHER, LCPAQ_SHARES[0]), *((CONTROLLED[-1], share) for share in LCPAQ_SHARES)):
        if not (step := done.get(lcpaq_step(model, share))):
            continue
        shipped = ShippedRecord.from_json(output(step, out)["shipped"], step.name)
        size, evidence, difference = shipped.size_bits / run.teacher.size_bits, None, None
        if shipped.evaluation:
            evidence = policy_of_layers(out / run_name(run.seed), run.seed, model, share, shipped.evaluation)
            theirs = run.evidence[TEACHER_PLUS].counted
            difference = trained_difference([evidence.counted], [theirs], block=BLOCK)
        yield OneWidth(run.seed, f"{model}, LCPAQ at {share} %", None, shipped.int8, size, difference), evidence


def _costs(out: Path, seed: int) -> Iterator[StageCost]:
    for stage, state in RunState.read(out / run_name(seed) / RunState.FILE).stages.items():
        yield StageCost(seed, stage, state.seconds, state.cpu_seconds)


def _agreement(out: Path, seed: int) -> RunAgreement:
    found = AgreementRecord.read(out / run_name(seed) / AgreementRecord.FILE).agreement
    return RunAgreement(seed, found.n_models, found.tau_b, found.ci95, found.ceiling_tau_b)
