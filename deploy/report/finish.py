"""The report of a run that has just ended: its pictures are made, then its page is written."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from deploy.compile.artifact import Artifact
from deploy.report.gallery import make_gallery
from deploy.report.page import write_report
from deploy.report.repeat import write_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import Summary
from hil.errors import HilError
from nas.errors import NasError

logger = logging.getLogger(__name__)


def report_run(context: Context, summary: Summary) -> Iterator[Progress]:
    """experiment.json, gallery/ and report.html in the run's folder.

    A page without pictures is better than none: what they cannot be made from is logged.
    """
    write_experiment(context.path, context.experiment, context.space)
    files = {model.name: Artifact.at(context.path / "models", model.name).model for model in summary.all_models}
    shown = summary.bundle.model if summary.bundle.model in files else summary.all_models[-1].name
    reference = summary.teacher_plus.name
    try:
        yield from make_gallery(context.path, context.val_data, files, (reference, shown), context.experiment.seed)
    except (HilError, NasError, OSError) as error:
        logger.warning("the report has no pictures: %s", error)
    write_report(context.path)
