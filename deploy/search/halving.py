"""The best candidates fine-tuned briefly, the rest dropped: what is seen after some training decides among the last.

Scores are of the deployed integers on held-out training images. What is done is in RUN/finetuned/scores.jsonl, shared
by budgets and with the accuracy predictor where both train alike.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from deploy.compile.scheme import QuantizationScheme
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.search.candidate import Candidate
from deploy.search.fine_tuning import TrainingPlan, brief, fine_tunings, finished
from nas.space import Architecture


def halved(
    context: Context, budget_name: str, candidates: Sequence[Candidate]
) -> Generator[Progress, None, list[Candidate]]:
    """The first `[search] finalists` of `candidates` with their scores, best first; all as they are if that is 0."""
    settings = context.experiment.search
    finalists = list(candidates[: settings.finalists])
    if not finalists:
        return list(candidates)
    schedule = brief(context.experiment, settings.finalist_schedule)
    by_scheme: dict[QuantizationScheme | None, list[Architecture]] = {}
    for candidate in finalists:
        by_scheme.setdefault(candidate.scheme, []).append(candidate.architecture)
    scores: dict[tuple[QuantizationScheme | None, Architecture], float] = {}
    for scheme, architectures in by_scheme.items():
        plan = TrainingPlan(schedule, scheme)
        before = len(scores) + len(finished(context, plan, architectures))
        for i, one in enumerate(fine_tunings(context, plan, architectures), start=before + 1):
            yield Progress("search", i, len(finalists), f"{budget_name}: {one.score:.2f} % {one.subnet}")
        done = finished(context, plan, architectures)
        scores |= {(scheme, architecture): one.score for architecture, one in done.items()}
    scored = [replace(c, score=scores[c.scheme, c.architecture]) for c in finalists]
    return sorted(scored, key=lambda candidate: -scores[candidate.scheme, candidate.architecture])
