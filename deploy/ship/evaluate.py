"""An evaluation in a folder of its own: its journal goes on where it was stopped, its record and matrices are written.

FOLDER/images.jsonl         each image as it is scored
FOLDER/evaluation.json      the metric, its doubt, the images that differ most and those that failed
FOLDER/confusions.parquet   each image's confusion matrices
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.compile.canary import known_good
from deploy.formats.digest import digest, file_digest
from deploy.formats.journal import Journal
from deploy.run.folder import Progress
from deploy.ship.evaluated_models import ImagesAsked
from deploy.ship.evaluation import BOARD, HOST, INTEGER, EvaluatedModel, ImageScore, image_scores
from deploy.ship.evaluation_record import (
    CONFUSIONS,
    EvaluatedImages,
    EvaluationRecord,
    OtherModel,
    ScoredImages,
    write_confusions,
)
from hil.boards.catalog import BUILT_IN
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import UsageError
from hil.sessions import JobSession, open_session
from nas.data import Dataset
from nas.quant.arithmetic import LITERT

JOURNAL, LOCK = "images.jsonl", ".lock"
STAGE = "evaluate"


@dataclass(frozen=True, eq=False)
class Finished:
    """A model's evaluation: its record as written, and the counts behind it."""

    record: EvaluationRecord
    evaluated: ScoredImages


def evaluate(
    model: EvaluatedModel,
    data: Dataset,
    images: ImagesAsked,
    board: BoardConfig | None,
    folder: Path,
    *,
    retry_failed: bool = False,
) -> Generator[Progress, None, Finished]:
    """Score `data` by the board (None: by none) and by what stands beside it; goes on from the folder's journal.

    A file whose integers are not known is run by this machine's runtime too. `retry_failed`: images that failed before
    are run again. Raises UsageError, BoardError,
    ModelError, DataError; what was scored by then is not scored again.
    """
    total = len(data)
    yield Progress(STAGE, 0, total, "starts")
    with ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        devices = {BOARD: board} if board else {}
        if INTEGER not in model.others:
            devices[HOST] = BUILT_IN["loopback"]
        sessions = {name: stack.enter_context(_session(config)) for name, config in devices.items()}
        sha256 = file_digest(model.path)
        journal = Journal(folder / JOURNAL, ImageScore, _key(model, sha256, sessions))
        scores: list[ImageScore] = []
        canary = known_good(Path(stack.enter_context(tempfile.TemporaryDirectory()))) if sessions else None
        for score in image_scores(model, data, sessions, journal, canary=canary, retry_failed=retry_failed):
            scores.append(score)
            yield Progress(STAGE, len(scores), total, f"{model.name}: image {score.index}")
        conditions = model.job.under(sessions[BOARD].conditions) if board else None
    evaluated = ScoredImages.of(data, sorted(scores, key=lambda score: score.index), model.name)
    scored = EvaluatedImages(images.spec, images.split, data.size, len(evaluated.well), data.classes)
    record = EvaluationRecord.of(model, evaluated, scored, conditions)
    write_confusions(folder / CONFUSIONS, evaluated)
    record.write(folder / EvaluationRecord.FILE)
    yield Progress(STAGE, total, total, "done")
    return Finished(record, evaluated)


def evaluation_folder(out: Path, model: EvaluatedModel, images: ImagesAsked, board: BoardConfig | None) -> Path:
    """The folder within `out` of this evaluation alone, so that it goes on."""
    asked = (file_digest(model.path), images.spec, images.split, images.seed, images.count, board and board.name)
    return out / f"{model.name}-{digest(*asked, model.input.text)[:8]}"


def compared(ours: Finished, theirs: Finished) -> tuple[OtherModel, ...]:
    """The first model's metric less the second's, by each predictor that both have."""
    simulated = {INTEGER, HOST}
    found = []
    for name in ours.evaluated.counted:
        there = theirs.evaluated.counted
        other = next((o for o in there if o == name or {o, name} <= simulated), None)
        if other is not None:
            points = ours.evaluated.less(theirs.evaluated, name, other)
            found.append(OtherModel(theirs.record.model, theirs.record.model_sha256, name, other, points))
    return tuple(found)


def _key(model: EvaluatedModel, sha256: str, sessions: Mapping[str, JobSession]) -> str:
    """Of what a score depends on beside the image."""
    conditions = {name: session.conditions.key() for name, session in sessions.items()}
    others = [*sorted(model.others), *([model.arithmetic] if model.arithmetic != LITERT else [])]
    return digest(sha256, model.input.text, model.output.text, conditions, others)


@contextmanager
def _session(config: BoardConfig) -> Iterator[JobSession]:
    with open_board(config) as board, open_session(board) as session:
        yield session


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The folder, locked against a second process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{folder}: another hilnas evaluates there; wait for it or give --out") from None
        yield
