"""Cost tables of a folder, budgets in text over them, and a question that is asked without a command line."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.latency.table import CPU_OPERATORS
from deploy.search.budgets import budgets_of, budgets_of_devices
from deploy.search.cost_tables import ON_CPU, cost_tables_of_folder
from deploy.search.query import AnswerRecord, Question, RankedModel, answer
from deploy.search.refined import Refined
from hil.errors import CheckFailed, UsageError
from nas.errors import ConfigError
from nas.estimate import Estimate
from nas.search.prove import Proof
from nas.search.union import CostTables
from nas.space import SearchSpace
from nas.table import Table, size_table
from tests.deploy.cli.test_search_command import SPACE


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.toml").write_text(SPACE)
    return SearchSpace.load(tmp_path / "space.toml")


def table_of(space, quantity: str, seed: int) -> Table:
    values = np.random.default_rng(seed).random(space.count())
    entries = {s: Estimate.exact(float(v)) for s, v in zip(space.all_subnets(), values, strict=True)}
    return Table(quantity, "us", entries, {"space": space.digest, "granularity": "tensor"})


def test_a_folder_gives_what_is_there_and_the_size_is_computed(space, tmp_path):
    with pytest.raises(UsageError, match=r"nsr\.parquet: no such table"):
        cost_tables_of_folder(tmp_path, space)
    table_of(space, "nsr", 0).save(tmp_path / "nsr.parquet")
    tables = cost_tables_of_folder(tmp_path, space)
    assert (tables.name, tables.teacher, tables.outside) == ("tensor int8", {}, {})
    assert set(tables.tables) == {"nsr", "size"}
    assert tables.tables["size"].entries == size_table(space).entries
    table_of(space, "latency", 1).save(tmp_path / "latency.parquet")
    table_of(space, "latency", 2).save(tmp_path / "latency-corrected.parquet")
    table_of(space, "cpu_operators", 3).save(tmp_path / f"{CPU_OPERATORS}.parquet")
    tables = cost_tables_of_folder(tmp_path, space)
    assert set(tables.tables) == {"nsr", "size", "latency", ON_CPU}
    assert tables.tables["latency"].entries == table_of(space, "latency", 2).entries, "the corrected one is taken"


def test_a_share_is_of_the_teacher_that_the_tables_know(space):
    size = size_table(space)
    known = CostTables("", {"size": size}, teacher={"size": 1000.0})
    assert budgets_of(known, "75%", ()) == {"size": 750.0}
    assert budgets_of(known, "1kB", ()) == {"size": 8000.0}
    with pytest.raises(ConfigError, match="no teacher"):
        budgets_of(CostTables("", {"size": size}), "75%", ())
    with pytest.raises(UsageError, match="--latency-budget 3ms: no table of the latency"):
        budgets_of(known, None, ("3ms",))
    with pytest.raises(UsageError, match="--latency-budget a=3ms: no table of 'a'"):
        budgets_of_devices(known, None, ("a=3ms",), ["b"])


def test_a_question_is_answered_without_a_word(space, capsys):
    tables = {"nsr": table_of(space, "nsr", 0), "size": size_table(space), "latency": table_of(space, "latency", 1)}
    main = CostTables("main", tables, {"size": 100.0}, teacher={"size": 1e6})
    record = answer(Question({"size": 2e5}, k=2), space, [main], Refined(stale=("old",))).record
    assert (record.scope, record.objectives, record.stale) == ("full models", ("nsr", "size", "latency"), ("old",))
    assert len(record.selected) == 2 and record.selected[0].costs["nsr"] <= record.selected[1].costs["nsr"]
    assert all(model.costs["size_bits"] <= 2e5 and model.scheme is None for model in record.selected)
    several = answer(Question(objectives=("latency", "nsr")), space, [main, CostTables("other", tables)]).record
    assert several.objectives == ("latency", "nsr") and several.selected[0].scheme in ("main", "other")
    assert several.architectures == 2 * record.architectures
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UsageError, match="--k 0: ask for at least one"):
        Question(k=0)
    with pytest.raises(UsageError, match=r"no table of what stays on the CPU \(main\)"):
        answer(Question(no_cpu_fallback=True), space, [main])


def test_the_record_leaves_out_what_was_not_asked_for():
    model = RankedModel("b1_k3e2_w4", {"nsr": 0.5, "latency_us@a": 3.0})
    record = AnswerRecord("the blocks alone", "two", ("nsr",), 4, 1, 0.1, {}, (model,))
    assert record.to_json().keys() == {
        *("scope", "space", "objectives", "architectures", "front", "seconds", "budgets", "selected")
    }
    assert record.to_json()["selected"] == [{"subnet": "b1_k3e2_w4", "nsr": 0.5, "latency_us@a": 3.0}]
    record.check_proof()
    failed = AnswerRecord("", "two", ("nsr",), 4, 1, 0.1, {}, (), proof=Proof(1, 1, 1, 0, "the front"), stale=("x",))
    assert {"proof", "stale"} <= failed.to_json().keys()
    with pytest.raises(CheckFailed, match="the front differs"):
        failed.check_proof()
