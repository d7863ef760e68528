"""A run on hardware that rounds uint8 as int8: parity, NSRs, keys and evaluations follow the target's arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.run.keys import stage_identities
from deploy.ship.evaluate import _key
from deploy.ship.evaluated_models import ImagesAsked, run_model
from hil.boards.config import BoardConfig
from nas.table import Table
from tests.deploy.npu_stand_in import npu_delegate
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    SUBNETS,
    Finished,
    arguments,
    finished_run,
    one_line,
    record,
    run,
    write_experiment,
)

SCHEMES = ["tensor int8", "tensor uint8"]
NAMED = {"calibration_images = 4\n": f"calibration_images = 4\nschemes = {SCHEMES}\n".replace("'", '"')}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """boards.toml with the stand-in, and targets that say of it what is so (npu) and what is not (cpu)."""
    folder = tmp_path_factory.mktemp("boards")
    rules = (REPOSITORY / "deploy/targets/rules/cpu-xnnpack.toml").read_text()
    (folder / "targets").mkdir()
    text = ""
    for name, arithmetic in (("npu", "xnnpack"), ("cpu", "litert")):
        (folder / "targets" / f"{name}.toml").write_text(f'arithmetic = "{arithmetic}"\n{rules}')
        text += f'[{name}]\nkind = "loopback"\nserver = "asyncssh"\nallow_fallback = true\ntarget = "{name}"\n'
        text += f'delegate = "{npu_delegate(tmp_path_factory)}"\n'
    (folder / "boards.toml").write_text(text)
    return folder / "boards.toml"


def test_uint8_passes_parity_there_and_shares_int8s_nsr(finished: Finished, boards: Path, tmp_path: Path) -> None:
    """Under a CPU's arithmetic the same board is refused: the run's networks are the same, the outputs are not."""
    folder = finished.copy(tmp_path / "runs")
    options = arguments(write_experiment(tmp_path, NAMED), tmp_path / "runs", "--boards", str(boards))
    looped = run("loop", *options, "--until", "search", "--board", "npu")
    assert looped.returncode == 0, looped.stderr
    assert record(folder / "search.json")["schemes"] == ["channel int8", *SCHEMES]
    asked = run("search", *options, "--board", "npu", "--k", "2")
    assert asked.returncode == 0, asked.stderr
    made = record(folder / "schemes.json")
    assert made["arithmetic"] == "xnnpack" and list(made["schemes"]) == SCHEMES
    assert [made["schemes"][scheme]["exact_parity"] for scheme in SCHEMES] == [SUBNETS, SUBNETS]
    int8, uint8 = (Table.load(folder / "tables" / slug / "nsr.parquet") for slug in ("tensor-int8", "tensor-uint8"))
    assert int8.entries == uint8.entries and uint8.provenance["arithmetic"] == "xnnpack"
    for path in (folder / "subnets-tensor-int8").glob("*.expected.bin"):
        shifted = (folder / "subnets-tensor-uint8" / path.name).read_bytes()
        assert bytes(byte ^ 128 for byte in path.read_bytes()) == shifted

    refused = run("loop", *options, "--until", "schemes", "--board", "cpu")
    assert refused.returncode == 4
    one_line(refused.stderr, "models failed on the board", "outputs differ from the expected ones", "by 3 at most")


def test_the_arithmetic_counts_where_it_decides(tmp_path: Path) -> None:
    experiment, space = load_experiment(write_experiment(tmp_path), Overrides())
    named, _ = load_experiment(write_experiment(tmp_path, NAMED), Overrides())
    for one, changed in ((experiment, []), (named, ["schemes", "search", "retrain", "ship"])):
        before, after = (stage_identities(one, space, [], (), arithmetic) for arithmetic in ("litert", "xnnpack"))
        assert [stage for stage in before if before[stage].key != after[stage].key] == changed
    (setting,) = (s for s in before["schemes"].settings if s.name == "target.arithmetic")
    assert setting.value == "litert" and not setting.given  # so that a CPU's keys are those of before there was one


def test_an_evaluations_integers_are_those_of_the_board_that_answers(finished: Finished, boards: Path) -> None:
    experiment, space = load_experiment(finished.config, Overrides())
    context = Context(experiment, space, Run.viewed(finished.folder), boards)
    images = ImagesAsked("scenes", "val", count=1)
    keys = set()
    for board, arithmetic in (("npu", "xnnpack"), ("cpu", "litert"), (None, "litert")):
        config = BoardConfig(board, "loopback", target=board) if board else None
        model, _ = run_model(context, "fast", images, config)
        assert model.arithmetic == arithmetic
        keys.add(_key(model, "sha256", {}))
    assert len(keys) == 2  # what one arithmetic scored is not taken for another's
