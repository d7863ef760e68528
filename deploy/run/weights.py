"""A run's supernets as `hilnas compile` writes subnets from them: calibrated as the run calibrates."""

from __future__ import annotations

import torch

from deploy.compile.subtrees import IMAGES, boundaries
from deploy.compile.weights import Origin, trained
from deploy.run.context import Context
from hil.errors import UsageError
from nas.nsr import batches
from nas.quant.scheme import Scheme
from nas.training.threads import one_thread
from nas.training.train import load


def of_run(context: Context, scheme: Scheme) -> Origin:
    """A run's trained weights, calibrated as the run calibrates them: on the teacher's feature maps of its images."""
    for stage, name in (("teacher", "teacher.pt"), ("distil", "supernets.pt")):
        path = context.path / name
        if not path.is_file():
            raise UsageError(f"{path}: no such file; --weights with --config takes the supernets.pt of a run's folder")
        if load(path)["key"] != context.keys[stage]:
            raise UsageError(
                f"{path}: trained under other settings than those of --config; give the configuration of that run"
            )
    checkpoint, data = context.path / "supernets.pt", context.experiment.data
    plain = trained(context.space, data.size, scheme, checkpoint)
    with one_thread():  # and as many images at a time as for the run's tables
        calibration, evaluation = (
            [torch.cat(maps) for maps in zip(*boundaries(context.teacher, batches(images, IMAGES)), strict=True)]
            for images in (context.calibration, context.evaluation)
        )
    maps = tuple(x.contiguous().numpy() for x in calibration[:-1])
    golden = tuple(x[:1].contiguous().numpy() for x in evaluation[:-1])
    return Origin(context.space, data.size, scheme, plain.weights, data.spec, checkpoint, maps, golden)
