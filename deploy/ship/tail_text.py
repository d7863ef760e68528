"""What the tail of full networks saves, in words."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.run.records import MeasuredTail, TailRecord
from nas.quant.tails import Tail

WORDS: Mapping[Tail, str] = {
    "classes": "the class map in the file",
    "logits": "logits at output stride, resize and arg-max on the CPU",
    "nearest": "arg-max at output stride and nearest resize in the file",
    "upsampled": "upsampled logits, arg-max on the CPU",
}


def tail_lines(record: TailRecord) -> list[str]:
    """The chosen tail and what it saves, then each one's latency and metric; none where none was measured."""
    if not record.tails:
        return []
    chosen, plain = record.of(record.chosen), record.of("classes")
    saved = ""
    if chosen and plain and chosen.share and chosen.latency_us and plain.latency_us:
        share = chosen.share
        saved = (
            f" saves {1 - share.value:.0%} [{1 - share.high:.0%}, {1 - share.low:.0%}] of the teacher's latency, "
            f"{(plain.latency_us - chosen.latency_us) / 1000:.3f} ms from image to class map"
        )
    best = f"tail: {WORDS[record.chosen]}{saved or ': none that keeps the metric is faster'}"
    return [best, *(_line(one, record) for one in record.tails)]


def _line(one: MeasuredTail, record: TailRecord) -> str:
    if one.latency_us is None:
        return f"{one.tail}: failed: {one.failure}"
    after = f", {one.class_map_us / 1000:.3f} ms of it after the inference" if one.class_map_us is not None else ""
    score = f"{record.metric} {one.score:.2f} % on held-out training images"
    return f"{one.tail} ({WORDS[one.tail]}): {one.latency_us / 1000:.3f} ms{after}; {score}"
