"""Why each stage of a run is done again, or not: `hilnas loop --explain`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deploy.pipeline.loop import missing_files, stages_of
from deploy.run.context import Context
from deploy.run.keys import StageIdentity
from deploy.run.records import StageState
from deploy.run.schemes import STAGE as SCHEMES

NOTHING = "nothing"
FEW_FILES = 3


@dataclass(frozen=True)
class Change:
    """A setting, and what it was and is, as JSON has it; None: it was, or is, not there."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = (NOTHING if value is None else json.dumps(value) for value in (self.old, self.new))
        return f"{self.name}: {old} -> {new}"


@dataclass(frozen=True)
class StageExplanation:
    """Whether a stage will run, and why.

    Attributes:
        begun: it was run under some settings before; interrupted: under the present ones, and did not end.
        changes: settings that are other ones since; versions: the stage's then and now, where they differ.
        missing: files that it made and that are not there.
        after: the first earlier stage that runs; since: the stage before, which was run again on its own since.
        decided: what the stage is to do that no configuration says.
    """

    stage: str
    runs: bool
    begun: bool = False
    interrupted: bool = False
    changes: tuple[Change, ...] = ()
    versions: tuple[int, int] | None = None
    missing: tuple[str, ...] = ()
    after: str | None = None
    since: str | None = None
    decided: str | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self._verdict()}{f' ({self.decided})' if self.decided else ''}"

    def _verdict(self) -> str:
        if not self.runs:
            return "done"
        if not self.begun:
            return "runs: never run yet"
        reasons = [str(change) for change in self.changes]
        if self.versions:
            reasons.append(f"the stage's version was raised: {self.versions[0]} -> {self.versions[1]}")
        if self.missing:
            more = f" and {len(self.missing) - FEW_FILES} more" if len(self.missing) > FEW_FILES else ""
            reasons.append(f"missing: {', '.join(self.missing[:FEW_FILES])}{more}")
        if self.after:
            reasons.append(f"{self.after} runs again")
        if self.since:
            reasons.append(f"{self.since} ran again since")
        if self.interrupted:
            reasons.append("it was interrupted, or a stage before it ran again since")
        return f"runs: {'; '.join(reasons)}"


def explain(context: Context) -> list[StageExplanation]:
    """An explanation for each stage that the configuration has, in their order; runs nothing."""
    explained: list[StageExplanation] = []
    again = None
    for i, stage in enumerate(stages_of(context)):
        state, identity = context.run.stages.get(stage), context.identities[stage]
        if state is None:
            one = StageExplanation(stage, runs=True, after=again)
        else:
            before = explained[i - 1].stage if i else None
            one = _explanation(state, identity, missing_files(context, stage), again, before)
        explained.append(replace(one, decided=_decided(context, stage)))
        if one.runs and again is None:
            again = stage
    return explained


def _decided(context: Context, stage: str) -> str | None:
    """Which schemes the board's target brings, where the configuration leaves them open."""
    if stage != SCHEMES or not context.target_schemes or context.target is None:
        return None
    named = ", ".join(map(str, context.experiment.quantization.other_schemes))
    return f"{named}: by the board's target {context.target.name}"


def _explanation(
    state: StageState, identity: StageIdentity, missing: list[str], again: str | None, before: str | None
) -> StageExplanation:
    """`again`: the first earlier stage that runs; `before`: the stage before."""
    changes: tuple[Change, ...] = ()
    versions, since, same = None, None, state.key == identity.key
    if not same:
        changes = changed_settings(state.settings, identity)
        versions = (state.version, identity.version) if state.version != identity.version else None
        if not changes and versions is None and again is None:
            since = before  # with `--until`
    runs = not same or not state.done or bool(missing) or again is not None
    return StageExplanation(
        identity.stage,
        runs,
        begun=True,
        interrupted=same and not state.done and not missing and again is None,
        changes=changes,
        versions=versions,
        missing=tuple(missing) if same and state.done else (),
        after=again,
        since=since,
    )


def changed_settings(old: Mapping[str, Any], identity: StageIdentity) -> tuple[Change, ...]:
    """What is another value than it was. An option that came since, at its default, is no change."""
    new = {setting.name: setting for setting in identity.settings}
    found = [Change(name, value, new[name].value if name in new else None) for name, value in old.items()]
    found += [Change(s.name, None, s.value) for s in identity.settings if s.name not in old and s.given]
    return tuple(change for change in found if change.old != change.new)
