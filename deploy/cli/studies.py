"""`hilnas study granularity|start|few-bits|...`: what makes the documentation's tables; prints Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.cli import camvid_studies, console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_boards, bind, whole_numbers
from deploy.cli.runs import DEFAULT_CONFIG, RunOptions, add_run, load, open_run
from hil.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class GranularityOptions(RunOptions):
    """Which run, and what of it.

    Attributes:
        run: its folder.
        subnets: of each block.
        bits: of the weights.
        final_models: evaluate the final models instead of subnets.
    """

    run: Path = Path("runs/demo")
    subnets: int = 8
    bits: int = 8
    final_models: bool = False


@dataclass(frozen=True, kw_only=True)
class StartOptions(RunOptions):
    """`run`: its folder; `paths`: random ones of each block."""

    run: Path = Path("runs/demo")
    paths: int = 16


@dataclass(frozen=True, kw_only=True)
class RankingOptions(RunOptions):
    """`retrained`: how many models are retrained; `retrainings`: how often each, with another seed; `steps`: of each,
    None: the recipe's; `bits`: their widths, separated by commas, None: the space's.
    """

    retrained: int = 24
    retrainings: int = 2
    steps: int | None = None
    bits: str | None = None


@dataclass(frozen=True, kw_only=True)
class WidthsOptions(RunOptions):
    """`final_models`: names, and `bits`: widths, separated by commas."""

    final_models: str = "teacher_plus"
    bits: str = "6,4"


@dataclass(frozen=True, kw_only=True)
class FinishOptions(RunOptions):
    """`final_models`: names, and `compared`: budgets in place of them, separated by commas."""

    final_models: str = "teacher_plus"
    compared: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationOptions(RunOptions):
    """`final_models`: names, and `without`: parts of the recipe, separated by commas."""

    final_models: str
    without: str | None = None


@dataclass(frozen=True, kw_only=True)
class LcpaqStudyOptions:
    """`out`: the folder; `seeds`: separated by commas; `steps`: of training; `share`: of the INT8 size."""

    out: Path
    seeds: str = "0,1,2"
    steps: int = 1200
    share: float = 0.67

    def parsed_seeds(self) -> Sequence[int]:
        return whole_numbers("--seeds", self.seeds)


@dataclass(frozen=True, kw_only=True)
class FewBitsOptions:
    """`model`: a .tflite file of a convolutional network."""

    model: Path


def add(commands: Commands) -> None:
    study = commands.add_parser("study", help="make a table of the documentation")
    studies = study.add_subparsers(dest="study", metavar="STUDY", required=True)
    _add_granularity(studies)
    _add_start(studies)
    text = "asymmetric against symmetric weights of few bits: the squared error of a network's own weights"
    few_bits = studies.add_parser("few-bits", help=text, description=sentence(text))
    few_bits.add_argument("model", type=Path, metavar="MODEL.tflite", help="a public MobileNetV2, for example")
    bind(few_bits, FewBitsOptions, few_bits_table)
    _add_ranking(studies)
    _add_widths(studies)
    _add_finish(studies)
    _add_ablation(studies)
    camvid_studies.add(studies)
    bits = _add_lcpaq(studies, "lcpaq-bits", "policies at a share of the INT8 size, over seeds; minutes on one core")
    bits.add_argument(
        "--share", type=float, default=0.67, metavar="X", help="of the INT8 size, 0 to 1 (default %(default)s)"
    )
    bind(bits, LcpaqStudyOptions, lcpaq_bits)
    proxy = _add_lcpaq(studies, "lcpaq-proxy", "the low-cost search against its exhaustive grid; minutes on one core")
    bind(proxy, LcpaqStudyOptions, lcpaq_proxy)


def _add_granularity(studies: Commands) -> None:
    granularity = studies.add_parser(
        "granularity",
        help="per-tensor against per-channel weight scales, equalization, observers, bias correction",
        description="Quantizes the same subnets of a finished run by every scheme: the NSR of the deployed integers "
        "against the teacher, and the quantization noise, which is the NSR against the subnet in float.",
    )
    _add_finished_run(granularity)
    granularity.add_argument(
        "--subnets", type=int, default=8, metavar="N", help="subnets of each block (default %(default)s)"
    )
    granularity.add_argument(
        "--bits", type=int, default=8, metavar="N", help="width of the weights (default %(default)s)"
    )
    granularity.add_argument(
        "--models",
        dest="final_models",
        action="store_true",
        help="mean IoU, or top-1 accuracy, of the final models instead (minutes)",
    )
    bind(granularity, GranularityOptions, granularity_table)


def _add_start(studies: Commands) -> None:
    start = studies.add_parser(
        "start",
        help="supernets started from the teacher against random ones, trained alike; minutes",
        description="Trains the supernets of a run from both starts, for the run's steps, and prints the mean NSR of "
        "random paths of each block before and after.",
    )
    _add_finished_run(start)
    start.add_argument("--paths", type=int, default=16, metavar="N", help="of each block (default %(default)s)")
    bind(start, StartOptions, start_table)


def _add_finished_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="the run's folder (default %(default)s)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="the run's configuration (default %(default)s)",
    )
    parser.add_argument("--data", help="as the run was given it")
    add_boards(parser)


def _add_ranking(studies: Commands) -> None:
    ranking = add_run(
        studies.add_parser(
            "ranking",
            help="ways to rank architectures against what they are once retrained; hours",
            description="The loop up to the tables, then retrainings of architectures from all over the space: how "
            "well do size, multiply-accumulates, sums of NSRs, divergence, brief fine-tunings and the accuracy "
            "predictor rank them? Killed at any moment, the same command goes on.",
        )
    )
    ranking.add_argument(
        "--models",
        dest="retrained",
        type=int,
        default=24,
        metavar="N",
        help="how many to retrain (default %(default)s)",
    )
    ranking.add_argument(
        "--retrainings", type=int, default=2, metavar="N", help="of each, with other seeds (default %(default)s)"
    )
    ranking.add_argument("--steps", type=int, metavar="N", help="of a retraining (default: the configuration's)")
    ranking.add_argument("--bits", metavar="A,B", help="widths of the models' blocks (default: the space's)")
    bind(ranking, RankingOptions, ranking_table)


def _add_widths(studies: Commands) -> None:
    text = "final networks at one width everywhere: what mixed widths have to be better than; minutes"
    widths = add_run(studies.add_parser("widths", help=text, description=sentence(text)))
    widths.add_argument(
        "--models", dest="final_models", default="teacher_plus", metavar="A,B", help="of the run (default %(default)s)"
    )
    widths.add_argument("--bits", default="6,4", metavar="A,B", help="of all weights (default %(default)s)")
    bind(widths, WidthsOptions, widths_table)


def _add_finish(studies: Commands) -> None:
    text = "final models with and without quantization-aware steps: what these are worth; minutes a model"
    finish = add_run(studies.add_parser("finish", help=text, description=sentence(text)))
    finish.add_argument(
        "--models", dest="final_models", default="teacher_plus", metavar="A,B", help="of the run (default %(default)s)"
    )
    finish.add_argument(
        "--compared", metavar="A,B", help="budgets: what compare-search retrained for them, in place of --models"
    )
    bind(finish, FinishOptions, finish_table)


def _add_ablation(studies: Commands) -> None:
    text = "parts of the recipe left out one at a time: what each is worth to a final model; as many retrainings"
    ablation = add_run(studies.add_parser("ablation", help=text, description=sentence(text)))
    ablation.add_argument("--models", dest="final_models", required=True, metavar="A,B", help="of the run")
    ablation.add_argument("--without", metavar="A,B", help="the parts to leave out (default: all of the recipe)")
    bind(ablation, AblationOptions, ablation_table)


def _add_lcpaq(studies: Commands, name: str, text: str) -> argparse.ArgumentParser:
    study = studies.add_parser(name, help=text, description=sentence(f"on a classifier of generated figures: {text}"))
    study.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="keeps what was finished; the same command goes on"
    )
    study.add_argument("--seeds", default="0,1,2", metavar="A,B", help="of the networks (default %(default)s)")
    study.add_argument(
        "--steps", type=int, default=1200, metavar="N", help="of the classifier's training (default %(default)s)"
    )
    return study


def granularity_table(options: GranularityOptions) -> int:
    """The exit code."""
    from deploy.studies.granularity import check_run, model_rows, samples, subnet_rows

    check_run(options.run)
    with open_run(options, folder=options.run) as context:
        if options.final_models:
            _say(model_rows(context))
        else:
            _say(subnet_rows(samples(context, options.subnets, options.bits)))
    return 0


def start_table(options: StartOptions) -> int:
    """The exit code."""
    from deploy.studies.granularity import check_run
    from deploy.studies.start import start_rows

    check_run(options.run)
    if options.paths < 1:
        raise UsageError(f"--paths {options.paths}: give 1 or more")
    with open_run(options, folder=options.run) as context:
        _say(start_rows(context, options.paths))
    return 0


def few_bits_table(options: FewBitsOptions) -> int:
    """The exit code."""
    from deploy.studies.few_bits import rows

    _say(rows(options.model))
    return 0


def ranking_table(options: RankingOptions) -> int:
    """The exit code."""
    from deploy.pipeline.loop import loop
    from deploy.studies.ranking import check_counts, of_bits, ranking, ranking_rows
    from deploy.studies.ranking_record import RankingRecord

    check_counts(options.retrained, options.retrainings, options.steps)
    bits = None if options.bits is None else list(dict.fromkeys(whole_numbers("--bits", options.bits)))
    of_bits(load(options)[1], bits)  # before the loop, not after it
    with open_run(options) as context:
        console.follow(loop(context, "tables"))
        console.follow(ranking(context, options.retrained, options.retrainings, options.steps, bits))
        path = context.path / RankingRecord.FILE
    record = RankingRecord.read(path)
    if options.json:
        console.say_json(record.to_json())
    else:
        _say(ranking_rows(record))
        console.say(f"written to {path}")
    return 0


def widths_table(options: WidthsOptions) -> int:
    """The exit code."""
    from deploy.run.records import FinalRecord
    from deploy.studies.widths import WidthsRecord, homogeneous

    names = list(dict.fromkeys(options.final_models.split(",")))
    widths = list(dict.fromkeys(whole_numbers("--bits", options.bits)))
    experiment, _ = load(options)
    FinalRecord.read(options.runs_dir / experiment.name / FinalRecord.FILE)  # before a folder is made
    with open_run(options) as context:
        console.follow(homogeneous(context, names, widths))
        path = context.path / WidthsRecord.FILE
    record = WidthsRecord.read(path)
    if options.json:
        console.say_json(record.to_json())
        return 0
    rows = [(m.name, str(m.bits), f"{m.score:.2f}", f"{m.size_bits / 8000:.1f}") for m in record.models]
    console.table(("model", "bits", f"{record.metric} %", "weights kB"), rows)
    console.say(f"written to {path}")
    return 0


def finish_table(options: FinishOptions) -> int:
    """The exit code."""
    from deploy.run.records import FinalRecord
    from deploy.studies.finish import FinishRecord, both_ways
    from deploy.studies.finished_controls import FinishedControls, finished_controls

    names = list(dict.fromkeys((options.final_models if options.compared is None else options.compared).split(",")))
    experiment, _ = load(options)
    FinalRecord.read(options.runs_dir / experiment.name / FinalRecord.FILE)  # before a folder is made
    record: FinishRecord | FinishedControls
    with open_run(options) as context:
        console.follow((both_ways if options.compared is None else finished_controls)(context, names))
        path = context.path / (FinishRecord if options.compared is None else FinishedControls).FILE
    if options.compared is not None:
        record = FinishedControls.read(path)
        models = [(f"{m.budget}: {m.method}", m.plain_score, m.finished_score) for m in record.winners]
    else:
        record = FinishRecord.read(path)
        models = [(m.name, m.plain_score, m.finished_score) for m in record.models]
    if options.json:
        console.say_json(record.to_json())
        return 0
    rows = [(name, f"{plain:.2f}", f"{finished:.2f}") for name, plain, finished in models]
    console.table(("model", f"{record.metric} % without", f"with {record.steps} steps"), rows)
    console.say(f"written to {path}")
    return 0


def ablation_table(options: AblationOptions) -> int:
    """The exit code."""
    from deploy.run.records import FinalRecord
    from deploy.studies.ablation import PARTS, AblationRecord, ablation, check_parts

    names = list(dict.fromkeys(options.final_models.split(",")))
    parts = PARTS if options.without is None else options.without.split(",")
    check_parts(parts)
    experiment, _ = load(options)
    FinalRecord.read(options.runs_dir / experiment.name / FinalRecord.FILE)  # before a folder is made
    with open_run(options) as context:
        console.follow(ablation(context, names, parts))
        path = context.path / AblationRecord.FILE
    record = AblationRecord.read(path)
    if options.json:
        console.say_json(record.to_json())
        return 0
    rows = [
        (r.model, r.without, f"{r.score:.2f}", f"{r.change.value:+.2f} [{r.change.low:+.2f}, {r.change.high:+.2f}]")
        for r in record.rows
    ]
    console.table(("model", "without", f"{record.metric} %", "points from the whole recipe [95 %]"), rows)
    console.say(f"written to {path}")
    return 0


def lcpaq_bits(options: LcpaqStudyOptions) -> int:
    """The exit code."""
    from deploy.studies.lcpaq.bits import bits

    if not 0 < options.share <= 1:
        raise UsageError(f"--share {options.share:g}: give a share of the INT8 size, above 0 and at most 1, as 0.67")
    _say(bits(options.out, options.parsed_seeds(), options.steps, options.share))
    return 0


def lcpaq_proxy(options: LcpaqStudyOptions) -> int:
    """The exit code."""
    from deploy.studies.lcpaq.proxy import proxies

    _say(proxies(options.out, options.parsed_seeds(), options.steps))
    return 0


def _say(rows: Iterable[str]) -> None:
    for row in rows:
        console.say(row)
