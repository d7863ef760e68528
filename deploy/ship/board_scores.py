"""The final models' metric from the board's own answers to the validation images."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from deploy.compile.canary import known_good
from deploy.formats.digest import file_digest
from deploy.formats.journal import Journal
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import BoardScore
from deploy.ship.evaluated_models import model_on
from deploy.ship.evaluation import BOARD, ImageScore, counted_on, image_name, image_scores
from deploy.ship.evaluation_record import (
    EvaluatedImages,
    EvaluationRecord,
    ScoredImages,
    evaluation_path,
    images_key,
)
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import ModelError
from hil.sessions import JobSession, open_session
from nas.tasks.counted import Counted, paired_difference, score_of

logger = logging.getLogger(__name__)


def gives_outputs(board: BoardConfig) -> bool:
    """Whether models run there whose outputs can be read: not on a replay, nor through benchmark_model."""
    return board.kind != "replay" and board.driver == "python"


def board_scores(
    context: Context, models: Mapping[str, tuple[Path, Counted]], done: int, stage: str = "ship"
) -> Generator[Progress, None, dict[str, BoardScore]]:
    """By name the score of each model: of its file, beside its integers' counts on the validation images.

    Nothing where the board gives no outputs. Goes on from the journals in evaluations/ of the run's folder, and writes
    each model's record beside its journal. `done`: how many of the steps of `stage` were.
    Raises BoardError, `ModelError` for a model that fails on every image.
    """
    found: dict[str, BoardScore] = {}
    if not gives_outputs(context.board):
        logger.warning("board %s gives no outputs: no metric of its own answers", context.board.name)
        return found
    with open_board(context.board) as board, open_session(board) as session:
        for name, (path, int8) in models.items():
            found[name] = _score(context, session, name, path, int8)
            yield Progress(stage, done + len(found), done + len(models) + 1, f"{name} scored on {board.name}")
    return found


def _score(context: Context, session: JobSession, name: str, path: Path, int8: Counted) -> BoardScore:
    data, where = context.val_data, session.board.name
    model = model_on(path, data, name)
    key = images_key(file_digest(path), model.input.text, model.output.text, session.conditions)
    journal = Journal(context.path / "evaluations" / f"{name}.jsonl", ImageScore, key)
    canary = known_good(context.path / "canary")
    scores = sorted(image_scores(model, data, {BOARD: session}, journal, canary=canary), key=lambda s: s.index)
    well = [score for score in scores if score.failure is None]
    failed = [score for score in scores if score.failure is not None]
    if not well:
        raise ModelError(f"{name} on {where}: fails on all {len(scores)} validation images: {failed[0].failure}")
    if failed:
        logger.warning(
            "%s on %s: failed on %d of %d validation images, which count in no score there; first %s: %s",
            name, where, len(failed), len(scores), image_name(data, failed[0].index), failed[0].failure,
        )  # fmt: skip
    images = EvaluatedImages(context.experiment.data.name, "val", data.size, len(well), data.classes)
    record = EvaluationRecord.of(model, ScoredImages.of(data, scores, name), images, session.conditions)
    record.write(evaluation_path(context.path, name))
    counted = counted_on(data, [score.confusions[BOARD] for score in well])
    difference = paired_difference([counted], [_at(int8, [score.index for score in well])])
    return BoardScore(score_of(counted), difference, tuple(image_name(data, score.index) for score in failed))


def _at(counted: Counted, images: Sequence[int]) -> Counted:
    """The counts of these images."""
    return Counted(counted.hits[list(images)], counted.totals[list(images)])
