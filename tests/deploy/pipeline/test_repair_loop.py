"""`hilnas lut latency --repair` on a board on which block 1 slows the stem, unknown to the code that repairs."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.latency.interactions import REPAIRS
from deploy.latency.pairs import PairWriter, pairs_across
from deploy.latency.versions import Lineage, before_repairs, versions
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.models import quantized_teacher
from deploy.run.weights import of_run
from deploy.search.cost_tables import cost_tables_of_run
from deploy.targets.inspection import inspect_model
from hil.store import Store
from nas.space import Architecture, Boundary
from nas.table import Table
from tests.deploy.networks import interpret
from tests.deploy.pipeline.planted_board import PlantedSession, copied_runs, options, planted_run
from tests.deploy.tiny_experiment import one_line, record, stored


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("repair"), (2, 1, 2), models=30)


@pytest.fixture
def runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied_runs(config, tmp_path, monkeypatch)


def planted(monkeypatch: pytest.MonkeyPatch, **us: float) -> None:
    for name, value in us.items():
        monkeypatch.setattr(PlantedSession, name, value)


def test_agree_names_the_stem_and_the_repair_measures_it(config, runs, monkeypatch, capfd):
    planted(monkeypatch, stem_us=2000.0)
    assert main(["agree", *options(config, runs)]) in (0, 1)
    said = capfd.readouterr()
    assert "the errors follow b1/0 e6 (" in said.out and "measure blocks across stem|b1 (`hilnas lut" in said.out
    folder = runs / "tiny"
    before = record(folder / "agreement.json")
    assert before["agreement"]["tau_b"] < 0.95 and before["suspects"][0]["boundaries"] == ["stem|b1"]
    assert "repairs" not in before
    measured = len(stored(folder))

    assert main(["lut", "latency", "--repair", "1h", *options(config, runs)]) == 0
    said = capfd.readouterr()
    after = record(folder / "agreement.json")
    [done] = after["repairs"]
    assert f"repaired: {done['graphs']} pairs across stem|b1 in " in said.out and "stem|b1 e6 +" in said.out
    assert after["agreement"]["tau_b"] >= 0.97 and after["gate"]["holds"]
    assert [s["subnet"] for s in after["samples"]] == [s["subnet"] for s in before["samples"]]
    assert [s["measured_us"] for s in after["samples"]] == [s["measured_us"] for s in before["samples"]]
    assert len(stored(folder)) == measured + 2 * done["graphs"]  # in two rounds; no model was measured again
    assert not (folder / "pairs").exists()
    assert done["effects_us"]["stem|b1 e6"] == pytest.approx(2000, rel=0.05)
    assert done["board_s"] > 0 and done["tau_b_before"] == before["agreement"]["tau_b"]

    table = Table.load(folder / "tables" / "latency.parquet")
    lineage = Lineage.of(table)
    assert lineage.how == "repaired" and REPAIRS not in before_repairs(table, folder / "tables").provenance
    assert [v.lineage.how for v in versions(folder / "tables") if v.name == "latency" and v.current] == ["repaired"]

    assert main(["lut", "latency", "--repair", *options(config, runs)]) == 0  # it agrees: nothing is measured
    assert len(stored(folder)) == measured + 2 * done["graphs"]
    assert record(folder / "agreement.json") == after


def test_pairs_answer_as_the_simulation(config, runs):
    """Across every boundary, on the run's own networks: the runtime's bytes are the golden ones."""
    experiment, space = load_experiment(config, Overrides(board="planted"))
    with Run(runs / "tiny") as run:
        context = Context(experiment, space, run, config.parent / "boards.toml")
        origin, reference = of_run(context, experiment.quantization.scheme), quantized_teacher(context)
        writer = PairWriter(origin, reference, context.evaluation[:1], runs / "pairs", "key")
        pairs = [pair for boundary in range(4) for pair in islice(pairs_across(space, boundary, 0), 2)]
        for pair, artifact in zip(pairs, writer.write(pairs), strict=True):
            assert artifact.name == str(pair)
            shape = inspect_model(read(artifact.model)).inputs[0].shape
            q = np.frombuffer(artifact.input.read_bytes(), np.int8).reshape(shape)
            assert interpret(artifact.model.read_bytes(), q).tobytes() == artifact.expected.read_bytes()


def test_interactions_reach_the_search(config, runs, monkeypatch, capfd):
    planted(monkeypatch, meeting_us=2500.0)
    assert main(["lut", "latency", "--repair", "1h", "--json", *options(config, runs)]) == 0
    after = json.loads(capfd.readouterr().out)
    assert after["agreement"]["tau_b"] >= 0.97
    folder = runs / "tiny"
    table = Table.load(folder / "tables" / "latency.parquet")
    assert {(b.block, b.last.expansion, b.first.kernel) for b in table.interactions} >= {(2, 6, 5)}
    strong = table.interactions[Boundary.parse("b2_k3e6|b3_k5e3")]
    assert strong.value == pytest.approx(2500, rel=0.1) and strong.source == "measured"
    assert main(["lut", "latency", *options(config, runs)]) == 0
    assert "b2|b3: " in capfd.readouterr().out
    corrected = Table.load(folder / "tables" / "latency-corrected.parquet")
    assert dict(corrected.interactions) == dict(table.interactions)
    assert main(["search", *options(config, runs)]) == 0
    main_tables, *_ = cost_tables_of_run(folder)
    found = record(folder / "search.json")
    for point in found["pareto_front"]:
        architecture = Architecture.parse(point["subnet"])
        assert main_tables.total("latency", architecture) == pytest.approx(point["latency_us"])
    first, second = versions(folder / "tables")[-2:]
    capfd.readouterr()
    profiled = next(v for v in versions(folder / "tables") if v.lineage.how == "predicted").lineage.version
    repaired = next(v for v in versions(folder / "tables") if v.lineage.how == "repaired").lineage.version
    assert main(["lut", "latency", "diff", profiled, repaired, *options(config, runs)]) == 0
    assert "interactions at block boundaries differ" in capfd.readouterr().out
    assert first.lineage.version != second.lineage.version


def test_a_board_without_interactions_triggers_none(config, runs, monkeypatch, capfd):
    """Noise alone takes the table below the gate: nothing is named, measured or changed."""
    planted(monkeypatch, noise=0.03)
    assert main(["agree", *options(config, runs)]) in (0, 1)
    assert "the errors follow" not in capfd.readouterr().out
    folder = runs / "tiny"
    agreed = record(folder / "agreement.json")
    assert agreed["agreement"]["tau_b"] < 0.97 and "suspects" not in agreed
    before, content = len(stored(folder)), (folder / "tables" / "latency.parquet").read_bytes()
    assert main(["lut", "latency", "--repair", *options(config, runs)]) == (0 if agreed["gate"]["holds"] else 1)
    assert len(stored(folder)) == before
    assert (folder / "tables" / "latency.parquet").read_bytes() == content


def test_what_is_measured_and_found_fine_is_not_changed(config, runs, monkeypatch, capfd):
    """Models that are slower than their pairs of neighbours: an effect that no pair shows."""
    planted(monkeypatch, stem_us=2000.0)
    assert main(["agree", *options(config, runs)]) in (0, 1)
    capfd.readouterr()
    planted(monkeypatch, stem_us=0.0)
    folder = runs / "tiny"
    content = (folder / "tables" / "latency.parquet").read_bytes()
    assert main(["lut", "latency", "--repair", "1h", *options(config, runs)]) == 1
    one_line(
        capfd.readouterr().err, "pairs of neighbours across stem|b1 show nothing that brings", "nothing is repaired"
    )
    assert (folder / "tables" / "latency.parquet").read_bytes() == content


@pytest.mark.parametrize(
    "words, said",
    [
        (("latency", "--repair", "soon"), "'soon' is no time"),
        (("nsr", "--repair"), "lut nsr --repair: only a latency table is repaired"),
        (("latency", "versions", "--repair"), "lut latency versions --repair: one of both"),
    ],
)
def test_options_that_do_not_go_together(config, runs, capfd, words, said):
    assert main(["lut", *words, *options(config, runs)]) == 2
    assert said in capfd.readouterr().err


def test_too_small_a_budget_is_refused(config, runs, monkeypatch, capfd):
    planted(monkeypatch, stem_us=2000.0)
    monkeypatch.setattr("deploy.pipeline.repair.SHARE", 1e-6)
    assert main(["lut", "latency", "--repair", *options(config, runs)]) == 2
    assert "fewer than 8 pairs of neighbours across stem|b1; give more" in capfd.readouterr().err


def test_a_killed_repair_continues(config, runs, monkeypatch, capfd):
    """What the store holds is not measured again, and a kill before the table was written changes nothing."""
    planted(monkeypatch, stem_us=2000.0)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deploy.pipeline.repair.save_version", killed)
        assert main(["lut", "latency", "--repair", "1h", *options(config, runs)]) != 0
    folder = runs / "tiny"
    with Store(folder / "measurements.sqlite") as store:
        count = len(store.all())
    assert main(["lut", "latency", "--repair", "1h", *options(config, runs)]) == 0
    with Store(folder / "measurements.sqlite") as store:
        assert len(store.all()) == count
    assert record(folder / "agreement.json")["agreement"]["tau_b"] >= 0.97
