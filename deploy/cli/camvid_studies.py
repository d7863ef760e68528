"""`hilnas study camvid|join|patches`: real street images, as docs/camvid.md has them, and to classify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind, whole_numbers
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.studies.camvid.record import CamvidRecord


@dataclass(frozen=True, kw_only=True)
class CamvidOptions:
    """The study of docs/camvid.md.

    Attributes:
        data, encoder_from: as of a run; `out`: the folder of its runs.
        seeds: of the paired runs; `controls`: the one with controls and rankings, None: the first.
        only: steps to take, separated by commas; None: all.
        plan: show the steps and take none.
    """

    data: str
    encoder_from: Path
    out: Path = Path("runs/camvid-study")
    seeds: str = "0,1,2,3,4"
    controls: int | None = None
    only: str | None = None
    plan: bool = False


@dataclass(frozen=True, kw_only=True)
class StudyJoinOptions:
    """`folders`: with what `hilnas study camvid` wrote; `out`: the new folder."""

    folders: list[Path]
    out: Path


@dataclass(frozen=True, kw_only=True)
class PatchesOptions:
    """`data`: of a segmentation data set; `size`: of its images, as HxW; `out`: the new folder."""

    data: str
    out: Path
    size: str = "360x480"
    side: int = 48


def add(studies: Commands) -> None:
    _add_camvid(studies)
    _add_join(studies)
    _add_patches(studies)


def _add_camvid(studies: Commands) -> None:
    camvid = studies.add_parser(
        "camvid",
        help="real street images: selected models against the teacher trained on, controls and rivals; a day",
        description="Takes the steps of docs/camvid.md, each a command of its own that is shown with the time that it "
        "takes, then compares by the rules there. Killed at any moment, the same command goes on.",
    )
    camvid.add_argument("--data", required=True, metavar="camvid:FOLDER", help="CamVid, 367 and 101 images")
    camvid.add_argument(
        "--encoder-from", type=Path, required=True, metavar="FILE.tflite", help="a public INT8 MobileNetV2"
    )
    default = CamvidOptions.out
    camvid.add_argument("--out", type=Path, default=default, metavar="DIR", help="of its runs (default %(default)s)")
    camvid.add_argument(
        "--seeds", default=CamvidOptions.seeds, metavar="A,B", help="of the paired runs (default %(default)s)"
    )
    camvid.add_argument(
        "--controls", type=int, metavar="SEED", help="the run that has controls and rankings (default: the first)"
    )
    camvid.add_argument("--only", metavar="STEP,STEP", help="take these steps alone, of those that --plan lists")
    camvid.add_argument("--plan", action="store_true", help="show the steps, and how long they take")
    bind(camvid, CamvidOptions, camvid_study)


def _add_join(studies: Commands) -> None:
    join = studies.add_parser(
        "join",
        help="seeds of the CamVid study that were made on several machines, as one",
        description="Joins camvid.json and camvid.parquet of several folders, each of other seeds.",
    )
    join.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="with camvid.json and camvid.parquet")
    join.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the joined files")
    bind(join, StudyJoinOptions, join_studies)


def _add_patches(studies: Commands) -> None:
    patches = studies.add_parser(
        "patches",
        help="cut a classification data set of real images out of a segmentation one",
        description="Squares that show one class, as folders per class: for --data folders:DIR.",
    )
    patches.add_argument("--data", required=True, metavar="camvid:FOLDER", help="of a segmentation data set")
    patches.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder")
    patches.add_argument(
        "--size", default=PatchesOptions.size, metavar="HxW", help="of the images (default %(default)s, CamVid's own)"
    )
    patches.add_argument(
        "--side", type=int, default=PatchesOptions.side, metavar="N", help="of a square in pixels (default %(default)s)"
    )
    bind(patches, PatchesOptions, cut_patches)


def camvid_study(options: CamvidOptions) -> int:
    """The exit code: 1 where a check of a step does not hold."""
    from deploy.studies.camvid.conduct import conduct, ended, left
    from deploy.studies.camvid.findings import collect
    from deploy.studies.camvid.plan import chosen, steps

    seeds = list(dict.fromkeys(whole_numbers("--seeds", options.seeds)))
    planned = steps(options.data, options.encoder_from, options.out, seeds, options.controls)
    todo = left(chosen(planned, options.only), options.out)
    for step in planned:
        takes = f"{step.minutes} min" if step in todo else "done" if ended(step, options.out) else "-"
        console.say(f"{step.name:18} {takes:>8}  {step.command}")
    console.say(f"{len(todo)} steps to take, about {sum(step.minutes for step in todo) / 60:.1f} h on one core")
    if options.plan:
        return 0
    failed = []
    for step, record in conduct(todo, options.out):
        if record is None:
            console.say(f"{step.name}: {step.command}")
        elif record.code:
            failed.append(step.name)
    _show(collect(planned, seeds, options.out, options.controls), options.out)
    if failed:
        console.warn(f"a check did not hold in {', '.join(failed)}; what needs that was left out")
    return int(bool(failed))


def join_studies(options: StudyJoinOptions) -> int:
    """The exit code."""
    from deploy.studies.camvid.join import join

    _show(join(options.folders, options.out), options.out)
    return 0


def _show(record: CamvidRecord, out: Path) -> None:
    from deploy.studies.camvid.tables import rows

    for row in rows(record):
        console.say(row)
    console.say(f"written to {out / record.FILE}")


def cut_patches(options: PatchesOptions) -> int:
    """The exit code."""
    from deploy.cli.compile import parse_size
    from deploy.studies.patches import Patches, write_patches

    size = parse_size(options.size)
    if not 1 <= options.side <= min(size):
        raise UsageError(f"--side {options.side}: give 1 to {min(size)}, of images of {options.size}")
    console.follow(write_patches(options.data, Patches(size, options.side), options.out))
    console.say(f"written to {options.out}: train with --data folders:{options.out}")
    return 0
