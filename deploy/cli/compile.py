"""`hilnas compile`: subnets of a space, or networks of a run, as model files; and which options go together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deploy.cli import console
from deploy.cli.options import TARGETS, Commands, add_boards, add_targets, bind
from deploy.cli.runs import RunOptions, open_run
from hil.errors import UsageError
from nas.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from deploy.compile.weights import Origin
    from deploy.formats.tflite.operators import Form
    from deploy.run.context import Context
    from deploy.targets.placement import Target
    from nas.engine.protocol import Engine
    from nas.quant.scheme import Granularity, Scheme
    from nas.space import SearchSpace

DEFAULT_SPACE, DEFAULT_SIZE = Path("demo"), "96x128"
LARGEST_SIDE = 1 << 14  # TFLite's kernels count positions and bytes in 32 bits
RANDOM = "random"  # weights; deploy.compile.weights.RANDOM


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """See the help of each option."""

    subnets: tuple[str, ...]
    all: bool
    engine: str
    jobs: int
    out: Path
    space: Path | None
    size: str | None
    bits: str | None
    weights: str
    config: Path | None
    policy: Path | None
    data: str | None
    encoder_from: str | None
    boards: Path | None = None
    granularity: Granularity | None
    activations: Literal["int8", "uint8"]
    few_bits: Literal["int8", "int4"]
    graph_io: Literal["quantized", "float"]
    format: Literal["tflite", "onnx", "converter"]
    form: Literal["isolated", "bounded", "exchanged"]
    target: str | None
    targets: Path = TARGETS


def add(commands: Commands) -> None:
    build = commands.add_parser(
        "compile",
        help="write subnets of a space, or networks of a run, as files",
        description="Random weights are calibrated on noise: they time an idea before anything is trained. "
        "--weights RUN/supernets.pt takes trained ones, still calibrated on noise; with the run's --config they are "
        "calibrated as in the run, and the files equal the run's. With --config and --weights RUN the teacher or a "
        "selected model's name is taken too: the full network, whose layers may have the bits of a --policy.",
    )
    build.add_argument("subnets", nargs="*", metavar="SUBNET", help="b3_k3e6-k5e3-k7e6_w8; of a run: teacher, fast")
    build.add_argument("--all", action="store_true", help="every subnet of the space, in parallel, with an index")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    build.add_argument(
        "--engine",
        default="local",
        metavar="local|ray|ray://HOST:PORT",
        help="what writes --all: processes, or Ray on this machine or a cluster (default %(default)s)",
    )
    build.add_argument(
        "--jobs",
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes of the engine (default %(default)s)",
    )
    _add_origin(build)
    _add_form(build)
    bind(build, CompileOptions, run)


def _add_origin(build: argparse.ArgumentParser) -> None:
    origin = build.add_argument_group("what is compiled")
    origin.add_argument(
        "--space", type=Path, metavar="NAME|FILE", help=f"default {DEFAULT_SPACE}, or the one of --config"
    )
    origin.add_argument(
        "--size",
        metavar="HxW",
        help=f"the network's input in pixels, height x width (default {DEFAULT_SIZE}, or that of --config)",
    )
    origin.add_argument("--bits", metavar="4,6,8", help="weight bit widths (default: the space's)")
    origin.add_argument(
        "--weights", default=RANDOM, metavar="FILE|RUN", help="random (default), a run's supernets.pt, its folder"
    )
    origin.add_argument("--config", type=Path, metavar="FILE", help="the configuration of the run that --weights is of")
    origin.add_argument("--policy", type=Path, metavar="FILE", help="bits for each layer of a network (`hilnas lcpaq`)")
    origin.add_argument("--data", help="the --data that run was given")
    origin.add_argument("--encoder-from", metavar="FILE.tflite", help="the --encoder-from that run was given")
    add_boards(origin)


def _add_form(build: argparse.ArgumentParser) -> None:
    form = build.add_argument_group("how it is written")
    form.add_argument(
        "--granularity",
        choices=("channel", "tensor"),
        help="weight scales per channel or per tensor (default channel, or that of --config)",
    )
    form.add_argument(
        "--activations", choices=("int8", "uint8"), default="int8", help="uint8 needs --granularity tensor"
    )
    form.add_argument(
        "--few-bits",
        choices=("int8", "int4"),
        default="int8",
        help="how 4-bit weights are stored; int4: symmetric ones",
    )
    form.add_argument(
        "--graph-io", choices=("quantized", "float"), default="quantized", help="type of the graph's inputs and outputs"
    )
    form.add_argument(
        "--format", choices=("tflite", "onnx", "converter"), default="tflite", help="of named subnets, not of --all"
    )
    form.add_argument(
        "--form",
        choices=("isolated", "bounded", "exchanged"),
        default="isolated",
        help="a subnet alone, between its neighbours' convolutions, or in a full model (random weights only)",
    )
    form.add_argument(
        "--target",
        metavar="NAME",
        help="refuse what computes a wrong result there, see `hilnas lint`; expected outputs follow its arithmetic "
        "(default: that of the run's board, or a CPU's)",
    )
    add_targets(form)


def run(options: CompileOptions) -> int:
    """Write the files and print their paths."""
    from deploy.compile.subnets import Writing, compile_subnets, in_space
    from deploy.targets.placement import load_target
    from nas.engine.open import open_engine

    _check(options)
    engine = open_engine(options.engine, options.jobs)
    target = load_target(options.targets, options.target) if options.target else None
    if options.size:
        parse_size(options.size)
    if _names_networks(options):
        return _networks(options, target)
    with _origin(options) as (origin, its_target):
        bits, form = parse_bits(options.bits, origin.space), _form(options, origin.scheme)
        if options.all:
            return _all(origin, bits, options.out, engine, form)
        subnets = [in_space(origin.space, name, bits) for name in options.subnets]
        writing = Writing(form, options.format, options.form, _target(options, target or its_target))
        for path in compile_subnets(origin, subnets, options.out, writing):
            console.say(str(path))
    return 0


def _check(options: CompileOptions) -> None:
    """`UsageError` for options that do not go together."""
    if options.all == bool(options.subnets):
        raise UsageError("compile: name subnets, or give --all for every one of the space")
    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: give at least 1")
    if options.engine != "local" and not options.all:
        raise UsageError(f"--engine {options.engine}: is for --all; leave it out")
    if options.all and options.format != "tflite":
        raise UsageError(f"--format {options.format}: is for single subnets; name them instead of --all")
    isolated = options.form == "isolated"
    if not isolated and (options.all or options.format == "converter" or options.weights != RANDOM):
        raise UsageError(f"--form {options.form}: is for single subnets with random weights")
    if options.target and (options.all or options.format == "onnx"):
        raise UsageError("--target: is for single subnets as .tflite; `hilnas lint` takes any file")


def parse_size(text: str) -> tuple[int, int]:
    """HxW; `UsageError` for anything else."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise UsageError(f"--size {text}: write HxW, for example {DEFAULT_SIZE}")
    if max(int(side) for side in sides) > LARGEST_SIDE:
        raise UsageError(f"--size {text}: at most {LARGEST_SIDE} pixels high and wide")
    return int(sides[0]), int(sides[1])


def parse_bits(text: str | None, space: SearchSpace) -> tuple[Literal[4, 5, 6, 7, 8], ...]:
    """Weight bit widths: those given, or the space's."""
    from nas.settings import build
    from nas.space import SearchSpace

    if text is None:
        return space.bits
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--bits {text}: write bit widths with commas between, for example 4,6,8")
    bits = list(dict.fromkeys(int(part) for part in parts))
    return build(SearchSpace, {**asdict(space), "bits": bits}, f"--bits {text}").bits  # refuses what no space may have


def _form(options: CompileOptions, scheme: Scheme) -> Form:
    from deploy.formats.tflite.operators import Form
    from nas.quant.scheme import DEFAULT

    form = Form(options.activations, options.few_bits, options.graph_io)
    if form.activations == "uint8" and scheme.granularity == "channel":
        raise UsageError("--activations uint8: its weights have per-tensor scales; add --granularity tensor")
    if form.activations == "uint8" and form.few_bits == "int4":
        raise UsageError("--activations uint8 --few-bits int4: TFLite has no INT4 weights beside uint8; leave one out")
    if options.format == "converter" and form != Form():
        raise UsageError("--format converter: has int8 activations, int8 weights and quantized inputs and outputs only")
    if options.format == "onnx" and form.few_bits == "int4":
        raise UsageError("--format onnx --few-bits int4: 4-bit weights are written as int8 there; leave one out")
    if options.format == "converter" and scheme != DEFAULT:
        raise UsageError("--format converter: quantizes with per-channel scales; it takes no other scheme")
    return form


def _scheme(options: CompileOptions, scheme: Scheme) -> Scheme:
    if options.few_bits == "int4":  # which holds no other ones
        scheme = replace(scheme, few_bits="symmetric")
    return replace(scheme, granularity=options.granularity) if options.granularity else scheme


@contextmanager
def _context(options: CompileOptions, *, full: bool = False) -> Iterator[Context]:
    """The run that --config and --weights name; for `full` networks, --weights may be its folder."""
    if options.weights == RANDOM:
        raise UsageError("--config: is for the weights of a run; add --weights RUN/supernets.pt")
    if options.space or options.size:
        raise UsageError("--config: names the space and the size itself; leave --space and --size out")
    weights = Path(options.weights)
    if not ((weights.name == "supernets.pt" and weights.is_file()) or (full and weights.is_dir())):
        raise UsageError(f"{weights}: with --config, --weights takes the supernets.pt in the folder of its run")
    wanted = RunOptions(
        config=options.config, data=options.data, encoder_from=options.encoder_from, boards=options.boards
    )
    with open_run(wanted, folder=weights if weights.is_dir() else weights.parent) as context:
        yield context


def _target(options: CompileOptions, target: Target | None) -> Target | None:
    """By which files are linted, and whose outputs are expected; an ONNX file is not linted, and runs on a CPU."""
    return None if options.format == "onnx" else target


@contextmanager
def _origin(options: CompileOptions) -> Iterator[tuple[Origin, Target | None]]:
    """Weights and calibration, with the target of the run that they are of; a run's folder stays locked."""
    from deploy.compile.weights import Origin, trained
    from deploy.run.shipped import load_space
    from deploy.run.weights import of_run
    from nas.quant.scheme import DEFAULT

    if options.config is not None:
        with _context(options) as context:
            yield of_run(context, _scheme(options, context.experiment.quantization.scheme)), context.target
        return
    if options.data or options.encoder_from:
        raise UsageError("--data and --encoder-from: are what a run was trained with; add its --config")
    space = load_space(options.space or DEFAULT_SPACE)
    size, scheme = parse_size(options.size or DEFAULT_SIZE), _scheme(options, DEFAULT)
    if options.weights == RANDOM:
        yield Origin(space, size, scheme), None
    else:
        yield trained(space, size, scheme, Path(options.weights)), None


def _names_networks(options: CompileOptions) -> bool:
    """Whether full networks of a run are named, not subnets; only the former take a policy."""
    subnets = [name for name in options.subnets if _is_subnet(name)]
    if options.policy is not None:
        if options.all or subnets:
            named = subnets[0] if subnets else "--all"
            raise UsageError(f"--policy: is for one full network, not {named}; name teacher or a selected model")
        if len(options.subnets) > 1:
            raise UsageError("--policy: is for one network; compile the others separately")
        if options.config is None:
            raise UsageError("--policy: is for a network of a run; add its --config and --weights RUN")
    return options.config is not None and not options.all and not subnets


def _is_subnet(name: str) -> bool:
    from nas.space import Subnet

    try:
        Subnet.parse(name)
    except ConfigError:
        return False
    return True


def _networks(options: CompileOptions, target: Target | None) -> int:
    """Write full networks of a run."""
    from deploy.compile.subnets import Writing
    from deploy.lcpaq.compile import compile_network, network_of

    if options.bits:
        raise UsageError("--bits: is for subnets; a full network has the bits of its search, or those of a --policy")
    if options.format == "converter":
        raise UsageError("--format converter: is for subnets; leave it out")
    with _context(options, full=True) as context:
        scheme = _scheme(options, context.experiment.quantization.scheme)
        writing = Writing(_form(options, scheme), options.format, target=_target(options, target or context.target))
        for name in options.subnets:
            network = network_of(context, name, scheme, options.policy)
            console.say(str(compile_network(network, options.out, writing)))
    return 0


def _all(origin: Origin, bits: Sequence[int], out: Path, engine: Engine, form: Form) -> int:
    from deploy.compile.library import INDEX, write_all
    from deploy.run.folder import Progress

    written = 0
    with console.progress() as show:
        for written, total in write_all(origin, bits, out, engine, form):
            show(Progress("compile", written, total))
    console.say(f"{written} subnets in {out}, listed in {out / INDEX}")
    return 0
