"""The ready configurations of few bits: as the demo but for their widths, and they run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.run.config import Overrides, load_experiment
from deploy.run.shipped import CONFIGURATIONS, SPACES, load_space
from deploy.targets.inspection import inspect_model
from nas.space import SearchSpace
from nas.table import Table
from tests.deploy.tiny_experiment import arguments

WIDTHS = {"demo-few-bits": (4, 6, 8), "demo-int6": (6,), "demo-int4": (4,)}


@pytest.mark.parametrize(
    ("name", "base", "bits"),
    [*((name, "demo", bits) for name, bits in WIDTHS.items()), ("table1-few-bits", "table1", (4, 6, 8))],
)
def test_a_few_bit_space_is_another_ones_but_for_its_bits(name: str, base: str, bits: tuple[int, ...]):
    assert load_space(name) == replace(load_space(base), name=name, bits=bits)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_few_bit_configuration_is_the_demos_but_for_space_and_budgets(name: str):
    few, _ = load_experiment(name, Overrides())
    demo, _ = load_experiment("demo-scenes", Overrides())
    assert few == replace(
        demo, name=name, space=name, budgets=few.budgets, retrain=few.retrain, quantization=few.quantization
    )
    assert few.budgets[0].size == 0.67


def tiny(folder: Path, name: str) -> Path:
    """The configuration at a size that takes seconds: fewer kernels, images and steps."""
    folder.mkdir(parents=True)
    text, space = (files.find(name).read_text(encoding="utf8") for files in (CONFIGURATIONS, SPACES))
    changes = {
        r"\bsteps = \d+": "steps = 2",
        r"\bsize = \[.*\]": "size = [32, 48]",
        r"\btrain = \d+": "train = 16",
        r"\bval = \d+": "val = 4",
        r"_images = \d+": "_images = 4",
    }
    for pattern, new in changes.items():
        text, found = re.subn(pattern, new, text)
        assert found, pattern
    (folder / f"{name}.toml").write_text(text.replace(f'space = "{name}"', 'space = "space.toml"'))
    (folder / "space.toml").write_text(space.replace("kernels = [3, 5, 7]", "kernels = [3]"))
    return folder / f"{name}.toml"


@pytest.mark.parametrize("name", WIDTHS)
def test_a_few_bit_configuration_runs_until_its_tables(name: str, tmp_path: Path):
    config = tiny(tmp_path / "configs", name)
    assert main(["loop", *arguments(config, tmp_path / "runs", "--until", "tables")]) == 0
    run, space = tmp_path / "runs" / name, SearchSpace.load(config.with_name("space.toml"))
    size, nsr = (Table.load(run / "tables" / f"{quantity}.parquet") for quantity in ("size", "nsr"))
    for table in (size, nsr):
        table.check(space)
        assert {subnet.bits for subnet in table.entries} == set(WIDTHS[name])
    for subnet in list(size.entries)[::7]:
        found = inspect_model(read(run / "subnets" / f"{subnet}.tflite"))
        assert found.requested_bits == (subnet.bits,) and found.stored_bits == found.executed_bits == (8,)
        assert found.hilnas is not None and found.hilnas["size_bits"] == size[subnet]
