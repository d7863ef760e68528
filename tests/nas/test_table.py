"""Tables on disk and their sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nas.errors import TableError
from nas.estimate import Estimate
from nas.networks.blocks import SuperBlock
from nas.quant.float_graph import INPUT
from nas.quant.folding import fold_layers
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.space import Architecture, Block, Boundary, SearchSpace
from nas.table import Table, size_table

SPACE = SearchSpace(
    "tiny", 8, 8, (Block(2, 8, 2, 1), Block(1, 16, 1, 1)), kernels=(3, 5), expansions=(1, 3), bits=(4, 8)
)


def test_saved_and_loaded_tables_are_equal(tmp_path):
    table = size_table(SPACE)
    table.save(tmp_path / "size.parquet")
    again = Table.load(tmp_path / "size.parquet")
    assert dict(again.entries) == dict(table.entries)
    assert (again.quantity, again.unit, again.provenance) == (table.quantity, table.unit, table.provenance)
    again.check(SPACE)


def test_interactions_are_in_the_sums_and_in_the_file(tmp_path):
    table = size_table(SPACE)
    first, second = (next(iter(SPACE.subnets(block))) for block in (1, 2))
    architecture, met = Architecture((first, second)), Boundary.between(first, second)
    entry = Estimate(-3.5, 0.5, -4.5, -2.5, 20, "measured")
    interacting = replace(table, interactions={met: entry})
    assert interacting.total(architecture) == table.total(architecture) - 3.5
    interacting.save(tmp_path / "table.parquet")
    loaded = Table.load(tmp_path / "table.parquet")
    assert dict(loaded.interactions) == {met: entry} and loaded.total(architecture) == interacting.total(architecture)
    assert loaded.to_frame().attrs["hilnas"]["format"] == "hilnas-table/3"
    assert table.to_frame().attrs["hilnas"]["format"] == "hilnas-table/2"  # what earlier versions read


@pytest.mark.parametrize("raw", [{"b1_k3e3": {}}, {"b1_k3e3|b2_k3e3": {"value": 1.0}}])
def test_an_interaction_that_is_none_is_refused(tmp_path, raw):
    frame = size_table(SPACE).to_frame()
    frame.attrs["hilnas"] |= {"interactions": raw}
    frame.to_parquet(tmp_path / "table.parquet", engine="pyarrow", index=False)
    with pytest.raises(TableError, match=r"b1_k3e3.*populate it again"):
        Table.load(tmp_path / "table.parquet")


def test_size_is_that_of_the_deployed_integers():
    for subnet in list(SPACE.all_subnets())[::3]:
        supernet = SuperBlock(SPACE, subnet.block).eval()
        nodes = fold_layers(supernet.path(subnet), "b", INPUT, subnet.bits)
        channels = SPACE.input_channels(subnet.block)
        ranges = calibrate(nodes, [torch.randn(1, channels, 8, 8)])
        assert size_table(SPACE)[subnet] == lower(nodes, ranges, (8, 8, channels)).size_bits


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(TableError, match="not a table of this kit"):
        Table.load(path)


def test_a_foreign_parquet_is_refused(tmp_path):
    import pandas as pd

    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match="not a table of this kit"):
        Table.load(tmp_path / "t.parquet")
