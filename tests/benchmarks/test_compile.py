"""compile_subnets: from folded float blocks to .tflite files on one core; compile_table1: a whole space on two."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

import psutil
import pytest
import torch

from deploy.compile.library import write_all
from deploy.compile.weights import Origin
from deploy.formats.tflite.writer import write
from nas.engine.local import Local
from nas.networks.blocks import SuperBlock, recalibrate
from nas.quant.float_graph import INPUT
from nas.quant.folding import fold_layers
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.space import Block, SearchSpace

LIMIT = 300.0  # subnets a second
TABLE1_LIMIT = 20.0  # seconds
FLAT = 1.10  # the workers' memory at the end, as a share of that after a quarter
SPACE = SearchSpace("bench", 64, 64, (Block(1, 64, 4, 4),))
HEIGHT, WIDTH = 32, 64


def random_blocks(count: int):
    """(nodes, ranges) of random 4-layer, 64-channel blocks with calibrated ranges, and the calibration maps."""
    torch.manual_seed(0)
    rng = random.Random(0)
    supernet = SuperBlock(SPACE, 1).eval()
    x = torch.randn(4, 64, HEIGHT, WIDTH)
    blocks = []
    for subnet in rng.sample(list(SPACE.subnets(1)), count):
        y = x
        for layer in supernet.path(subnet):
            y = recalibrate(layer, y)
        nodes = fold_layers(supernet.path(subnet), "b", INPUT)
        blocks.append((nodes, calibrate(nodes, [x])))
    return blocks, x


@pytest.mark.benchmark(group="compile")
def test_compile_subnets(benchmark, tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")
    from deploy.formats.keras import converted

    torch.set_num_threads(1)
    blocks, x = random_blocks(24)

    def ours() -> int:
        return sum(len(write(lower(nodes, ranges, (HEIGHT, WIDTH, 64)))) for nodes, ranges in blocks)

    benchmark.pedantic(ours, rounds=7, warmup_rounds=1)
    converted(blocks[0][0], x)  # warm-up
    theirs = []
    for nodes, _ in blocks[:5]:
        start = time.perf_counter()
        converted(nodes, x)
        theirs.append(time.perf_counter() - start)
    litert = litert_torch_seconds(tmp_path)
    per_second = len(blocks) / benchmark.stats.stats.median
    ratio = per_second * statistics.median(theirs)
    benchmark.extra_info.update(
        figure=per_second,
        unit="subnets/s",
        limit=LIMIT,
        holds=per_second >= LIMIT,
        ratio=ratio,
        against="TFLiteConverter",
        **({"litert_torch_s": litert} if litert else {}),
    )


def litert_torch_seconds(folder: Path) -> float | None:
    """What litert-torch needs for one of the blocks, in float; None where it is not installed."""
    try:
        import litert_torch
    except ImportError as error:
        print(f"litert-torch is left out: {error}")
        return None
    supernet = SuperBlock(SPACE, 1).eval()
    network = torch.nn.Sequential(*supernet.path(next(SPACE.subnets(1)))).eval()
    start = time.perf_counter()
    litert_torch.convert(network, (torch.randn(1, 64, HEIGHT, WIDTH),)).export(str(folder / "theirs.tflite"))
    return time.perf_counter() - start


class Peaks:
    """The largest resident memory of this process's children, all together, in MB, while subnets are written."""

    def __init__(self) -> None:
        self.by_share: dict[float, float] = {}
        self.now = 0.0

    def see(self, share: float) -> None:
        self.now = max(self.now, sum(resident_bytes(child) for child in psutil.Process().children()) / 1e6)
        self.by_share[share] = self.now

    def until(self, share: float) -> float:
        return max(peak for seen, peak in self.by_share.items() if seen <= share)


def resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


@pytest.mark.benchmark(group="compile")
def test_compile_table1(benchmark, tmp_path):
    """As `hilnas compile --space nas/spaces/table1.toml --size 180x240 --all --jobs 2`, less its own start."""
    space = SearchSpace.load(Path(__file__).parents[2] / "nas/spaces/table1.toml")
    peaks = Peaks()

    def whole() -> None:
        for written, total in write_all(Origin(space, (180, 240)), space.bits, tmp_path, Local(2)):
            peaks.see(written / total)

    benchmark.pedantic(whole, rounds=1)
    seconds = benchmark.stats.stats.max
    files = [path.stat().st_size for path in tmp_path.glob("*.tflite")]
    assert len(files) == space.count() == 3246
    growth = peaks.until(1.0) / peaks.until(0.25)
    benchmark.extra_info.update(
        figure=seconds,
        unit="s for 3246 subnets on two cores",
        limit=TABLE1_LIMIT,
        holds=seconds <= TABLE1_LIMIT and growth <= FLAT,
        peak_mb_after_a_quarter=peaks.until(0.25),
        peak_mb=peaks.until(1.0),
        memory_growth=growth,
        files=len(files),
        bytes=sum(files),
    )
