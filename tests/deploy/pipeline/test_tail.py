"""Where full networks end in their files: chosen by measurement, and right in everything that follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.pipeline.tail import fastest
from deploy.run.records import FinalRecord, MeasuredTail, TailRecord
from deploy.ship.manifest import Manifest
from deploy.ship.tail_text import tail_lines
from deploy.targets.inspection import inspect_model
from hil.errors import ModelError
from nas.estimate import Estimate
from nas.quant.tails import TAILS
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    Finished,
    arguments,
    finished_run,
    one_line,
    stored,
    write_experiment,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, STRIDE = (64, 96), 4
BEFORE = ("teacher.pt", "supernets.pt", "tables/nsr.parquet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


def with_tail(finished: Finished, folder: Path, line: str, *more: str) -> tuple[Path, list[str]]:
    """The finished run's copy, whose configuration now has the line; its folder, and what follows `hilnas loop`."""
    copy = finished.copy(folder / "runs")
    config = write_experiment(folder, {"[profile]\n": f"[deploy]\n{line}\n\n[profile]\n"})
    return copy, arguments(config, folder / "runs", *more)


def test_auto_measures_each_tail_once(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, argv = with_tail(finished, tmp_path, 'tail = "auto"\ntolerance = 100.0')
    made = {name: (run / name).stat().st_mtime_ns for name in BEFORE}
    assert main(["loop", "--explain", *argv]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines)[:5] == ["teacher", "distil", "tables", "tail", "profile"] and lines["tables"] == "done"
    assert main(["loop", *argv, "--until", "tail"]) == 0
    found = TailRecord.read(run / TailRecord.FILE)
    assert {name: (run / name).stat().st_mtime_ns for name in BEFORE} == made
    assert tuple(one.tail for one in found.tails) == TAILS and found.chosen == fastest(found.tails, 100.0)
    by_name = {one.tail: one for one in found.tails}
    assert all(one.failure is None and one.latency_us and one.class_map_us is not None for one in found.tails)
    assert by_name["classes"].score == by_name["logits"].score == by_name["upsampled"].score
    assert (by_name["logits"].class_map_us or 0) > (by_name["nearest"].class_map_us or 0)
    assert len(tail_lines(found)) == 5
    before = (run / TailRecord.FILE).stat().st_mtime_ns
    assert main(["loop", *argv, "--until", "tail"]) == 0
    assert (run / TailRecord.FILE).stat().st_mtime_ns == before
    assert not (finished.folder / TailRecord.FILE).exists()  # a run whose tail is fixed has no such stage


@pytest.mark.parametrize("tail", ["logits", "nearest"])
def test_everything_that_follows_takes_the_tail(
    finished: Finished, tmp_path: Path, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, argv = with_tail(finished, tmp_path, f'tail = "{tail}"')
    assert main(["loop", *argv]) == 0, capsys.readouterr().err
    bundle = run / "bundle"
    (end,) = inspect_model(read(bundle / "model.tflite")).outputs
    low = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    assert end.shape[1:3] == (low if tail == "logits" else SIZE)
    left = Manifest.read(bundle / Manifest.FILE).class_map
    assert left is not None and left.sizes == {"logits": (SIZE,), "nearest": ()}[tail]
    assert len((bundle / "golden/0.output.bin").read_bytes()) == 4 * SIZE[0] * SIZE[1]
    final = FinalRecord.read(run / FinalRecord.FILE)
    assert final.bundle.verified
    for model in final.models:  # the board's own answers are the integers'
        assert model.board is not None and model.board.against_int8.value == 0 and model.board.against_int8.low == 0
    measured = [json.loads(content) for _, content in stored(run)]
    to_class_map = {m["model"] for m in measured if "class_map_us" in m} & {"fast", "overhead-head", "b1_k3e2_w8"}
    assert to_class_map == {"fast", "overhead-head"}
    assert _shown_by_the_application(bundle, tmp_path) == (bundle / "golden/0.output.bin").read_bytes()
    command = ["evaluate", str(run), *argv[:2], "--boards", str(REPOSITORY / "boards.toml"), "--board", "loopback"]
    capsys.readouterr()
    assert main([*command, "--images", "2", "--json", "--out", str(tmp_path / "out")]) == 0
    scores = {one["predictor"]: one for one in json.loads(capsys.readouterr().out)["scores"]}
    assert scores["board"]["classes"] == scores["integer simulation"]["classes"]


def _shown_by_the_application(bundle: Path, folder: Path) -> bytes:
    """The class map that the bundle's application makes of the first golden image, as its golden output has it."""
    out = folder / "out"
    argv = [sys.executable, "-I", str(bundle / "infer.py"), str(bundle / "golden/images/0.png"), "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and "post-processing" in done.stdout, done.stderr
    with Image.open(out / "0.classes.png") as image:
        return np.asarray(image).astype(np.int32).tobytes()


def test_a_tail_that_is_none(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, argv = with_tail(finished, tmp_path / "a", 'tail = "logit"')
    assert main(["loop", *argv]) == 2
    one_line(capsys.readouterr().err, "deploy.tail", "logits")
    _, argv = with_tail(finished, tmp_path / "b", "tolerance = -1")
    assert main(["loop", *argv]) == 2
    one_line(capsys.readouterr().err, "deploy.tolerance -1")


def share(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value, None, value - half, value + half, 4, "measured")


CLASSES = MeasuredTail("classes", 40.0, 10e3, 10.0)
LOGITS = MeasuredTail("logits", 40.0, 4e3, 900.0, share(0.4))
NEAREST = MeasuredTail("nearest", 39.4, 3e3, 10.0, share(0.3))


def test_the_fastest_that_keeps_the_metric() -> None:
    def chosen(*tails: MeasuredTail, tolerance: float = 0.5) -> str:
        return fastest((CLASSES, *tails), tolerance)

    assert chosen(LOGITS, NEAREST) == "logits"
    assert chosen(LOGITS, NEAREST, tolerance=0.7) == "nearest"
    assert chosen(MeasuredTail("logits", 40.0, 9.9e3, 900.0, share(0.99, 0.02))) == "classes"  # may be no faster
    assert chosen(MeasuredTail("logits", 40.0, failure="crashed")) == "classes"
    refused = MeasuredTail("classes", 40.0, failure="refused")
    assert fastest((refused, MeasuredTail("logits", 40.0, 4e3, 9.0)), 0.5) == "logits"
    with pytest.raises(ModelError, match=r"with no tail \(classes: refused\)"):
        fastest((refused,), 0.5)


def test_the_report_says_what_it_saves() -> None:
    best, *others = tail_lines(TailRecord("logits", "mIoU", 0.5, (CLASSES, LOGITS, NEAREST)))
    assert best.startswith("tail: logits at output stride") and "saves 60% [59%, 61%] of the teacher's latency" in best
    assert "6.000 ms" in best and len(others) == 3 and "0.900 ms of it after the inference" in others[1]
    assert tail_lines(TailRecord("classes", "top-1", 0.5)) == []
    assert "none that keeps the metric is faster" in tail_lines(TailRecord("classes", "mIoU", 0.5, (CLASSES,)))[0]
