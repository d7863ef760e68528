"""`hilnas lcpaq` on a tiny network and the loopback board: from sensitivity to a verified bundle; what it refuses."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.cli import main, parser
from deploy.cli.lcpaq import LcpaqOptions, _settings
from deploy.cli.options import record as options_record
from deploy.compile.artifact import quantize
from deploy.formats.digest import file_digest
from deploy.formats.journal import Journal
from deploy.formats.tflite.read import read
from deploy.latency.overhead import COPIES
from deploy.lcpaq import proxy
from deploy.lcpaq.latency import (
    EMPTY,
    boundary_shapes,
    compiled,
    isolated,
    isolated_layers,
    solved,
)
from deploy.lcpaq.settings import StepSettings
from deploy.run.config import Overrides, load_experiment
from deploy.ship.evaluation import ImageScore
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.manifest import Manifest
from deploy.ship.provenance import Provenance
from deploy.targets.inspection import inspect_model
from nas.estimate import Estimate
from nas.lcpaq import traces
from nas.lcpaq.policy import Policy, policy_of
from nas.lcpaq.proxy import grid_size
from nas.lcpaq.trial import SPACE as HYPERPARAMETERS
from nas.networks.classifier import Classifier
from nas.quant import simulate
from nas.quant.integer_graph import IntegerGraph, Weighted
from nas.space import Block, SearchSpace
from nas.tasks.task import fold
from tests.deploy.networks import random_integers, widest_span
from tests.deploy.tiny_experiment import REPOSITORY, arguments, environment, one_line, record, write_experiment

QUICK = (
    "--images",
    "8",
    "--scoring-images",
    "16",
    "--k",
    "3",
    "--trials",
    "2",
    "--tuning-steps",
    "4",
    "--bits",
    "3,4,8",
)
CHANGES = {"train = 16": "train = 64", "size = [64, 96]": "size = [32, 48]"}
LIMITS = ("--size-limit", "67%", "--bops-limit", "80%", "--measure-latency")
SPACE = SearchSpace("t", 8, 8, (Block(2, 16, 1, 3), Block(1, 16, 1, 1)), kernels=(3,), expansions=(2,))


def lcpaq(action: str, config: Path, runs: Path, *more: str) -> int:
    return main(["lcpaq", action, *arguments(config, runs, *QUICK, *more)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the configuration, LCPAQ's folder) after everything."""
    base = tmp_path_factory.mktemp("lcpaq")
    config = write_experiment(base, CHANGES)
    assert lcpaq("run", config, base / "runs", *LIMITS, "--plot", str(base / "plot.svg")) == 0
    return config, base / "runs" / "tiny" / "lcpaq" / "teacher"


def test_a_run_ends_in_a_verified_bundle_of_the_policys_bits_within_the_limits(finished: tuple[Path, Path]):
    config, folder = finished
    solution, refined, shipped = (record(folder / f"{name}.json") for name in ("solve", "refine", "shipped"))
    policy = Policy.parse(refined["best"])
    assert shipped["verified"] and (folder / "bundle" / "manifest.json").exists()
    assert (
        shipped["size_bits"] <= solution["limits"]["size_bits"] == pytest.approx(0.67 * solution["int8"]["size_bits"])
    )
    assert all(one["costs"]["bops"] <= solution["limits"]["bops"] for one in refined["scored"])
    assert policy.bits["stem"] == policy.bits["logits"] == 8 and len(set(policy.bits.values())) > 1
    metadata = inspect_model(read(folder / "models" / "lcpaq-teacher.tflite"))
    assert metadata.requested_bits == tuple(sorted(set(policy.bits.values())))
    assert {
        name: layer["weight_bits"] for name, layer in record(folder / "policy.json")["layers"].items()
    } == policy.bits
    assert record(folder / "sensitivity.json")["layers"].keys() == record(folder / "latency.json")["layers"].keys()
    proxy = record(folder / "proxy.json")
    assert proxy["reached"][0] == 2 >= proxy["reached"][-1] >= 1
    assert "sensitivity by layer" in (config.parent / "plot.svg").read_text() and (folder / "lcpaq.html").exists()


def test_what_is_done_is_not_done_again(finished: tuple[Path, Path]):
    config, folder = finished
    kept = ("sensitivity.json", "latency.json", "refine.json", "scores.jsonl", "shipped.json", "bundle/manifest.json")
    before = {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert lcpaq("run", config, folder.parents[2], *LIMITS) == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == before


def settings_of(*words: str) -> StepSettings:
    return _settings(options_record(LcpaqOptions, parser().parse_args(["lcpaq", *words])))


def test_the_bundles_card_and_the_command_that_makes_it_again(finished: tuple[Path, Path]) -> None:
    _, folder = finished
    bundle, shipped, policy = folder / "bundle", record(folder / "shipped.json"), record(folder / "refine.json")["best"]
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf8")
    evaluation = EvaluationRecord.read(bundle / EvaluationRecord.FILE)
    assert evaluation.model_sha256 == file_digest(bundle / "model.tflite")
    accuracy = Manifest.read(bundle / Manifest.FILE).accuracy
    assert accuracy is not None and accuracy.board is not None
    assert accuracy.int8 == accuracy.board.score.value == shipped["int8"]
    of_images = folder.parents[1] / "evaluations" / "lcpaq-teacher.jsonl"
    assert len(Journal(of_images, ImageScore, shipped["evaluation"]).read()) == 4
    for words in (
        "# Model card: tiny-lcpaq-teacher",
        f"| **lcpaq-teacher** | {shipped['fp32']:.2f} | {shipped['int8']:.2f} | {accuracy.board.score.value:.2f} [",
        f"| 8 bits everywhere | {shipped['fp32']:.2f} | {shipped['int8_all8']:.2f} |",
        "- Less 8 bits everywhere, INT8: ",
        "| class | lcpaq-teacher | 8 bits everywhere |",
        "bits run as 8 bits: they save size, not time.",
        f"The network teacher of the run tiny, its bits assigned layer by layer by LCPAQ: {policy}.",
    ):
        assert words in card, f"{words!r} is not in\n{card}"
    provenance = Provenance.read(bundle / Provenance.FILE)
    assert provenance.command in card and provenance.keys["lcpaq"] == shipped["key"]
    program, *words = shlex.split(provenance.command)
    assert (program, words[:2]) == ("hilnas", ["lcpaq", "run"])
    assert settings_of(*words[1:]) == settings_of("run", *QUICK, *LIMITS)
    again, space = load_experiment(bundle / words[words.index("--config") + 1], Overrides())
    assert again.name == "tiny" and space.name == "tiny" and "experiment.toml" in words


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--bops-limit", "50%", "--latency-limit", "3.5 ms"),
        ("--bops-limit", "50%", "--size-limit", "67%"),
        ("--bits", "4,8", "--tie-bits", "--size-limit", "250kB"),
        ("--activation-bits", "4,6", "--all-layers", "--measure-latency", "--sensitivity", "sqnr", "--k", "3"),
        ("--images", "3", "--scoring-images", "5", "--trials", "2", "--tuning-steps", "0", "--size-limit", "blocks"),
        ("--fix", "distillation=0", "--fix", "observer=percentile 99.9"),
    ],
)
def test_settings_as_options(words: tuple[str, ...]) -> None:
    settings = settings_of("run", *words)
    assert settings_of("run", *settings.options) == settings and len(settings.options) <= len(words) + 1


def test_what_is_fixed_is_not_searched() -> None:
    fixed = ("--fix", "distillation=0.0", "--fix", "equalize=True", "--fix", "learning_rate=1e-4")
    space = settings_of("run", *fixed).space
    assert (space["distillation"], space["equalize"], space["learning_rate"]) == ((0.0,), (True,), (1e-4,))
    rest = space.keys() - {"distillation", "equalize", "learning_rate"}
    assert {name: space[name] for name in rest} == {name: HYPERPARAMETERS[name] for name in rest}


def test_what_is_fixed_altogether_ships_whatever_held_out_images_prefer(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, done = finished
    folder = Path(shutil.copytree(done.parents[1], tmp_path / "tiny")) / "lcpaq" / "teacher"
    monkeypatch.setattr(proxy, "score_integer", lambda *_: 50.0)  # a tie, in which the run's scheme wins
    given = {name: values[-1] for name, values in HYPERPARAMETERS.items()}
    fixed = [word for name, value in given.items() for word in ("--fix", f"{name}={value}")]
    assert lcpaq("run", config, tmp_path, *LIMITS, *fixed[2:]) == 0
    assert record(folder / "shipped.json")["quantized_by"] == "the run's scheme"
    assert lcpaq("run", config, tmp_path, *LIMITS, *fixed) == 0
    proxied, shipped = record(folder / "proxy.json"), record(folder / "shipped.json")
    assert {name: proxied["best"][name] for name in given} == given and proxied["grid_settings"] == 1
    assert shipped["quantized_by"] == "the settings given" and shipped["verified"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fix", "distillation=2"), ("--fix distillation=2", "distillation is one of 0, 0.5")),
        (("--fix", "equalize"), ("--fix equalize", "equalize is one of false, true")),
        (("--fix", "equalize=true", "--fix", "equalize=false"), ("equalize is fixed twice",)),
        (("--fix", "momentum=1"), ("--fix momentum=1", "the proxy searches granularity, observer")),
        (("--size-limit", "20%"), ("no policy fits size_bits", "give size_bits", "% more")),
        (("--size-limit", "67"), ("--size-limit 67", "% of INT8's")),
        (("--size-limit", "blocks"), ("teacher has no block bits",)),
        (("--latency-limit", "50%"), ("no policy fits latency_us",)),
        (("--model", "nobody"), ("--model nobody", "teacher, fast")),
        (("--bits", "1,8"), ("2 to 8 bits, not 1",)),
        (("--bits", "four"), ("--bits four", "4,6,8")),
        (("--activation-bits", "3,8"), ("--activation-bits: activations take 4 to 8 bits, not 3",)),
        (("--activation-bits", "4,6"), ("first and the last layer keep 8 bits", "--all-layers")),
        (("--bits", "2,3", "--tie-bits"), ("--activation-bits: none of them is one of --bits",)),
        (("--sensitivity", "guess"), ("--sensitivity guess", "hessian, quadratic, fisher, nsr, sqnr")),
        (("--k", "0"), ("at least 1",)),
    ],
)
def test_bad_input_is_one_line(
    finished: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: tuple[str, ...],
):
    config, folder = finished
    assert lcpaq("solve", config, folder.parents[2], *options) == 2
    one_line(capsys.readouterr().err, *words)


def test_activations_of_fewer_bits_save_bit_operations_all_the_way_into_the_bundle(
    finished: tuple[Path, Path], tmp_path: Path
):
    """The image too: what stands in the bundle says how to make one."""
    config, done = finished
    folder = Path(shutil.copytree(done.parents[1], tmp_path / "tiny")) / "lcpaq" / "teacher"
    quick = ("--sensitivity", "sqnr", "--trials", "1", "--tuning-steps", "0", "--all-layers", "--fix", "observer=mse")
    assert lcpaq("run", config, tmp_path, *quick, "--activation-bits", "4,6", "--bops-limit", "80M") == 0
    sensitivity, refined, shipped = (record(folder / f"{name}.json") for name in ("sensitivity", "refine", "shipped"))
    assert sensitivity["activations"].keys() == sensitivity["layers"].keys()
    assert list(sensitivity["activations"]["stem"]) == ["4", "6"]
    proxied = record(folder / "proxy.json")
    assert proxied["best"]["observer"] == "mse" and 5 * proxied["grid_settings"] == grid_size(HYPERPARAMETERS)
    policy = Policy.parse(refined["best"])
    assert set(policy.activations.values()) <= {4, 6} and shipped["verified"]
    assert all(one["costs"]["bops"] <= 80e6 for one in refined["scored"])
    assert policy.activations["head/pointwise"] == policy.activations["head/dilated0"]
    metadata = inspect_model(read(folder / "models" / "lcpaq-teacher.tflite"))
    assert metadata.hilnas is not None and metadata.hilnas["policy"] == refined["best"]
    (source,), preprocessing = metadata.inputs, record(folder / "bundle" / "preprocessing.json")
    levels = 2 ** policy.activations["stem"] - 1
    assert source.scale == (preprocessing["scale"],) == pytest.approx((255 / 128 / levels,))
    image = np.fromfile(folder / "bundle" / "golden" / "0.input.bin", np.int8)
    assert image.min() >= 127 - levels and preprocessing["from_uint8"].startswith("int8 = round((uint8 - 128) / 128 / ")


KILLED = """
import os, signal, sys
from deploy.cli import main
from deploy.formats.journal import Journal
append = Journal.append
def dies(self, *records):
    append(self, *records)
    os.kill(os.getpid(), signal.SIGKILL)
Journal.append = dies
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on(finished: tuple[Path, Path], tmp_path: Path):
    config, done = finished
    folder = Path(shutil.copytree(done.parents[1], tmp_path / "tiny")) / "lcpaq" / "teacher"
    for made in ("refine.json", "scores.jsonl"):
        (folder / made).unlink()
    command = ["lcpaq", "refine", *arguments(config, tmp_path, *QUICK)]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *command], cwd=REPOSITORY, env=environment(), timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL and not (folder / "refine.json").exists()
    scored = record(folder / "scores.jsonl")
    line = json.dumps({**scored, "score": 99.0})  # would be another, were it scored again
    (folder / "scores.jsonl").write_text(f"{line}\n")
    sensitivity = (folder / "sensitivity.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (folder / "sensitivity.json").stat().st_mtime_ns == sensitivity
    assert max(one["score"] for one in record(folder / "refine.json")["scored"]) == 99.0


@pytest.mark.parametrize(
    ("name", "options"),
    [("sensitivity.jsonl", ()), ("activations.jsonl", ("--activation-bits", "4,8", "--all-layers"))],
)
def test_rounds_of_a_killed_sensitivity_are_not_computed_again(
    name: str, options: tuple[str, ...], finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, done = finished
    folder = Path(shutil.copytree(done.parents[1], tmp_path / "tiny")) / "lcpaq" / "teacher"
    assert lcpaq("sensitivity", config, tmp_path, *options) == 0
    before = record(folder / "sensitivity.json")
    (folder / "sensitivity.json").unlink()
    journal = folder / name
    *rounds, last = journal.read_text().splitlines()
    journal.write_text("".join(f"{line}\n" for line in rounds) + last[: len(last) // 2])
    computed = []
    sampled = traces.sampled
    monkeypatch.setattr(traces, "sampled", lambda *given, **how: computed.append(given) or sampled(*given, **how))
    assert lcpaq("sensitivity", config, tmp_path, *options) == 0
    assert len(computed) == 1, "the round that was cut off"
    again = record(folder / "sensitivity.json")
    assert {**again, "cpu_s": 0} == {**before, "cpu_s": 0}
    assert len(journal.read_text().splitlines()) == len(rounds) + 1


# Parts


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(SPACE, SPACE.teacher_layers, 4, 16).eval()


@pytest.fixture(scope="module")
def graph(model: Classifier) -> IntegerGraph:
    return quantize(model, [torch.rand(4, 3, 32, 32) * 2 - 1], (32, 32))


def test_the_compiler_takes_a_policy(model: Classifier):
    names = list(policy_of(fold(model, (32, 32))).bits)
    policy = Policy({name: 3 + i % 4 for i, name in enumerate(names)})
    graph = quantize(model, [torch.rand(4, 3, 32, 32) * 2 - 1], (32, 32), policy=policy)
    found = {op.name: op.bits for op in graph.operators if isinstance(op, Weighted)}
    assert found == policy.bits
    assert all(widest_span(op) < 2**op.bits for op in graph.operators if isinstance(op, Weighted))


def test_a_layer_alone_answers_as_inside_the_network_and_equal_ones_are_measured_once(
    graph: IntegerGraph, tmp_path: Path
):
    q = random_integers(graph, 0)
    env = {graph.input: q}
    simulate.simulate(graph.operators, graph.tensors, env)
    layers = [op for op in graph.operators if isinstance(op, Weighted)]
    for layer in layers:
        assert torch.equal(simulate.run(isolated(graph, layer), env[layer.x]), env[layer.name])
    measured = isolated_layers(graph)
    assert list(measured) == [layer.name for layer in layers]
    assert measured["b1/1/depthwise"] is measured["b1/2/depthwise"] is not measured["b1/0/depthwise"]
    files = {artifact.name for artifact in compiled(graph, torch.zeros(1, 3, 32, 32), tmp_path, "key")}
    distinct = len({id(one) for one in measured.values()})
    assert len(files) == distinct + 1 + len(COPIES) * len(boundary_shapes(graph)) < len(layers) + 2 * len(layers)


def test_a_layers_own_time_is_less_the_call_and_half_of_its_ends(graph: IntegerGraph):
    ends = {shape: 2.0 * i for i, shape in enumerate(boundary_shapes(graph), start=1)}
    times = {EMPTY: Estimate.exact(10.0)}
    for shape, end in ends.items():
        for count in COPIES:
            times[f"copy-{'x'.join(map(str, shape))}-{count}"] = Estimate.exact(10 + end + 3 * count)
    true = {}
    for i, (name, one) in enumerate(isolated_layers(graph).items()):
        x, y = (ends[one.tensors[end].shape] for end in (one.input, one.output))
        file = "layer-" + one.output.replace("/", "-")
        true[name] = times[file].value - 10 - x / 2 - y / 2 if file in times else 20.0 + i
        times.setdefault(file, Estimate.exact(10 + true[name] + x / 2 + y / 2))
    assert {name: time.value for name, time in solved(times, graph).items()} == pytest.approx(true)
