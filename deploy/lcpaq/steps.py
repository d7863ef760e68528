"""LCPAQ's steps over a run's trained network; each leaves a record in RUN/lcpaq/MODEL/ and is not done twice.

sensitivity.json -> (latency.json) -> solve.json, policy.json -> refine.json -> proxy.json -> shipped.json and bundle/.
A record holds the key of what it was made from; another key makes it afresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.lcpaq import latency
from deploy.lcpaq.blocks import inside_blocks
from deploy.lcpaq.subject import BLOCKS, Subject, Wanted, limits_of
from deploy.run.folder import Progress
from nas.data import Dataset
from nas.data.batches import load
from nas.data.part import Part
from nas.lcpaq import refine
from nas.lcpaq.activations import ACTIVATION_SENSITIVITIES
from nas.lcpaq.hessian import Problem
from nas.lcpaq.options import int8_costs, options_of
from nas.lcpaq.policy import INT8, Options, Policy, layers_of, network_digest, policy_of, save_policy, ties
from nas.lcpaq.program import solve, totals
from nas.lcpaq.sensitivity import SENSITIVITIES
from nas.lcpaq.tied import ends_exempt
from nas.quant.float_graph import Node
from nas.tasks.task import score_integer
from nas.training.threads import one_thread


def _done(path: Path, key: str) -> bool:
    return path.exists() and read_json(path, ("key",))["key"] == key


def _indices(data: Dataset, count: int, shift: float) -> list[int]:
    """`count` places at even distances; `shift` moves them, so that two choices are disjoint."""
    count = min(count, len(data))
    return [int((i + shift) * len(data) / count) for i in range(count)]


def sensitivity(subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    """sensitivity.json: each layer's perturbation at every width, and what it cost in CPU seconds.

    With "activations", by the width of what the layer reads, where that may be other than 8 bits.
    """
    context, path = subject.context, subject.folder / "sensitivity.json"
    narrow = [wanted.activation_widths] if wanted.narrows_activations else []
    key = digest(subject.key, wanted.kind, wanted.widths, wanted.images, *narrow)
    if _done(path, key):
        return
    yield Progress("lcpaq sensitivity", 0, 1, wanted.kind)
    data = context.train_data
    batches = [
        load(data, part)
        for part in _batched(_indices(data, wanted.images, 0.25), context.experiment.distil.schedule.batch_size)
    ]
    problem = Problem(subject.nodes, batches, context.task.loss)
    scheme, started = context.experiment.quantization.scheme, time.process_time()
    with one_thread():
        tables = {"layers": SENSITIVITIES[wanted.kind](problem, wanted.widths, scheme).table}
        if wanted.narrows_activations:
            of_kind = ACTIVATION_SENSITIVITIES[wanted.kind]
            tables["activations"] = of_kind(problem, wanted.activation_widths, scheme).table
    cpu_s = round(time.process_time() - started, 2)
    write_json(path, {"key": key, "kind": wanted.kind, "images": wanted.images, "cpu_s": cpu_s, **tables})
    yield Progress("lcpaq sensitivity", 1, 1, f"{len(tables['layers'])} layers in {cpu_s:.1f} s of CPU")


def _batched(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def measure_latency(subject: Subject) -> Iterator[Progress]:
    """latency.json: every layer alone on the run's board."""
    image = subject.context.evaluation[:1]
    yield from latency.measure(subject.context, subject.graph(_uniform(subject.nodes, INT8)), image, subject.folder)


def _uniform(nodes: list[Node], bits: int) -> Policy:
    return Policy(dict.fromkeys(policy_of(nodes).bits, bits))


def options_for(subject: Subject, wanted: Wanted) -> Options:
    """What may be chosen, at what cost; the latency where it was measured."""
    record = read_json(subject.folder / "sensitivity.json", ("layers",))
    narrow = wanted.narrows_activations
    measured = (subject.folder / latency.RECORD).exists()
    size = subject.context.experiment.data.size
    options = options_of(
        layers_of(subject.nodes, (*size, 3)),
        wanted.choices,
        _table(record["layers"]),
        activation_perturbation=_table(record["activations"]) if narrow else None,
        latency_us=latency.load(subject.folder) if measured else None,
        groups=ties(subject.nodes, activations=narrow),
    )
    options = ends_exempt(options) if wanted.exempt_ends else options
    return inside_blocks(options) if wanted.limits.get("size_bits") == BLOCKS else options


def _table(record: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    return {name: {int(bits): float(value) for bits, value in row.items()} for name, row in record.items()}


def solve_policy(subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    """solve.json and policy.json: the integer program's answer."""
    options = options_for(subject, wanted)
    limits = limits_of(subject, wanted, options)
    started = time.perf_counter()
    policy = solve(options, limits)
    seconds = time.perf_counter() - started
    record = {
        "key": _solve_key(subject, wanted),
        "limits": limits,
        "int8": int8_costs(options),
        "totals": totals(options, policy),
        "seconds": round(seconds, 4),
        "bits": dict(policy.bits),
        "policy": str(policy),
    }
    write_json(subject.folder / "solve.json", record)
    save_policy(policy, subject.folder / "policy.json", network_digest(subject.nodes))
    yield Progress("lcpaq solve", 1, 1, f"{len(policy.bits)} layers in {seconds:.3f} s")


def _solve_key(subject: Subject, wanted: Wanted) -> str:
    made = [read_json(subject.folder / name)["key"] for name in _made_from(subject)]
    return digest(subject.key, *made, sorted(wanted.limits.items()), wanted.choices, wanted.exempt_ends)


def _made_from(subject: Subject) -> list[str]:
    return ["sensitivity.json", *([latency.RECORD] if (subject.folder / latency.RECORD).exists() else [])]


def scorer(subject: Subject, wanted: Wanted, journal: Path, key: str) -> Callable[[Policy], float]:
    """The deployed integers' metric on training images that no calibration saw; each durable, so judged once."""
    data = subject.context.train_data
    judged = Part(data, tuple(_indices(data, wanted.judged, 0.5)))
    known: dict[str, float] = read_json(journal, ("scores",))["scores"] if _done(journal, key) else {}

    def score(policy: Policy) -> float:
        text = str(policy)
        if text not in known:
            with one_thread():
                known[text] = score_integer(subject.graph(policy), judged)
            write_json(journal, {"key": key, "scores": known})
        return known[text]

    return score


def refine_policy(subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    """refine.json, and policy.json anew: the best of the program's answer, greedy descent's and the frontier's."""
    options, path = options_for(subject, wanted), subject.folder / "refine.json"
    key = digest(_solve_key(subject, wanted), wanted.k, wanted.factor, wanted.judged)
    if not _done(path, key):
        limits = limits_of(subject, wanted, options)
        score = scorer(subject, wanted, subject.folder / "scores.json", digest(subject.key, wanted.judged))
        found = []
        for one in refine.refine(options, limits, score, wanted.k, wanted.factor):
            found.append(one)
            yield Progress("lcpaq refine", one.done, one.total, f"{one.origin} {one.score:.2f}")
        best = refine.best(found)
        scored = [{**asdict(one), "policy": str(one.policy)} for one in found]
        task = subject.context.task
        write_json(path, {"key": key, "metric": task.metric, "judged": wanted.judged, "scored": scored,
                          "best": str(best.policy), "origin": best.origin})  # fmt: skip
    policy = Policy.parse(read_json(path, ("best",))["best"])
    save_policy(policy, subject.folder / "policy.json", network_digest(subject.nodes))
    yield Progress("lcpaq refine", 1, 1, "done")
