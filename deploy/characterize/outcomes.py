"""What a board says about a fact, beside what its target's rules say: they agree, disagree, or it is not decided."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from deploy.characterize.claims import Claim
from deploy.characterize.facts import Fact, Probe
from hil.measurement import Measurement, Parity
from hil.regression import latency_ratio
from nas.quant.arithmetic import Arithmetic

Verdict = Literal["agrees", "disagrees", "undecided", "no rule"]
Measured: TypeAlias = Mapping[str, Sequence[Measurement]]
"""The rounds of each file, by its name."""

SLOWER = 1.2  # times the base's latency for the same work: less may be the difference of two equally fast kernels
HIDDEN = 1.2  # times the shortest latency of all files: what every inference costs would hide the rest


@dataclass(frozen=True)
class FactOutcome:
    """One fact on a board.

    Attributes:
        fact, file, base: as of `Fact`; `base` is empty where only outputs count.
        claim: the target's; None where its rules do not speak of such a fact.
        ratio, ci95: the file's latency for the same work over the base's, with its 95 % interval; None without either.
        right: whether the outputs are within the board's tolerances; None where they were not compared.
        mismatched, max_abs_diff: share of output elements that differ from the simulation's, and by how much at most.
        verdict: whether the claim holds.
        said: what was seen, in words.
    """

    fact: str
    file: str
    base: str
    verdict: Verdict
    said: str
    claim: Claim | None = None
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    right: bool | None = None
    mismatched: float | None = None
    max_abs_diff: float | None = None

    def to_json(self) -> dict[str, Any]:
        claim = {"slower": self.claim.slower, "wrong": self.claim.wrong} if self.claim else None
        return {**{k: v for k, v in asdict(self).items() if k != "claim"}, "claim": claim}


def outcomes(asked: Iterable[tuple[Fact, Claim]], measured: Measured) -> list[FactOutcome]:
    """Of all facts."""
    shortest_us = min((_median_us(rounds) for rounds in measured.values() if _ran(rounds)), default=0.0)
    return [_outcome(fact, claim, measured, shortest_us) for fact, claim in asked]


def _outcome(fact: Fact, claim: Claim, measured: Measured, shortest_us: float) -> FactOutcome:
    rounds, base = measured[fact.probe.name], measured[fact.base.name] if fact.base else ()
    parity = _parity(rounds)
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    if base and _ran(rounds) and _ran(base):
        latencies = [[m.latencies_us for m in sorted(each, key=lambda m: m.round)] for each in (base, rounds)]
        ratio, (low, high) = latency_ratio(*latencies, interleaved=True)
        ratio, ci95 = ratio / claim.work, (low / claim.work, high / claim.work)
        hidden = _median_us(rounds) < HIDDEN * shortest_us
        verdict, why = _speed(claim, ci95, shortest_us if hidden else None)
        said = f"{ratio:.2f} ({ci95[0]:.2f} to {ci95[1]:.2f}) times {base[0].model} for the same work{why}"
    elif base and _ran(rounds):
        verdict, said = "undecided", f"{base[0].model}, its base, failed"
    else:
        verdict, said = _correctness(claim, rounds)
    return FactOutcome(
        fact.name,
        fact.probe.name,
        fact.base.name if fact.base else "",
        verdict,
        said,
        claim,
        ratio,
        ci95,
        _ran(rounds) if parity or not _ran(rounds) else None,
        parity.mismatched / max(parity.elements, 1) if parity else None,
        parity.max_abs_diff if parity else None,
    )


def _speed(claim: Claim, ci95: tuple[float, float], hidden_us: float | None) -> tuple[Verdict, str]:
    """`hidden_us`: what every inference on this board takes, where the file takes hardly more."""
    if claim.source is None or claim.slower is None:
        return "no rule", ""
    if ci95[0] <= SLOWER < ci95[1]:
        return "undecided", f": not decided at {SLOWER}, measure more rounds"
    slower = ci95[0] > SLOWER
    if not slower and hidden_us is not None:
        return "undecided", f": hidden by the {hidden_us:.0f} us that any file takes, give a larger --size"
    return "agrees" if slower == claim.slower else "disagrees", ""


def _correctness(claim: Claim, rounds: Sequence[Measurement]) -> tuple[Verdict, str]:
    failure = next((m.failure for m in rounds if m.failure is not None), None)
    if failure is None and _parity(rounds) is None:
        return "undecided", "outputs are not compared by this driver"
    said = failure.reason if failure else "outputs are right"
    if claim.source is None:
        return "no rule", said
    return "agrees" if (failure is not None) == claim.wrong else "disagrees", said


def followed_arithmetic(probes: Sequence[Probe], measured: Measured) -> Arithmetic | None:
    """That of the probe (`facts.rounding`) with the fewest wrong elements; None where outputs are not compared."""
    compared = [(parity.mismatched, p) for p in probes if (parity := _parity(measured[p.name])) is not None]
    counts = [mismatched for mismatched, _ in compared]
    if len(compared) < len(probes) or counts.count(min(counts)) > 1:
        return None
    return min(compared, key=lambda each: each[0])[1].arithmetic


def rounding_outcome(followed: Arithmetic | None, target: Arithmetic) -> FactOutcome:
    """Whose rounding a uint8 depthwise convolution follows."""
    verdict: Verdict = "undecided" if followed is None else "agrees" if followed == target else "disagrees"
    said = "which arithmetic it follows does not show" if followed is None else f"it follows {followed}"
    return FactOutcome("rounding of uint8", "depthwise3-uint8", "", verdict, f"{said}; the target: {target}")


def cache_outcome(measured: Measured) -> FactOutcome:
    """Whether a model that was compiled before loads faster, where boards.toml sets a cache of compiled graphs."""
    loads = [(m.cache, m.round, m.load_us + m.first_us) for rounds in measured.values() if _ran(rounds) for m in rounds]
    cold, warm = ([us for cache, _, us in loads if cache == state] for state in ("cold", "warm"))
    verdict: Verdict = "undecided"
    if not cold and not warm:
        verdict, said = "no rule", "boards.toml sets no cache of compiled graphs for this board"
    elif any(cache == "cold" and number > 0 for cache, number, _ in loads):
        verdict, said = "disagrees", "boards.toml sets one, and the driver keeps nothing in it: every load compiles"
    elif not cold:
        said = "all files were compiled before: empty the cache's folder on the board to see what it saves"
    else:
        share = statistics.median(warm) / statistics.median(cold) if warm else 1.0
        verdict = "agrees" if share * SLOWER < 1 else "disagrees"
        said = f"a compiled graph loads and first runs in {share:.2f} of the time"
    return FactOutcome("graph cache", "", "", verdict, said)


def _ran(rounds: Sequence[Measurement]) -> bool:
    return all(m.failure is None for m in rounds)


def _median_us(rounds: Sequence[Measurement]) -> float:
    return statistics.median(us for m in rounds for us in m.latencies_us)


def _parity(rounds: Sequence[Measurement]) -> Parity | None:
    return next((m.parity for m in rounds if m.parity is not None), None)
