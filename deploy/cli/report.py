"""`hilnas report`: the page of a run, of several side by side, or of one that is on."""

from __future__ import annotations

import time
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.loop import finish
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, load
from hil.errors import UsageError

SEVERAL = Path("report-runs.html")
SECONDS = 5.0  # between two drawings of a run that is on


@dataclass(frozen=True, kw_only=True)
class ReportOptions(RunOptions):
    """What to draw.

    Attributes:
        folders: of runs; none: the run of a configuration, whose pictures and summary are made anew.
        out: of several runs the page; open: it in the browser; watch: draw a run that is on again and again.
    """

    folders: tuple[Path, ...] = ()
    out: Path = SEVERAL
    open: bool = False
    watch: bool = False


def add(commands: Commands) -> None:
    text = "draw the page of a run, of several, or of one that is on"
    report = add_run(commands.add_parser("report", help=text, description=sentence(text)))
    report.add_argument("folders", nargs="*", type=Path, metavar="RUN", help="a run's folder, as runs/demo")
    report.add_argument(
        "--out", type=Path, default=SEVERAL, metavar="FILE", help="the page of several runs (default %(default)s)"
    )
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.add_argument(
        "--watch", action="store_true", help="draw a run that is on every few seconds, until it is finished"
    )
    bind(report, ReportOptions, run_report)


def run_report(options: ReportOptions) -> int:
    """The exit code; of a configuration's run as of the loop."""
    if options.watch:
        return _watch(options)
    if not options.folders:
        _check_finished(options)
        code = finish(options)
        _show(_folder(options) / "report.html", options, said=True)
        return code
    from deploy.report.page import write_report
    from deploy.report.several import write_several

    if len(options.folders) == 1:
        path = write_report(options.folders[0])
    else:
        path = options.out
        write_several(options.folders, path)
    _show(path, options)
    return 0


def _folder(options: ReportOptions) -> Path:
    if len(options.folders) > 1:
        raise UsageError("--watch: one run at a time")
    if options.folders:
        return options.folders[0]
    experiment, _ = load(options)
    return options.runs_dir / experiment.name


def _check_finished(options: ReportOptions) -> None:
    from deploy.run.records import FinalRecord

    folder = _folder(options)
    if not (folder / FinalRecord.FILE).exists():
        raise UsageError(f"{folder}: no finished run; run `hilnas loop` first")


def _watch(options: ReportOptions) -> int:
    """Until the run is finished, or Ctrl-C."""
    from deploy.report.page import is_finished, write_report

    folder = _folder(options)
    path = write_report(folder, refresh_s=SECONDS)
    _show(path, options)
    while not is_finished(folder):
        time.sleep(SECONDS)
        write_report(folder, refresh_s=SECONDS)
    write_report(folder)
    return 0


def _show(path: Path, options: ReportOptions, *, said: bool = False) -> None:
    if not said:
        console.say(f"report: {path}")
    if options.open:
        webbrowser.open(path.resolve().as_uri())
