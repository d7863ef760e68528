"""`hilnas data check`: every file of a data set is read, before hours of training find the bad one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_json, bind
from hil.errors import CheckFailed

if TYPE_CHECKING:
    from deploy.run.folder import Progress
    from nas.data.report import DataReport, SplitReport, SplitTally

SIZE = (96, 128)  # of generated images; stored ones are read as they are
SHOWN = 3  # files that are named per line; --json has all
MOST_CLASSES = 60  # rows of the table of classes


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions:
    """Which data set, and how it is read.

    Attributes:
        spec: as the configuration's `data.spec`.
        split: the only one to look at; None: both.
        threads: that read files; None: four more than cores.
    """

    spec: str
    split: str | None = None
    threads: int | None = None
    json: bool = False


def add(commands: Commands) -> None:
    data = commands.add_parser(
        "data",
        help="check the files of a data set",
        description="What a data set holds, and whether all of its files can be used.",
    )
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "read every file: classes, sizes, label values, odd and bad files, pictures that are in both splits"
    check = actions.add_parser(
        "check",
        help=text,
        description=f"{sentence(text)} Exits 1 if a file cannot be used or a picture of val is in train too. The loop "
        "looks for bad files in what it trains on by itself, before the first step.",
    )
    check.add_argument("spec", metavar="SPEC", help="camvid:FOLDER, cityscapes:FOLDER, folders:FOLDER, scenes, shapes")
    check.add_argument("--split", metavar="train|val", help="only this split (default: both)")
    check.add_argument("--threads", type=int, metavar="N", help="that read files (default: four more than cores)")
    add_json(check)
    bind(check, CheckDataOptions, check_data)


def check_data(options: CheckDataOptions) -> int:
    """`CheckFailed` where a file cannot be used, or a picture is in both splits."""
    report = _read(options)
    if options.json:
        console.say_json(asdict(report))
    else:
        show(report)
    found = verdict(report)
    if found:
        raise CheckFailed(found)
    return 0


def _read(options: CheckDataOptions) -> DataReport:
    """The report on every sample, with progress."""
    from nas.data import SPLITS, open_data
    from nas.data.report import DataReport, SplitTally, in_both
    from nas.errors import ConfigError

    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"--threads {options.threads}: give at least 1")
    splits = (options.split,) if options.split else SPLITS
    opened = [(split, open_data(options.spec, split, SIZE, warn=False)) for split in splits]
    tallies = {split: SplitTally(data, split) for split, data in opened}
    reports: list[SplitReport] = []
    with console.progress() as show_progress:
        for tally in tallies.values():
            for step in _add_all(tally, options.threads):
                show_progress(step)
            reports.append(tally.report())
    data = opened[0][1]
    same = in_both(tallies["train"], tallies["val"]) if len(tallies) > 1 else ()
    return DataReport(options.spec, data.task, data.classes, tuple(reports), same)


def _add_all(tally: SplitTally, threads: int | None) -> Iterator[Progress]:
    from deploy.run.folder import Progress
    from nas.data.check import check_samples

    total = len(tally.data)
    yield Progress(tally.split, 0, total, "starts")
    for sample in check_samples(tally.data, threads=threads):
        tally.add(sample)
        yield Progress(tally.split, tally.checked, total, f"{len(tally.bad)} bad" if tally.bad else "")
    yield Progress(tally.split, total, total, "done")


def verdict(report: DataReport) -> str:
    """What does not hold, in one line; "" if all does."""
    bad = [text for split in report.splits for text in split.bad]
    images = sum(split.images for split in report.splits)
    parts = []
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        parts.append(f"{len(bad)} of {images} samples cannot be used: {bad[0]}{more}")
    if report.same:
        first, count = report.same[0], len(report.same)
        are = "picture of val is" if count == 1 else "pictures of val are"
        parts.append(
            f"{count} {are} in train too ({first.val} = {first.train}): a score on what was trained on says nothing;"
            " remove it from one split"
        )
    return "; ".join(parts)


def show(report: DataReport) -> None:
    """The splits, the classes, then a line for each thing that is odd, doubled or bad."""
    console.say(f"{report.spec}: {report.task}, {len(report.classes)} classes")
    columns = ("split", "images", "sizes (HxW)", "stored as", "label values", "unlabelled %", "odd", "bad")
    console.table(columns, map(_split_row, report.splits), left=columns[2:5])
    _show_classes(report)
    for split in report.splits:
        for odd in split.odd:
            count = len(odd.files)
            are = "image is" if count == 1 else "images are"
            console.say(f"{split.split}: {count} {are} {odd.what}: {_some(odd.files)}")
        if split.left_out:
            console.say(f"{split.split}: left out, as no image: {_some(split.left_out)}")
    if report.same:
        same = [f"{picture.val} = {picture.train}" for picture in report.same]
        console.say(f"in val and in train: {_some(same)}")
    for split in report.splits:
        for text in split.bad:
            console.say(f"bad: {text}")
    if not verdict(report):
        console.say("every file can be used")


def _split_row(split: SplitReport) -> tuple[str, ...]:
    pixels = split.unlabelled + sum(count.pixels for count in split.counts)
    unlabelled = f"{100 * split.unlabelled / pixels:.2f}" if pixels else ""
    odd = sum(len(one.files) for one in split.odd)
    numbers = (str(odd), str(len(split.bad)))
    return (
        split.split,
        str(split.images),
        _mix(split.sizes),
        _mix(split.stored_as),
        ", ".join(split.values),
        unlabelled,
        *numbers,
    )


def _mix(counts: Mapping[str, int]) -> str:
    """As "JPEG RGB", or where they differ the most frequent: "JPEG RGB (50), PNG L (3), 2 others"."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{what} ({count})" for what, count in list(counts.items())[:SHOWN]]
    rest = [f"{len(counts) - SHOWN} others"] if len(counts) > SHOWN else []
    return ", ".join([*shown, *rest])


def _show_classes(report: DataReport) -> None:
    """Each class's share of the pixels, and in how many images it is; of very many classes the rarest only."""
    dense = report.task == "segmentation"
    columns = ["class"]
    for split in report.splits:
        columns += [f"{split.split}: % of pixels"] * dense + [f"{split.split}: images"]
    order: Sequence[int] = range(len(report.classes))
    if len(order) > MOST_CLASSES:
        console.say(f"the {MOST_CLASSES} rarest classes of {len(order)} (--json has all):")
        order = sorted(order, key=lambda i: report.splits[0].counts[i].images)[:MOST_CLASSES]
    rows = []
    for i in order:
        row = [report.classes[i]]
        for split in report.splits:
            pixels = sum(count.pixels for count in split.counts)
            row += [f"{100 * split.counts[i].pixels / max(pixels, 1):.2f}"] * dense + [str(split.counts[i].images)]
        rows.append(row)
    console.table(columns, rows)


def _some(files: Sequence[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return ", ".join(files[:SHOWN]) + more
