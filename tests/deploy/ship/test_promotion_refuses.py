"""What keeps a bundle from its promotion, one at a time: a bundle made worse in one respect, on the loopback board."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from deploy.compile.artifact import golden_pair
from deploy.formats.tflite.writer import write
from deploy.run.records import BudgetVerdict
from nas.data import open_data
from nas.data.batches import normalize
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph, QConv
from tests.deploy.networks import small_segmenter_graph
from tests.deploy.ship.small_bundles import write_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (32, 40)
BOARDS = '[bench]\nkind = "loopback"\ntarget = "imx8mp-vx"\n'
THRESHOLD = "0.5"  # of latency and size: far above what a busy machine adds to one of two models in turns
COMMON, RARE = 3, 9  # classes of the scenes
BROKEN = BudgetVerdict("fast", "latency", 0.5, Estimate(0.6, None, 0.55, 0.65, 4, "measured"))


def always(label: int, graph: IntegerGraph) -> IntegerGraph:
    """The network, whose every pixel is of one class."""

    def biased(operator: QConv) -> QConv:
        bias = np.where(np.arange(operator.bias.size) == label, 2**24, -(2**24)).astype(np.int32)
        return replace(operator, bias=bias)

    operators = (biased(op) if isinstance(op, QConv) and op.name == "logits" else op for op in graph.operators)
    return replace(graph, operators=tuple(operators))


def slowed(graph: IntegerGraph, times: int = 120) -> IntegerGraph:
    """With the arg-max computed so many times more, whose results nobody reads."""
    *before, last = graph.operators
    names = [f"again{i}" for i in range(times)]
    tensors = {name: replace(graph.tensors[last.name], name=name) for name in names}
    again = (replace(last, name=name) for name in names)
    return replace(graph, operators=(*before, *again, last), tensors={**graph.tensors, **tensors})


def bundle(
    folder: Path, graph: IntegerGraph, *, pad: int = 0, wrong: bool = False, budgets: tuple[BudgetVerdict, ...] = ()
) -> Path:
    """`pad`: bytes of metadata; `wrong`: the golden output is another class everywhere."""
    source, output = golden_pair(graph, normalize([open_data("scenes", "val", SIZE, count=1)[0].image]))
    if wrong:
        output = ((np.frombuffer(output, np.int32) + 1) % 11).astype(np.int32).tobytes()
    folder.mkdir()
    (folder / "model.tflite").write_bytes(write(graph, {"subnet": folder.name, "pad": "-" * pad}))
    return write_bundle(folder, folder.name, [(source, output)], budgets=budgets)


@dataclass(frozen=True)
class Refusal:
    """A candidate that is worse in one respect, and what is said of it.

    Attributes:
        check: the row; `word`: its status; `detail`: in the error.
    """

    check: str
    word: str
    code: int
    detail: str
    make: Callable[[Path, IntegerGraph], Path]


REFUSALS = {
    "metric": Refusal(
        "mIoU", "WORSE", 1, "points over 4 images, at most -0 allowed",
        lambda folder, graph: bundle(folder, always(RARE, graph)),
    ),
    "latency": Refusal(
        "latency", "WORSE", 1, "allowed 1.500", lambda folder, graph: bundle(folder, slowed(graph)),
    ),
    "size": Refusal(
        "size", "WORSE", 1, "at most +50.0% allowed", lambda folder, graph: bundle(folder, graph, pad=150_000),
    ),
    "placement": Refusal(
        "placement", "WORSE", 1, "by the rules of imx8mp-vx",
        lambda folder, _: bundle(folder, always(COMMON, small_segmenter_graph(SIZE, granularity="channel"))),
    ),
    "budget": Refusal(
        "budget fast, latency", "WORSE", 1, "60.0% [55.0%, 65.0%] of the teacher's, at most 50.0%",
        lambda folder, graph: bundle(folder, graph, pad=1, budgets=(BROKEN,)),
    ),
    "parity": Refusal(
        "latency", "FAILS", 4, "outputs differ", lambda folder, graph: bundle(folder, graph, pad=2, wrong=True),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> IntegerGraph:
    return always(COMMON, small_segmenter_graph(SIZE))


@pytest.fixture(scope="module")
def bench(graph: IntegerGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder: the board, the bundle in use, and evaluations, which go on from one candidate to the next."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "boards.toml").write_text(BOARDS)
    bundle(folder / "old", graph)
    return folder


@pytest.mark.parametrize("what", REFUSALS)
def test_one_thing_is_worse(what: str, graph: IntegerGraph, bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refusal, folder = REFUSALS[what], bench / what
    candidate = refusal.make(folder, graph)
    report, junit = bench / f"{what}.md", bench / f"{what}.xml"
    code = main([
        "bundle", "promote", str(candidate), "--against", str(bench / "old"), "--data", "scenes", "--images", "4",
        "--runs", "5", "--rounds", "4", "--threshold", THRESHOLD, "--board", "bench",
        "--boards", str(bench / "boards.toml"), "--out", str(bench / "out"),
        "--report", str(report), "--junit", str(junit),
    ])  # fmt: skip
    said = capfd.readouterr()
    assert code == refusal.code, said.out + said.err
    table = report.read_text(encoding="utf8").split("<details>")[0]
    _, _, *rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    states = {check.strip(): status.strip() for check, status, *_ in rows}
    assert {check: status for check, status in states.items() if status != "ok"} == {refusal.check: refusal.word}
    assert refusal.detail in said.err
    assert said.err.splitlines()[-1].count(f"{what} is not promoted: {refusal.check}: ") == 1
    suite = ET.parse(junit).getroot()  # noqa: S314 (we wrote it)
    failed = [case.get("name") for case in suite.iter("testcase") if len(case)]
    assert failed == [refusal.check] and [case.get("name") for case in suite.iter("testcase")] == [*states]
    assert sum(int(suite.get(kind) or 0) for kind in ("failures", "errors")) == 1
