"""Other schemes in one search: their tables, the choice among them, and what is shipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.compile.artifact import golden_pair, kernels_of, stored
from deploy.compile.scheme import QuantizationScheme
from deploy.formats.tflite.writer import write
from deploy.run.config import Overrides, load_experiment
from deploy.run.context import Context
from deploy.run.folder import Run
from deploy.ship.preprocessing import input_type
from nas.errors import ConfigError
from nas.networks.blocks import SuperBlock
from nas.noise import channel_variance, nsr
from nas.nsr import evaluate, golden_input
from nas.quant import simulate, uint8
from nas.quant.scheme import Scheme
from nas.space import Architecture
from nas.table import Table
from tests.deploy.networks import block_data, interpret, space, trained_like
from tests.deploy.tiny_experiment import (
    REPOSITORY,
    SUBNETS,
    TIMED,
    arguments,
    finished_run,
    one_line,
    record,
    run,
    write_experiment,
)

DEMO = space("demo")
NAMED = {"calibration_images = 4\n": 'calibration_images = 4\nschemes = ["tensor int8", "tensor uint8"]\n'}
UINT8 = QuantizationScheme("tensor", "uint8")


def test_one_text_for_a_scheme():
    for text in ("channel int8", "tensor int8", "tensor uint8"):
        assert str(QuantizationScheme.parse(text)) == text
    assert UINT8.slug == "tensor-uint8" and UINT8.form.activations == "uint8"
    assert UINT8.scheme(Scheme(equalize=True)) == Scheme("tensor", equalize=True)


@pytest.mark.parametrize(
    "text, words",
    [
        ('["tensor"]', "scheme 'tensor': write"),
        ('["channel uint8"]', "uint8 weights are per-tensor"),
        ('["channel int8"]', "'channel int8' is there already"),
        ('["tensor int8", "tensor int8"]', "'tensor int8' is there already"),
    ],
)
def test_schemes_that_mean_nothing_are_refused(tmp_path, text, words):
    config = write_experiment(tmp_path, {"calibration_images = 4\n": f"calibration_images = 4\nschemes = {text}\n"})
    with pytest.raises(ConfigError, match=words):
        load_experiment(config, Overrides())


def test_what_cannot_be_joined_with_other_schemes_is_refused(tmp_path):
    for changes, words in (
        ({"seed = 0\n": "seed = 0\npredictor = { objective = true }\n"}, "predictor.objective"),
        ({"[profile]\n": '[profile]\nform = "exchanged"\n'}, "profile.form 'exchanged'"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_experiment(write_experiment(tmp_path, {**NAMED, **changes}), Overrides())


def test_other_schemes_change_no_stage_before_them(tmp_path):
    """A run that is asked for more schemes keeps all that it measured, and without them every key is as it was."""
    experiment, tiny = load_experiment(write_experiment(tmp_path, NAMED), Overrides())
    plain = replace(experiment, quantization=replace(experiment.quantization, schemes=()))
    keys = {}
    for name, each in (("plain", plain), ("named", experiment)):
        with Run(tmp_path / name) as opened:
            keys[name] = Context(each, tiny, opened, REPOSITORY / "boards.toml").keys
    before = ("teacher", "distil", "tables", "profile", "agree")
    assert [keys["plain"][stage] for stage in before] == [keys["named"][stage] for stage in before]
    assert "schemes" not in keys["plain"] and keys["plain"]["search"] != keys["named"]["search"]


def test_the_former_key_says_what_it_is_called_now(tmp_path):
    former = {name: text.replace("schemes =", "alternatives =") for name, text in NAMED.items()}
    with pytest.raises(ConfigError, match=r"'quantization\.alternatives' is called 'quantization\.schemes' now"):
        load_experiment(write_experiment(tmp_path, former), Overrides())


@pytest.mark.parametrize("bits", [8, 4])
def test_uint8_is_judged_by_the_integers_that_the_file_answers(bits):
    """Which are not int8's: its depthwise convolutions round otherwise, so the NSRs are walked apart."""
    torch.manual_seed(0)
    data = block_data(DEMO, 2, (11, 14), seed=2)
    supernet = SuperBlock(DEMO, 2).eval()  # as after training its multipliers are small, and round twice
    wanted = list(DEMO.subnets(2, bits))[::5]
    shifted = list(evaluate(supernet, data, wanted, Scheme("tensor"), applied=kernels_of(UINT8.form, "litert")))
    plain = list(evaluate(supernet, data, wanted, Scheme("tensor")))
    given = np.frombuffer(stored(golden_input(data, Scheme("tensor")), UINT8.form), np.uint8)
    for judged in shifted:
        graph = judged.graph
        q = uint8.run(graph, simulate.quantize(data.x_evaluation, graph.tensors[graph.input]))
        y = simulate.dequantize(q, graph.tensors[graph.output])
        assert judged.nsr == pytest.approx(float(nsr(data.target, y, channel_variance(data.target))), rel=1e-5)
        shape = (1, *graph.tensors[graph.input].shape)
        answer = interpret(write(graph, form=UINT8.form), given.reshape(shape))
        assert answer.tobytes() == stored(judged.golden_output, UINT8.form)
    assert any(a.nsr != b.nsr for a, b in zip(shifted, plain, strict=True))
    assert [a.nsr for a in shifted] == pytest.approx([b.nsr for b in plain], rel=0.05)


def test_a_golden_pair_is_as_the_file_takes_it():
    data = block_data(DEMO, 1, (11, 14), seed=1)
    (judged,) = evaluate(trained_like(SuperBlock(DEMO, 1), 1), data, [next(DEMO.subnets(1, 8))], Scheme("tensor"))
    source, expected = golden_pair(judged.graph, data.x_evaluation[:1], UINT8.form)
    x = np.frombuffer(source, np.uint8).reshape(1, *judged.graph.tensors[judged.graph.input].shape)
    assert interpret(write(judged.graph, form=UINT8.form), x).tobytes() == expected
    plain, _ = golden_pair(judged.graph, data.x_evaluation[:1])
    assert np.array_equal(np.frombuffer(plain, np.int8).astype(int) + 128, np.frombuffer(source, np.uint8).astype(int))


def test_a_finished_run_is_asked_for_other_schemes(tmp_path, tmp_path_factory):
    """Their tables are made, the rest is kept; the search says the scheme; a model is shipped by the one it says."""
    finished = finished_run(tmp_path_factory)
    folder = finished.copy(tmp_path / "runs")
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("agreement.json", "tables/nsr.parquet")}
    options = arguments(write_experiment(tmp_path, NAMED), tmp_path / "runs")
    looped = run("loop", *options)
    assert looped.returncode == 0, looped.stderr
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept

    made = record(folder / "schemes.json")["schemes"]
    assert list(made) == ["tensor int8", "tensor uint8"]
    for text, slug in (("tensor int8", "tensor-int8"), ("tensor uint8", "tensor-uint8")):
        assert (made[text]["compiled"], made[text]["measured"], made[text]["models"]) == (SUBNETS, TIMED, 3)
        assert made[text]["exact_parity"] == SUBNETS
        nsrs, latency = (Table.load(folder / "tables" / slug / f"{name}.parquet") for name in ("nsr", "latency"))
        assert nsrs.provenance["scheme"] == latency.provenance["scheme"] == text
        assert nsrs.provenance["granularity"] == "tensor"

    searched = record(folder / "search.json")
    names = ["channel int8", "tensor int8", "tensor uint8"]
    assert searched["schemes"] == names
    (found,) = searched["selected"]
    best = Architecture.parse(found["subnet"])
    folders = dict(zip(names, (".", "tensor-int8", "tensor-uint8"), strict=True))
    nsrs = {name: Table.load(folder / "tables" / where / "nsr.parquet") for name, where in folders.items()}
    least = {
        name: min(table.total(Architecture((a, b))) for a in first for b in second)
        for name, table in nsrs.items()
        for first, second in [[[s for s in table.entries if s.block == block] for block in (1, 2)]]
    }
    assert found["nsr"] == nsrs[found["scheme"]].total(best) == min(least.values())
    assert {point["scheme"] for point in searched["pareto_front"]} <= set(names)

    asked = run("search", *options, "--size-budget", "99%", "--k", "4", "--prove", "--json")
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert answer["selected"][0]["scheme"] in names and answer["proof"]["difference"] is None
    assert answer["architectures"] == 3 * 4 * 8

    found["scheme"] = "tensor uint8"  # as a board that likes it would find
    (folder / "search.json").write_text(json.dumps(searched))
    (folder / "final.json").unlink()
    shipped = run("loop", *options)
    assert shipped.returncode == 0, shipped.stderr
    (model,) = record(folder / "final.json")["models"][1:]
    assert model["scheme"] == "tensor uint8" and "(tensor uint8)" in shipped.stdout
    assert input_type(folder / "bundle" / "model.tflite") == "uint8"
    assert record(folder / "bundle" / "preprocessing.json")["input"].startswith("uint8")
    assert "Input: RGB, uint8, NHWC" in (folder / "bundle" / "README.md").read_text()

    shutil.copy(folder / "tables" / "nsr.parquet", folder / "tables" / "tensor-int8" / "nsr.parquet")
    foreign = run("search", *options, "--k", "2")
    assert foreign.returncode == 2
    one_line(foreign.stderr, "the nsr table", "another configuration or run")


def test_a_stage_that_is_not_there_is_refused(tmp_path):
    ended = run("loop", *arguments(write_experiment(tmp_path), tmp_path / "runs", "--until", "schemes"))
    assert ended.returncode == 2
    one_line(ended.stderr, "--until schemes", "the configuration has no such stage")
