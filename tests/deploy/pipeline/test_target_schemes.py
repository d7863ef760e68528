"""Which quantization schemes a run searches: those of the configuration, or else those of its board's target."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cli import main
from deploy.compile.scheme import QuantizationScheme
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.targets.placement import load_target
from tests.deploy.tiny_experiment import REPOSITORY, STAGES, arguments, finished_run, one_line, write_experiment

NATIVE = ["tensor uint8", "tensor int8"]
LATER = ("schemes", "search", "retrain", "ship")


def boards(folder: Path, schemes: object = tuple(NATIVE)) -> Path:
    """A loopback board whose target is XNNPACK's, with schemes of its own."""
    rules = (REPOSITORY / "deploy/targets/rules/cpu-xnnpack.toml").read_text()
    (folder / "targets").mkdir()
    (folder / "targets" / "native.toml").write_text(f"schemes = {list(schemes)}\n{rules}")  # type: ignore[call-overload]
    (folder / "boards.toml").write_text('[loopback]\nkind = "loopback"\ntarget = "native"\n')
    return folder / "boards.toml"


def written(line: str) -> dict[str, str]:
    return {"calibration_images = 4\n": f"calibration_images = 4\n{line}\n"}


def opened(folder: Path, boards_file: Path, changes: dict[str, str] | None = None) -> Context:
    experiment, space = load_experiment(write_experiment(folder, changes), Overrides())
    with Run(folder / "run") as run:
        return Context(experiment, space, run, boards_file)


def test_the_target_decides_and_the_keys_say_what(tmp_path: Path) -> None:
    own = boards(tmp_path)
    by_target = opened(tmp_path / "target", own)
    assert by_target.target_schemes
    assert [str(scheme) for scheme in by_target.experiment.quantization.other_schemes] == NATIVE
    assert by_target.identities["schemes"].values == {"quantization.schemes": NATIVE, "target.arithmetic": "litert"}
    by_hand = opened(tmp_path / "hand", own, written(f"schemes = {NATIVE}"))
    assert not by_hand.target_schemes and by_hand.keys == by_target.keys
    one = opened(tmp_path / "one", own, written('schemes = ["tensor int8"]'))
    assert one.identities["schemes"].values["quantization.schemes"] == NATIVE[1:]


def test_an_empty_list_is_none_whatever_the_target_has(tmp_path: Path) -> None:
    none = opened(tmp_path / "none", boards(tmp_path), written("schemes = []"))
    plain = opened(tmp_path / "plain", REPOSITORY / "boards.toml")
    for context in (none, plain):
        assert context.experiment.quantization.other_schemes == () and "schemes" not in context.keys


def test_the_main_scheme_is_not_searched_twice(tmp_path: Path) -> None:
    context = opened(tmp_path / "run", boards(tmp_path), written('granularity = "tensor"'))
    assert context.experiment.quantization.main_scheme == QuantizationScheme("tensor")
    assert context.experiment.quantization.schemes == ("tensor uint8",)


def test_the_npu_searches_its_native_schemes() -> None:
    target = load_target(None, "imx8mp-vx")
    assert target.schemes == ("tensor uint8", "tensor int8")
    assert [str(QuantizationScheme.parse(text)) for text in target.schemes] == list(target.schemes)


def test_explain_says_which_schemes_and_whose(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run on a board that gets a target keeps what it has; a run on the NPU is planned with both."""
    finished = finished_run(tmp_path_factory)
    finished.copy(tmp_path / "runs")
    (tmp_path / "native").mkdir()
    again = ["--boards", str(boards(tmp_path / "native"))]
    assert main(["loop", "--explain", *arguments(finished.config, tmp_path / "runs"), *again]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert tuple(lines)[-4:] == LATER
    named = "never run yet (tensor uint8, tensor int8: by the board's target native)"
    assert lines["schemes"].endswith(named) and lines["tables"] == "done"

    assert main(["loop", "--explain", *arguments(finished.config, tmp_path / "new", "--board", "imx8mp")]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == [*STAGES[:3], "tail", *STAGES[3:5], *LATER]
    assert lines["schemes"] == f"runs: {named.replace('native', 'imx8mp-vx')}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed = 0\n": "seed = 0\npredictor = { objective = true }\n"}, "predictor.objective"),
        ({"[profile]\n": '[profile]\nform = "exchanged"\n'}, "profile.form 'exchanged'"),
    ],
)
def test_what_does_not_go_with_the_target_s_schemes_names_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], words: str
) -> None:
    config, own = write_experiment(tmp_path, changes), boards(tmp_path)
    assert main(["loop", *arguments(config, tmp_path / "runs"), "--boards", str(own)]) == 2
    said = capsys.readouterr().err
    one_line(said, "schemes tensor uint8, tensor int8 of target 'native'", words, "set quantization.schemes = []")
    again = write_experiment(tmp_path, {**changes, **written("schemes = []")})
    assert main(["loop", "--explain", *arguments(again, tmp_path / "runs"), "--boards", str(own)]) == 0


def test_a_target_with_a_scheme_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = boards(tmp_path, ("tensor uint9",))
    assert main(["loop", "--explain", *arguments(write_experiment(tmp_path), tmp_path), "--boards", str(own)]) == 2
    one_line(capsys.readouterr().err, "target 'native'", "scheme 'tensor uint9': write")
