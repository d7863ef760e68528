"""What LCPAQ is held to, on a classifier of generated figures: the tables of docs/lcpaq.md.

    python -m deploy.studies.lcpaq.experiment bits --out FOLDER      # policies at 67 % of the INT8 size (--share), over seeds
    python -m deploy.studies.lcpaq.experiment proxy --out FOLDER     # the low-cost search against its exhaustive grid

Minutes each on one core. What was finished is kept in FOLDER; the same command goes on, and prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from deploy.cli.exit import ended
from deploy.formats.files import read_json, write_json
from deploy.studies.lcpaq.grid import proxies
from deploy.studies.lcpaq.trained import Trained
from nas.data.batches import load
from nas.lcpaq.hessian import Problem, Trace, forward, traces
from nas.lcpaq.options import options_of
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, policy_of, ties
from nas.lcpaq.program import solve
from nas.lcpaq.refine import best as best_scored
from nas.lcpaq.refine import greedy, refine
from nas.lcpaq.sensitivity import by_trace, candidates
from nas.lcpaq.tied import ends_exempt
from nas.noise import Target
from nas.quant.float_graph import Node, Weighted
from nas.quant.scheme import Granularity, Scheme
from nas.tasks.task import TASKS, score_float
from nas.training.threads import one_thread

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
BLOCK_WIDTHS = (4, 5, 6, 7, 8)  # all that a search space may give a block
GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")
LABELLED = 64
PROBES = 128  # at most, a layer


def problem_of(of: Trained) -> Problem:
    """Labelled images that were trained on."""
    seen, _ = of.parts((32, 32))
    places = [int((i + 0.5) * len(seen) / LABELLED) for i in range(LABELLED)]
    batches = [load(seen, places[start : start + 16]) for start in range(0, LABELLED, 16)]
    return Problem(of.nodes, batches, TASKS["classification"].loss)


def options_for(of: Trained, problem: Problem, known: Mapping[str, Trace], granularity: Granularity) -> Options:
    """`known`: the layers' Hessian traces, which do not depend on how weights are rounded."""
    found = by_trace(problem, WIDTHS, Scheme(granularity), known)
    layers = layers_of(of.nodes, (32, 32, 3))
    return options_of(layers, [(width, INT8) for width in WIDTHS], found.table, groups=ties(of.nodes))


def block_bits(of: Trained, problem: Problem, options: Options, limit: float, granularity: Granularity) -> Policy:
    """QA-BWNAS's answer: the widths of whole blocks with the least sum of block NSRs within `limit`, by trying all.

    A block's NSR is that of its own output, with its weights rounded and the float network before it; what is not in
    a block keeps 8 bits.
    """
    rounded = {node.name: weights for node, weights in candidates(problem, BLOCK_WIDTHS, Scheme(granularity))}
    blocks: dict[str, list[Node]] = {}
    for node in of.nodes:
        if node.name[0] == "b" and node.name.partition("/")[0][1:].isdigit():
            blocks.setdefault(node.name.partition("/")[0], []).append(node)
    envs = [forward(problem.needed, {}, images) for images, _ in problem.batches]
    nsr: dict[str, list[float]] = {}
    with torch.no_grad():
        for name, nodes in blocks.items():
            target = Target(torch.cat([env[nodes[-1].name] for env in envs]))
            nsr[name] = []
            for place in range(len(BLOCK_WIDTHS)):
                changed = [replace(n, weight=rounded[n.name][place]) if isinstance(n, Weighted) else n for n in nodes]
                nsr[name].append(target.nsr(_output(changed, env) for env in envs))
    best: tuple[float, Policy] | None = None
    for places in itertools.product(range(len(BLOCK_WIDTHS)), repeat=len(blocks)):
        of_block = {name: BLOCK_WIDTHS[place] for name, place in zip(blocks, places, strict=True)}
        policy = Policy({name: of_block.get(name.partition("/")[0], INT8) for name in policy_of(of.nodes).bits})
        cost = sum(nsr[name][place] for name, place in zip(blocks, places, strict=True))
        if size_bits(options, policy) <= limit and (best is None or cost < best[0]):
            best = (cost, policy)
    assert best is not None  # noqa: S101 (4 bits fit two thirds)
    return best[1]


def _output(nodes: Sequence[Node], env: Mapping[str, Tensor]) -> Tensor:
    here = dict(env)
    for node in nodes:
        here[node.name] = node(here)
    return here[nodes[-1].name]


def size_bits(options: Options, policy: Policy) -> float:
    return float(sum(layer.size_bits(policy.bits[layer.name]) for layer in options.layers))


def policies(
    of: Trained, problem: Problem, known: Mapping[str, Trace], granularity: Granularity, most: float
) -> Iterator[tuple[str, Policy, float]]:
    """(method, policy, share of the INT8 size), none but uniform ones above `most`."""
    free = options_for(of, problem, known, granularity)
    options = ends_exempt(free)
    int8 = size_bits(free, of.uniform(INT8))
    limits = {"size_bits": most * int8}
    _, judged = of.parts((32, 32))
    scored = list(refine(options, limits, lambda policy: of.score(policy, granularity, judged)))
    found = {
        "INT8": of.uniform(INT8),
        "LCPAQ": best_scored(scored).policy,
        "its program alone": solve(options, limits),
        "greedy descent": greedy(options, limits),
        "QA-BWNAS's block bits": block_bits(of, problem, free, limits["size_bits"], granularity),
        "uniform 6 bits": of.uniform(6),
        "uniform 6 bits, ends at 8": of.uniform(6, INT8),
        "uniform 5 bits, ends at 8": of.uniform(5, INT8),
        "uniform 4 bits, ends at 8": of.uniform(4, INT8),
    }
    for name, policy in found.items():
        yield name, policy, size_bits(free, policy) / int8


def bits(folder: Path, seeds: Sequence[int], steps: int, most: float) -> Iterator[str]:
    """The first table; bits.json holds every score and policy."""
    path = folder / "bits.json"
    record: dict[str, Any] = read_json(path) if path.exists() else {}
    for seed in seeds:
        places = [_place(steps, seed, granularity, most) for granularity in GRANULARITIES]
        if all(entry in record for entry in places):
            continue
        of = Trained(seed, folder, steps)
        problem, fp32, started = problem_of(of), score_float(of.model, of.val), time.process_time()
        known = traces(problem, most_probes=PROBES, seed=seed)
        traced_s = round(time.process_time() - started, 1)
        for entry, granularity in zip(places, GRANULARITIES, strict=True):
            rows = {
                name: {"share": share, "top1": of.score(policy, granularity, of.val), "policy": str(policy)}
                for name, policy, share in policies(of, problem, known, granularity, most)
            }
            record[entry] = {"fp32": fp32, "rows": rows, "trace_cpu_s": traced_s, "layers": len(known)}
            write_json(path, record)
    for granularity in GRANULARITIES:
        entries = [record[_place(steps, seed, granularity, most)] for seed in seeds]
        traced_s, layers = fmean(entry["trace_cpu_s"] for entry in entries), entries[0]["layers"]
        yield f"Weight scales a {granularity}; float: {fmean(entry['fp32'] for entry in entries):.2f} %. The traces of"
        yield f"{layers} layers took {traced_s:.1f} s of CPU, {traced_s / layers:.2f} s a layer."
        yield ""
        yield f"| | size, % of INT8 | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |"
        yield "|---|---" + "|---" * (len(seeds) + 1) + "|"
        for name in entries[0]["rows"]:
            top1 = [entry["rows"][name]["top1"] for entry in entries]
            share = fmean(entry["rows"][name]["share"] for entry in entries)
            yield f"| {name} | {100 * share:.1f} | {' | '.join(f'{v:.2f}' for v in top1)} | {fmean(top1):.2f} |"
        yield ""


def _place(steps: int, seed: int, granularity: Granularity, most: float) -> str:
    return f"{steps} steps, seed {seed}, scales a {granularity}, at most {most}"


def _seeds(text: str) -> list[int]:
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write whole numbers with commas between, for example 0,1,2")
    return [int(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.studies.lcpaq.experiment", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("table", choices=("bits", "proxy"))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=_seeds, default="0,1,2", help="default %(default)s")
    parser.add_argument("--steps", type=int, default=1200, help="of the classifier's training (default %(default)s)")
    parser.add_argument("--share", type=float, default=0.67, help="of the INT8 size, for bits (default %(default)s)")
    arguments = parser.parse_args(argv)

    def print_table() -> int:
        arguments.out.mkdir(parents=True, exist_ok=True)
        shared = (arguments.out, arguments.seeds, arguments.steps)
        with one_thread():
            for line in bits(*shared, arguments.share) if arguments.table == "bits" else proxies(*shared):
                print(line, flush=True)
        return 0

    return ended("lcpaq.experiment", print_table)


if __name__ == "__main__":
    sys.exit(main())
