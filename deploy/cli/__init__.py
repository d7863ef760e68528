"""The command line. Importing this module imports nothing heavy: `hilnas --help` takes less than 0.3 s."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType

from deploy.cli import (
    board,
    bundle,
    compare,
    compile,
    data,
    debug,
    doctor,
    evaluate,
    init,
    lcpaq,
    loop,
    lut,
    models,
    predict,
    profiling,
    quantize,
    regress,
    report,
    results,
    search,
    space,
    studies,
)
from deploy.cli.console import show_warnings
from deploy.cli.exit import ended
from deploy.cli.help import TopParser

GROUPS: Mapping[str, Sequence[ModuleType]] = {
    "Run the loop": (init, data, loop),
    "Ask": (search, space, lut, predict, compare, lcpaq),
    "Your models": (compile, quantize, debug, profiling, evaluate, models, bundle),
    "Boards": (board, doctor),
    "Results": (report, results, regress, studies),
}
"""Files of commands by the headings of `hilnas --help`; each has `add(commands)`."""


def parser() -> TopParser:
    """The whole command line."""
    top = TopParser(
        "hilnas", "Find a quantized network, measure candidates on the board, ship a bundle.", distribution="hilnas"
    )
    for heading, files in GROUPS.items():
        commands = top.group(heading)
        for file in files:
            file.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

    def work() -> int:
        show_warnings()
        return int(arguments.work(arguments))

    return ended("hilnas", work)
