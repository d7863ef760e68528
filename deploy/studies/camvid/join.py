"""Join what several machines published of the study, each of other seeds, as if one had made all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from deploy.studies.camvid.evidence import IMAGES, read_images
from deploy.studies.camvid.findings import BLOCK, MARGIN, StudyFindings, publish
from deploy.studies.camvid.record import CamvidRecord
from hil.errors import UsageError


def join(folders: Sequence[Path], out: Path) -> CamvidRecord:
    """camvid.json and camvid.parquet of `out` from those of `folders`.

    Raises `UsageError` where two have the same of one seed, rules or images differ, or two seeds have rankings.
    """
    parts = [_published(folder) for folder in folders]
    found = StudyFindings(
        evidence=tuple(sorted(chain(*(part.evidence for part in parts)), key=lambda one: one.seed)),
        models=tuple(sorted(chain(*(part.models for part in parts)), key=lambda one: one.seed)),
        controls=tuple(chain(*(part.controls for part in parts))),
        widths=tuple(chain(*(part.widths for part in parts))),
        ablation=tuple(chain(*(part.ablation for part in parts))),
        agreements=tuple(sorted(chain(*(part.agreements for part in parts)), key=lambda one: one.seed)),
        costs=tuple(sorted(chain(*(part.costs for part in parts)), key=lambda one: one.seed)),
        rankings=tuple(chain(*(part.rankings for part in parts))),
        ceiling=next((part.ceiling for part in parts if part.ceiling is not None), None),
        steps=tuple(chain(*(part.steps for part in parts))),
    )
    _check(found, folders)
    return publish(found, out)


def _published(folder: Path) -> StudyFindings:
    if not (folder / CamvidRecord.FILE).is_file():
        raise UsageError(f"{folder}: no {CamvidRecord.FILE}; give a folder that `hilnas study camvid` wrote")
    record, images = CamvidRecord.read(folder / CamvidRecord.FILE), folder / IMAGES
    if (record.block, record.margin) != (BLOCK, MARGIN):
        raise UsageError(
            f"{folder}: its verdicts are by blocks of {record.block} frames and {record.margin:+} points, not by "
            f"today's {BLOCK} and {MARGIN:+}; make it again with this version of hilnas"
        )
    evidence = tuple(read_images(images))
    known = {(one.seed, one.name) for one in evidence}
    if missing := [f"{one.name} of seed {one.seed}" for one in record.models if (one.seed, one.name) not in known]:
        raise UsageError(
            f"{images}: no results of {missing[0]}, which {CamvidRecord.FILE} has; give the pair as written"
        )
    return StudyFindings(
        evidence=evidence,
        models=record.models,
        controls=record.controls,
        widths=record.widths,
        ablation=record.ablation,
        agreements=record.agreements,
        costs=record.costs,
        rankings=record.rankings,
        ceiling=record.ceiling,
        steps=record.steps,
    )


def _check(found: StudyFindings, folders: Sequence[Path]) -> None:
    where = ", ".join(map(str, folders))
    twice = [of for of, n in Counter((one.seed, one.kind, one.name) for one in found.evidence).items() if n > 1]
    if twice:
        seed, kind, name = twice[0]
        raise UsageError(f"{where}: two have '{name}' ({kind}) of seed {seed}; join results of different seeds")
    if len({len(one.confusions) for one in found.evidence}) > 1:
        raise UsageError(f"{where}: their results are of different images; join results of the same data")
    if len({one.seed for one in found.rankings}) > 1:
        raise UsageError(f"{where}: rankings of more than one seed; join one of them")
