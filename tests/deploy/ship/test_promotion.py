"""One verdict on a bundle against another: what is worse, what fails, what chance may have done."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from deploy.compile.artifact import golden_pair
from deploy.formats.tflite.writer import write
from deploy.regression.regress import Outcome
from deploy.run.records import BudgetVerdict, MetricRecord
from deploy.ship import promotion as promotion_module
from deploy.ship.evaluate import Finished
from deploy.ship.evaluation import ImageScore
from deploy.ship.evaluation_record import EvaluatedImages, EvaluationRecord, FailedImage, ScoredImages
from deploy.ship.promotion import (
    Allowed,
    PlacedOperators,
    Promotion,
    budget_checks,
    conclude,
    latency_check,
    metric_check,
    placement_check,
    size_check,
)
from deploy.targets.placement import load_target
from hil.errors import CheckFailed, Incomparable, ModelError, UsageError
from hil.regression import Comparison
from nas.data import open_data
from nas.estimate import Estimate
from tests.deploy.networks import small_segmenter_graph
from tests.deploy.run_records import summary
from tests.deploy.ship.small_bundles import write_bundle

SIZE = (32, 40)
IMAGES = 24
BOARDS = '[bench]\nkind = "loopback"\ntarget = "cpu-xnnpack"\n'


def evaluated(right: list[int], *, failed: int = 0) -> Finished:
    """Of 10 pixels of each image so many are right; the others are of the other class."""
    data = open_data("scenes", "val", SIZE, count=len(right))
    scores = [
        ImageScore(i, "0", {"board": tuple(cell for cell in ((0, 0, well), (0, 1, 10 - well)) if cell[2])})
        for i, well in enumerate(right)
    ]
    scored = ScoredImages.of(data, scores, "m")
    record = EvaluationRecord(
        "m", "0", EvaluatedImages("scenes", "val", SIZE, len(right), data.classes), MetricRecord("mIoU", "miou"),
        "", "", scored.predictor_scores(), (), (), (FailedImage("a.png", "crash"),) * failed,
    )  # fmt: skip
    return Finished(record, scored)


@pytest.mark.parametrize(
    ("change", "points", "status"),
    [(0, 0.0, "ok"), (1, 0.0, "ok"), (-1, 0.0, "regressed"), (-1, 10.0, "ok")],
)
def test_a_metric_is_worse_where_its_interval_is(change: int, points: float, status: str) -> None:
    base = [5 + i % 3 for i in range(IMAGES)]
    check = metric_check(evaluated([n + change for n in base]), evaluated(base), points)
    assert check.status == status, check.text
    assert "points" in check.cells[4] and f"over {IMAGES} images" in check.text


def test_chance_is_not_worse() -> None:
    base = [5] * IMAGES
    ours = [5 + (1 if i % 2 else -1) - (i == 0) for i in range(IMAGES)]
    check = metric_check(evaluated(ours), evaluated(base), 0.0)
    assert check.status == "ok" and float(check.cells[4].split()[0]) < 0


def test_a_board_that_fails_on_an_image() -> None:
    check = metric_check(evaluated([5] * 4, failed=1), evaluated([5] * 4), 0.0)
    assert check.status == "failed" and "a.png: crash" in check.text


def comparison(ratio: float) -> Comparison:
    return Comparison(1000.0, 1000 * ratio, ratio, (ratio - 0.01, ratio + 0.01), 1e-9, 0.05, 10)


def test_latency_size_and_placement() -> None:
    slower = Outcome("m", "interleaved", comparison(1.2), comparison(1.2))
    once = Outcome("m", "interleaved", comparison(1.2), comparison(1.0))
    assert [latency_check(o).status for o in (slower, once, Outcome("m", failure="m: crash"))] == [
        "regressed", "ok", "failed",
    ]  # fmt: skip
    assert latency_check(slower).cells[2:] == ("1.000 ms", "1.200 ms", "ratio 1.200 [1.190, 1.210]")
    assert [size_check(size, 1000, 0.05).status for size in (900, 1050, 1051)] == ["ok", "ok", "regressed"]
    npu = load_target(None, "imx8mp-vx")
    cases = [
        (PlacedOperators(0), PlacedOperators(1)),
        (PlacedOperators(2), PlacedOperators(1)),
        (PlacedOperators(0, 0, 0.2), PlacedOperators(0, 0, 0.1)),
        (PlacedOperators(0, 1), PlacedOperators(0, 1)),
    ]
    assert [placement_check(*case, npu).status for case in cases] == ["ok", "regressed", "regressed", "regressed"]
    assert "names no target" in placement_check(PlacedOperators(0), PlacedOperators(0), None).text


def promotion(*statuses: str) -> Promotion:
    checks = tuple(size_check(1, 1, 0.1).__class__(s, (s,) * 5, f"{s} text", s) for s in statuses)  # type: ignore[arg-type]
    return Promotion("new", "old", "bench", summary().conditions, checks)


def test_the_exit_code_is_of_the_worst() -> None:
    conclude(promotion("ok", "ok"))
    for statuses, error in (
        (("ok", "incomparable"), Incomparable),
        (("incomparable", "regressed"), CheckFailed),
        (("regressed", "failed"), ModelError),
    ):
        with pytest.raises(error, match=f"new is not promoted: {statuses[1]}: {statuses[1]} text"):
            conclude(promotion(*statuses))
    assert promotion("ok").report().title == "new against old on bench: not worse"


def test_what_is_allowed_is_checked_first() -> None:
    for share, points in ((0.0, 0.0), (5.0, 0.0), (0.1, -1.0), (float("nan"), 0.0)):
        with pytest.raises(UsageError, match="give a share above 0"):
            Allowed(share, points)


# From the command line, with a network of random weights


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    graph = small_segmenter_graph(SIZE)
    image = open_data("scenes", "val", SIZE, count=1)[0].image
    x = np.float32(image - np.float32(128)).transpose(2, 0, 1)[None] / 128

    def make(name: str, budgets: tuple[BudgetVerdict, ...] = ()) -> Path:
        import torch

        folder = tmp_path_factory.mktemp(name) / "bundle"
        folder.mkdir()
        (folder / "model.tflite").write_bytes(write(graph, {"subnet": name}))
        return write_bundle(folder, name, [golden_pair(graph, torch.from_numpy(x))], budgets=budgets)

    return make


def test_from_the_command_line(
    bundles: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HILNAS_BOARD", raising=False)
    (tmp_path / "boards.toml").write_text(BOARDS)
    old, new = bundles("old"), bundles("new")
    assert main(["bundle", "pack", str(new), "--out", str(tmp_path / "new.bundle")]) == 0
    files = ["--report", str(tmp_path / "new.md"), "--junit", str(tmp_path / "new.xml")]
    command = ["bundle", "promote", str(tmp_path / "new.bundle"), "--against", str(old), "--data", "scenes"]
    command += ["--images", "4", "--runs", "5", "--rounds", "4", "--threshold", "1", "--board", "bench"]
    command += ["--boards", str(tmp_path / "boards.toml"), "--out", str(tmp_path / "out")]
    assert main([*command, *files]) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert "new against old on bench: not worse" in said
    assert all(word in said for word in ("mIoU", "latency", "size", "placement", "+0.00 [+0.00, +0.00] points"))
    assert "not worse" in (tmp_path / "new.md").read_text(encoding="utf8")
    suite = ET.parse(tmp_path / "new.xml").getroot()  # noqa: S314 (we wrote it)
    assert [case.get("name") for case in suite.iter("testcase")] == ["mIoU", "latency", "placement", "size"]
    assert suite.get("failures") == "0"
    monkeypatch.setattr(promotion_module, "_metric", None)  # of the same model nothing is measured
    broken = BudgetVerdict("fast", "latency", 0.5, Estimate(0.6, None, 0.55, 0.65, 4, "measured"))
    same = bundles("old", (broken,))
    command[2] = str(same)
    capfd.readouterr()
    assert main([*command, "--json", "--junit", str(tmp_path / "again.xml")]) == 1
    ended = capfd.readouterr()
    checks = {check["check"]: check["status"] for check in json.loads(ended.out)["checks"]}
    assert checks == {
        "metric": "ok", "latency": "ok", "placement": "ok", "size": "ok", "budget fast, latency": "regressed",
    }  # fmt: skip
    assert "old is not promoted: budget fast, latency: latency 60.0% [55.0%, 65.0%] of the teacher's" in ended.err
    assert ET.parse(tmp_path / "again.xml").getroot().get("failures") == "1"  # noqa: S314
    assert main([*command, "--rounds", "2"]) == 2 and main([*command, "--report", "x.pdf"]) == 2


def test_budgets_of_the_candidate(bundles: Callable[..., Path]) -> None:
    from deploy.ship.manifest import Manifest

    kept = BudgetVerdict("fast", "size", 0.5, Estimate.exact(0.4))
    manifest = Manifest.read(bundles("budget", (kept,)) / Manifest.FILE)
    assert manifest.budgets == (kept,)
    assert [check.status for check in budget_checks(manifest)] == ["ok"]
