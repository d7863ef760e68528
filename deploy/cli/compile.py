"""`hilnas compile`: what its options mean together, and the right line for those that do not go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from deploy.cli import console
from deploy.compile.library import INDEX, write_all
from deploy.compile.subnets import Writing, compile_subnets, in_space
from deploy.compile.weights import RANDOM, Origin, trained
from deploy.formats.tflite.operators import Form
from deploy.lcpaq.compile import compile_network, network_of
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Progress, Run
from deploy.run.shipped import load_space
from deploy.run.weights import of_run
from deploy.targets.placement import Target, load_target
from hil.errors import UsageError
from nas.engine.local import Engine, open_engine
from nas.errors import ConfigError
from nas.quant.scheme import DEFAULT, Scheme
from nas.settings import build
from nas.space import SearchSpace, Subnet

Arguments = argparse.Namespace
SPACE, SIZE = "demo", "96x128"
LARGEST_SIDE = 1 << 14  # TFLite's kernels count positions and bytes in 32 bits


def parse_size(text: str) -> tuple[int, int]:
    """HxW; `UsageError` for anything else."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise UsageError(f"--size {text}: write HxW, for example {SIZE}")
    if max(int(side) for side in sides) > LARGEST_SIDE:
        raise UsageError(f"--size {text}: at most {LARGEST_SIDE} a side")
    return int(sides[0]), int(sides[1])


def parse_bits(text: str | None, space: SearchSpace) -> Sequence[int]:
    """Weight bit widths: those given, or the space's."""
    if text is None:
        return space.bits
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--bits {text}: write bit widths with commas between, for example 4,6,8")
    bits = list(dict.fromkeys(int(part) for part in parts))
    build(SearchSpace, {**asdict(space), "bits": bits}, f"--bits {text}")  # refuses what no space may have
    return bits


def _form(arguments: Arguments, scheme: Scheme) -> Form:
    form = Form(arguments.activations, arguments.few_bits, arguments.ends)
    if form.activations == "uint8" and scheme.granularity == "channel":
        raise UsageError("--activations uint8: its weights have one scale a tensor; add --granularity tensor")
    if form.activations == "uint8" and form.few_bits == "int4":
        raise UsageError("--activations uint8 --few-bits int4: TFLite has no INT4 weights beside uint8; leave one out")
    if arguments.format != "tflite" and form != Form():
        raise UsageError(f"--format {arguments.format}: has int8 activations, int8 weights and quantized ends only")
    if arguments.format == "converter" and scheme != DEFAULT:
        raise UsageError("--format converter: quantizes by itself, a scale a channel; it takes no other scheme")
    return form


def _context(arguments: Arguments, borrowed: ExitStack, *, whole: bool = False) -> Context:
    """The run that --config and --weights name, held open in `borrowed`; for `whole` networks the folder will do."""
    if arguments.weights == RANDOM:
        raise UsageError("--config: is for the weights of a run; add --weights RUN/supernets.pt")
    if arguments.space or arguments.size:
        raise UsageError("--config: names the space and the size itself; leave --space and --size out")
    weights = Path(arguments.weights)
    if not ((weights.name == "supernets.pt" and weights.is_file()) or (whole and weights.is_dir())):
        raise UsageError(f"{weights}: with --config, --weights takes the supernets.pt in the folder of its run")
    experiment, space = load_experiment(arguments.config, Overrides(arguments.data, arguments.encoder_from))
    run = borrowed.enter_context(Run(weights if weights.is_dir() else weights.parent))
    return Context(experiment, space, run, arguments.boards)


def _origin(arguments: Arguments, borrowed: ExitStack) -> Origin:
    """Weights and calibration; a run's folder is held open in `borrowed`."""
    if arguments.config is not None:
        context = _context(arguments, borrowed)
        return of_run(context, _scheme(arguments, context.experiment.quantization.scheme))
    if arguments.data or arguments.encoder_from:
        raise UsageError("--data and --encoder-from: are what a run was trained with; add its --config")
    space = load_space(arguments.space or SPACE)
    size, scheme = parse_size(arguments.size or SIZE), _scheme(arguments, DEFAULT)
    if arguments.weights == RANDOM:
        return Origin(space, size, scheme)
    return trained(space, size, scheme, Path(arguments.weights))


def _scheme(arguments: Arguments, scheme: Scheme) -> Scheme:
    return replace(scheme, granularity=arguments.granularity) if arguments.granularity else scheme


def run(arguments: Arguments) -> int:
    """Write the subnets; the exit code."""
    if arguments.all == bool(arguments.subnets):
        raise UsageError("compile: name subnets, or give --all for every one of the space")
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs}: give at least 1")
    if arguments.engine != "local" and not arguments.all:
        raise UsageError(f"--engine {arguments.engine}: is for --all; leave it out")
    engine = open_engine(arguments.engine, arguments.jobs)
    if arguments.all and arguments.format != "tflite":
        raise UsageError(f"--format {arguments.format}: is for single subnets; name them instead of --all")
    alone = arguments.form == "isolated"
    if not alone and (arguments.all or arguments.format == "converter" or arguments.weights != RANDOM):
        raise UsageError(f"--form {arguments.form}: is for single subnets with random weights")
    if arguments.target and (arguments.all or arguments.format == "onnx"):
        raise UsageError("--target: is for single subnets as .tflite; `hilnas lint` takes any file")
    target = load_target(arguments.targets, arguments.target) if arguments.target else None
    if arguments.size:
        parse_size(arguments.size)
    if _names_networks(arguments):
        return _networks(arguments, target)
    with ExitStack() as borrowed:
        origin = _origin(arguments, borrowed)
        bits, form = parse_bits(arguments.bits, origin.space), _form(arguments, origin.scheme)
        if arguments.all:
            return _all(origin, bits, arguments.out, engine, form)
        subnets = [in_space(origin.space, name, bits) for name in arguments.subnets]
        writing = Writing(form, arguments.format, arguments.form, target)
        for path in compile_subnets(origin, subnets, arguments.out, writing):
            console.say(str(path))
    return 0


def _names_networks(arguments: Arguments) -> bool:
    """Whether whole networks of a run are named, not subnets; a policy is for the former alone."""
    subnets = [name for name in arguments.subnets if _is_subnet(name)]
    if arguments.policy is not None:
        if arguments.all or subnets:
            named = subnets[0] if subnets else "--all"
            raise UsageError(f"--policy: is for one whole network, not {named}; name teacher or a found model")
        if len(arguments.subnets) > 1:
            raise UsageError("--policy: is for one network; compile the others for themselves")
        if arguments.config is None:
            raise UsageError("--policy: is for a network of a run; add its --config and --weights RUN")
    return arguments.config is not None and not arguments.all and not subnets


def _is_subnet(name: str) -> bool:
    try:
        Subnet.parse(name)
    except ConfigError:
        return False
    return True


def _networks(arguments: Arguments, target: Target | None) -> int:
    """Write whole networks of a run."""
    if arguments.bits:
        raise UsageError("--bits: is for subnets; a whole network has its own bits, or those of a --policy")
    if arguments.format == "converter":
        raise UsageError("--format converter: is for subnets; leave it out")
    with ExitStack() as borrowed:
        context = _context(arguments, borrowed, whole=True)
        scheme = _scheme(arguments, context.experiment.quantization.scheme)
        linted = None if arguments.format == "onnx" else target or context.target
        writing = Writing(_form(arguments, scheme), arguments.format, target=linted)
        for name in arguments.subnets:
            network = network_of(context, name, scheme, arguments.policy)
            console.say(str(compile_network(network, arguments.out, writing)))
    return 0


def _all(origin: Origin, bits: Sequence[int], out: Path, engine: Engine, form: Form) -> int:
    written = 0
    with console.progress() as show:
        for written, total in write_all(origin, bits, out, engine, form):
            show(Progress("compile", written, total))
    console.say(f"{written} subnets in {out}, listed in {out / INDEX}")
    return 0
