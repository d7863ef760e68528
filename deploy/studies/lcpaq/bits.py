"""What bit widths cost on a classifier of generated figures: the first table of docs/lcpaq.md. Minutes on one core."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from deploy.studies.lcpaq.records import BitsRecord, BitsTable, PolicyScore
from deploy.studies.lcpaq.trained import Trained
from nas.data.batches import load
from nas.lcpaq.hessian import Problem, forward
from nas.lcpaq.losses import loss_of
from nas.lcpaq.options import options_of
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, policy_of, ties
from nas.lcpaq.program import solve
from nas.lcpaq.refine import best as best_scored
from nas.lcpaq.refine import greedy, refine
from nas.lcpaq.sensitivity import Hessian, candidates
from nas.lcpaq.tied import ends_exempt
from nas.lcpaq.traces import Precision, Trace, traces
from nas.noise import NsrReference
from nas.quant.float_graph import Node, Weighted
from nas.quant.scheme import Granularity, Scheme
from nas.tasks.task import TASKS, score_float
from nas.training.threads import one_thread

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
BLOCK_WIDTHS = (4, 5, 6, 7, 8)  # all that a search space may give a block
GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")
LABELLED = 64
PROBES = 128  # at most, per layer


def problem_of(trained: Trained) -> Problem:
    """Labelled images that were trained on."""
    seen, _ = trained.parts((32, 32))
    places = [int((i + 0.5) * len(seen) / LABELLED) for i in range(LABELLED)]
    batches = [load(seen, places[start : start + 16]) for start in range(0, LABELLED, 16)]
    return Problem(trained.nodes, batches, loss_of(TASKS["classification"]))


def options_for(trained: Trained, problem: Problem, known: Mapping[str, Trace], granularity: Granularity) -> Options:
    """`known`: the layers' Hessian traces, which do not depend on how weights are rounded."""
    perturbations = Hessian.by_trace(problem, WIDTHS, Scheme(granularity), known)
    layers = layers_of(trained.nodes, (32, 32, 3), Scheme(granularity))
    return options_of(layers, [(width, INT8) for width in WIDTHS], perturbations.table, groups=ties(trained.nodes))


def block_bits(
    trained: Trained, problem: Problem, options: Options, limit: float, granularity: Granularity
) -> Policy | None:
    """QA-BWNAS's answer: one width per block, with the least sum of block NSRs within `limit`, by trying all.

    A block's NSR is that of its own output, with its weights rounded and the float network before it; what is not in
    a block keeps 8 bits. None where the fewest bits of all blocks are above `limit`.
    """
    rounded = {node.name: weights for node, weights in candidates(problem, BLOCK_WIDTHS, Scheme(granularity))}
    blocks: dict[str, list[Node]] = {}
    for node in trained.nodes:
        if node.name[0] == "b" and node.name.partition("/")[0][1:].isdigit():
            blocks.setdefault(node.name.partition("/")[0], []).append(node)
    envs = [forward(problem.needed, {}, images) for images, _ in problem.batches]
    nsr: dict[str, list[float]] = {}
    with torch.no_grad():
        for name, nodes in blocks.items():
            target = NsrReference(torch.cat([env[nodes[-1].name] for env in envs]))
            nsr[name] = []
            for place in range(len(BLOCK_WIDTHS)):
                changed = [replace(n, weight=rounded[n.name][place]) if isinstance(n, Weighted) else n for n in nodes]
                nsr[name].append(target.nsr(_output(changed, env) for env in envs))
    best: tuple[float, Policy] | None = None
    for places in itertools.product(range(len(BLOCK_WIDTHS)), repeat=len(blocks)):
        of_block = {name: BLOCK_WIDTHS[place] for name, place in zip(blocks, places, strict=True)}
        policy = Policy({name: of_block.get(name.partition("/")[0], INT8) for name in policy_of(trained.nodes).bits})
        cost = sum(nsr[name][place] for name, place in zip(blocks, places, strict=True))
        if size_bits(options, policy) <= limit and (best is None or cost < best[0]):
            best = (cost, policy)
    return best[1] if best else None


def _output(nodes: Sequence[Node], env: Mapping[str, Tensor]) -> Tensor:
    here = dict(env)
    for node in nodes:
        here[node.name] = node(here)
    return here[nodes[-1].name]


def size_bits(options: Options, policy: Policy) -> float:
    return float(sum(layer.size_bits(policy.bits[layer.name]) for layer in options.layers))


def policies(
    trained: Trained, problem: Problem, known: Mapping[str, Trace], granularity: Granularity, share: float
) -> Iterator[tuple[str, Policy, float]]:
    """(method, policy, share of the INT8 size), none but uniform ones above `share`."""
    free = options_for(trained, problem, known, granularity)
    options = ends_exempt(free)
    int8 = size_bits(free, trained.uniform(INT8))
    limits = {"size_bits": share * int8}
    _, unseen = trained.parts((32, 32))
    scored = list(refine(options, limits, lambda policy: trained.score(policy, granularity, unseen)))
    by_method: dict[str, Policy | None] = {
        "INT8": trained.uniform(INT8),
        "LCPAQ": best_scored(scored).policy,
        "its program alone": solve(options, limits),
        "greedy descent": greedy(options, limits),
        "QA-BWNAS's block bits": block_bits(trained, problem, free, limits["size_bits"], granularity),
        "uniform 6 bits": trained.uniform(6),
        "uniform 6 bits, ends at 8": trained.uniform(6, INT8),
        "uniform 5 bits, ends at 8": trained.uniform(5, INT8),
        "uniform 4 bits, ends at 8": trained.uniform(4, INT8),
    }
    for name, policy in by_method.items():
        if policy is not None:
            yield name, policy, size_bits(free, policy) / int8


def bits(folder: Path, seeds: Sequence[int], steps: int, share: float) -> Iterator[str]:
    """Policies at `share` of the INT8 size, over networks of several seeds, as lines of Markdown.

    bits.json in `folder` holds every score and policy; what it has is not computed again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / BitsRecord.FILE
    record = BitsRecord.read(path) if path.exists() else BitsRecord({})
    with one_thread():
        for seed in seeds:
            names = {table_name(steps, seed, granularity, share): granularity for granularity in GRANULARITIES}
            if names.keys() <= record.tables.keys():
                continue
            trained = Trained(seed, folder, steps)
            problem, fp32, started = problem_of(trained), score_float(trained.model, trained.val), time.process_time()
            known = traces(problem, Precision(most_probes=PROBES, seed=seed))
            traced_s = round(time.process_time() - started, 1)
            for name, granularity in names.items():
                rows = {
                    method: PolicyScore(size, trained.score(policy, granularity, trained.val), str(policy))
                    for method, policy, size in policies(trained, problem, known, granularity, share)
                }
                table = BitsTable(fp32, rows, traced_s, len(known))
                record = BitsRecord({**record.tables, name: table})
                record.write(path)
    for granularity in GRANULARITIES:
        yield from _table(granularity, {s: record.tables[table_name(steps, s, granularity, share)] for s in seeds})


def _table(granularity: Granularity, tables: Mapping[int, BitsTable]) -> Iterator[str]:
    """Lines of Markdown; `tables` by seed."""
    first, *_ = tables.values()
    traced_s, layers = fmean(table.trace_cpu_s for table in tables.values()), first.layers
    fp32 = fmean(table.fp32 for table in tables.values())
    yield f"Weight scales per {granularity}; float: {fp32:.2f} %. The traces of {layers} layers took"
    yield f"{traced_s:.1f} s of CPU, {traced_s / layers:.2f} s per layer."
    yield ""
    yield f"| | size, % of INT8 | {' | '.join(f'seed {seed}' for seed in tables)} | mean |"
    yield "|---|---" + "|---" * (len(tables) + 1) + "|"
    for method in (name for name in first.rows if all(name in table.rows for table in tables.values())):
        top1 = [table.rows[method].top1 for table in tables.values()]
        size = fmean(table.rows[method].share for table in tables.values())
        yield f"| {method} | {100 * size:.1f} | {' | '.join(f'{v:.2f}' for v in top1)} | {fmean(top1):.2f} |"
    yield ""


def table_name(steps: int, seed: int, granularity: Granularity, share: float) -> str:
    return f"{steps} steps, seed {seed}, scales per {granularity}, at most {share}"
