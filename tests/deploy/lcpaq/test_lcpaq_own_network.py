"""`hilnas lcpaq run MODEL`: bits for each layer of the user's own network, with labels and without."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image
from torch import nn

onnx = pytest.importorskip("onnx")

from deploy.cli import main  # noqa: E402
from deploy.cli.lcpaq import LcpaqOptions  # noqa: E402
from deploy.cli.own_lcpaq import own_network  # noqa: E402
from deploy.formats.importers.torch import import_torch  # noqa: E402
from deploy.formats.tflite.read import read  # noqa: E402
from deploy.lcpaq.objectives import ByOutputs  # noqa: E402
from deploy.lcpaq.own_data import OwnData  # noqa: E402
from deploy.targets.inspection import inspect_model  # noqa: E402
from nas.lcpaq.hessian import forward  # noqa: E402
from nas.lcpaq.policy import Policy  # noqa: E402
from nas.lcpaq.sensitivity import SENSITIVITIES, candidates  # noqa: E402
from nas.quant.scheme import DEFAULT  # noqa: E402
from tests.deploy.tiny_experiment import REPOSITORY, environment, one_line, record  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SHARED = REPOSITORY.parent / "shared/data/models"
CLASSES = ("blue", "green", "red")
SIZE = 24
QUICK = ("--images", 8, "--scoring-images", 16, "--k", 2, "--calibration-images", 16, "--bits", "2,3,4,8")
PIXELS = ("--mean", "128", "--std", "128")  # integers then hold pixels exactly


def network(outputs: int = len(CLASSES)) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.SiLU(),
        nn.Conv2d(16, 32, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, 2, 1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, outputs),
    )


def images_of(folder: Path, of_class: int) -> None:
    """Pictures of noise and of little colour."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(of_class):
            rng = np.random.default_rng([label, i, len(folder.name)])
            pixels = rng.normal(128, 40, (SIZE, SIZE, 3))
            pixels[..., 2 - label] += 6
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i:02}.png")


def tensors(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path, _ in files])
    return torch.from_numpy((pixels - 128) / 128).permute(0, 3, 1, 2), torch.tensor([label for _, label in files])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, as it is and with a softmax, and its labelled images."""
    base = tmp_path_factory.mktemp("own")
    for split, of_class in (("train", 16), ("val", 5)):
        images_of(base / "images" / split, of_class)
    images, labels = tensors(base / "images" / "train")
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    for name, module in (("logits", model), ("softmax", nn.Sequential(model, nn.Softmax(1)))):
        torch.onnx.export(module, (images[:1],), str(base / f"{name}.onnx"), input_names=["x"], dynamo=False)
    return base


def lcpaq(model: Path, out: Path, *options: object, data: object = "random", action: str = "run") -> int:
    words = ["lcpaq", action, model, "--data", data, "--out", out, *QUICK, *PIXELS, *options]
    return main([str(word) for word in words])


def answers(model: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the runtime gives for images (N, H, W, C), as real values."""
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        q = np.rint(image / source["quantization"][0]) + source["quantization"][1]
        interpreter.set_tensor(source["index"], q.clip(-128, 127).astype(np.int8)[None])
        interpreter.invoke()
        scale, zero = end["quantization"]
        found.append((interpreter.get_tensor(end["index"])[0].astype(np.float32) - zero) * scale)
    return np.stack(found)


# With labels


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    """The folder of a finished command."""
    out = folder / "labelled"
    data = f"folders:{folder / 'images'}"
    assert lcpaq(folder / "softmax.onnx", out, "--pack", "--size-limit", "60%", data=data) == 0
    return out


def test_the_policy_is_within_the_limit_and_the_file_has_its_bits(labelled: Path) -> None:
    solved, widths = record(labelled / "solve.json"), record(labelled / "widths.json")
    ours, *everywhere = widths["widths"]
    policy = Policy.parse(ours["policy"])
    assert ours["policy"] == record(labelled / "refine.json")["best"]
    assert ours["size_bits"] <= solved["limits"]["size_bits"] == pytest.approx(0.6 * solved["int8"]["size_bits"])
    first, *_, last = policy.bits.values()
    assert first == last == 8 and len(set(policy.bits.values())) > 1
    inspected = inspect_model(read(labelled / "softmax.int8.tflite"))
    assert inspected.requested_bits == tuple(sorted(set(policy.bits.values())))
    assert [width["name"] for width in everywhere] == ["INT8", "INT6", "INT4"]
    assert everywhere[0]["size_bits"] == solved["int8"]["size_bits"]
    assert all(set(Policy.parse(w["policy"]).bits.values()) == {b} for w, b in zip(everywhere, (8, 6, 4), strict=True))
    packed = (labelled / "softmax.int8.packed").stat().st_size
    assert packed == ours["packed_bytes"] < ours["file_bytes"] == (labelled / "softmax.int8.tflite").stat().st_size


def test_the_loss_is_the_tasks_and_the_metric_that_of_the_files(folder: Path, labelled: Path) -> None:
    """Both computed here from the files and the images alone."""
    assert record(labelled / "sensitivity.json")["loss"].startswith("cross-entropy with the labels (3 classes)")
    widths = record(labelled / "widths.json")
    images, labels = tensors(folder / "images" / "val")
    assert (widths["metric"], widths["validation_images"]) == ("top-1", 15)
    x = images.permute(0, 2, 3, 1).numpy()
    for width in widths["widths"]:
        at = labelled if width["name"] == "LCPAQ" else labelled / width["name"]
        right = answers(at / "softmax.int8.tflite", x).argmax(1) == labels.numpy()
        assert width["metric"] == pytest.approx(100 * right.mean()), width["name"]
    assert widths["float_metric"] > 60 and any(w["metric"] != widths["float_metric"] for w in widths["widths"])


def test_golden_pairs_are_what_the_files_give(labelled: Path) -> None:
    for at in (labelled, labelled / "INT4"):
        interpreter = Interpreter(str(at / "softmax.int8.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        (source,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
        given = np.fromfile(at / "softmax.int8.input.bin", np.int8).reshape(source["shape"])
        interpreter.set_tensor(source["index"], given)
        interpreter.invoke()
        assert interpreter.get_tensor(end["index"]).tobytes() == (at / "softmax.int8.expected.bin").read_bytes()
        assert (at / "quantization.json").exists()


def test_what_is_done_is_not_done_again(folder: Path, labelled: Path) -> None:
    kept = ("sensitivity.json", "refine.json", "scores.jsonl", "widths.jsonl", "widths.json", "softmax.int8.tflite")
    before = {name: (labelled / name).stat().st_mtime_ns for name in kept}
    data = f"folders:{folder / 'images'}"
    assert lcpaq(folder / "softmax.onnx", labelled, "--size-limit", "60%", data=data) == 0
    assert {name: (labelled / name).stat().st_mtime_ns for name in kept} == before


def test_the_screen_says_what_is_used(folder: Path, labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"folders:{folder / 'images'}"
    assert lcpaq(folder / "softmax.onnx", labelled, "--size-limit", "60%", data=data) == 0
    said = capsys.readouterr().out
    for words in (
        "quadratic of the cross-entropy with the labels (3 classes)",
        "INT6",
        "top-1 on 15 validation images",
    ):
        assert words in said
    assert lcpaq(folder / "softmax.onnx", labelled, "--size-limit", "60%", "--json", data=data) == 0
    assert json.loads(capsys.readouterr().out)["widths"] == record(labelled / "widths.json")


@pytest.mark.parametrize("argmax", [False, True])
def test_maps_of_classes(tmp_path: Path, argmax: bool) -> None:
    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*list(network())[:9], nn.ConvTranspose2d(32, 11, 4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layers(x)
            return y.argmax(1, keepdim=True) if argmax else y

    example = torch.zeros(1, 3, 32, 48)
    torch.onnx.export(Segmenter().eval(), (example,), str(tmp_path / "map.onnx"), input_names=["x"], dynamo=False)
    assert lcpaq(tmp_path / "map.onnx", tmp_path / "out", "--sensitivity", "fisher", data="scenes") == 0
    widths = record(tmp_path / "out" / "widths.json")
    assert widths["metric"] == "mIoU" and 0 <= widths["widths"][1]["metric"] <= 100
    assert abs(widths["widths"][1]["metric"] - widths["float_metric"]) < 2  # of a network that says little


# Without


@pytest.fixture(scope="module")
def unlabelled(folder: Path) -> Path:
    out = folder / "unlabelled"
    assert lcpaq(folder / "logits.onnx", out, data=folder / "images" / "train" / "red") == 0
    return out


def test_without_labels_the_outputs_are_kept(unlabelled: Path) -> None:
    sensitivity, refined, widths = (record(unlabelled / f"{name}.json") for name in ("sensitivity", "refine", "widths"))
    assert sensitivity["loss"] == "squared distance of the outputs to the float network's, Hessian in Gauss-Newton form"
    assert (refined["metric"], refined["unit"]) == ("signal to noise", "dB") and "metric" not in widths
    noise = {width["name"]: width["noise_db"] for width in widths["widths"]}
    assert noise["LCPAQ"] == -next(one["score"] for one in refined["scored"] if one["policy"] == refined["best"])
    assert max(noise["INT8"], noise["INT6"], noise["LCPAQ"]) < noise["INT4"]


def test_noise_is_that_of_the_file(folder: Path, unlabelled: Path) -> None:
    files = sorted((folder / "images" / "train" / "red").iterdir())
    x = np.stack([(np.asarray(Image.open(path), np.float32) - 128) / 128 for path in files])
    from onnxruntime import InferenceSession

    session = InferenceSession(str(folder / "logits.onnx"))
    real = np.concatenate([session.run(None, {"x": one[None].transpose(0, 3, 1, 2)})[0] for one in x])
    noise = 10 * np.log10(np.square(answers(unlabelled / "logits.int8.tflite", x) - real).sum() / np.square(real).sum())
    assert record(unlabelled / "widths.json")["widths"][0]["noise_db"] == pytest.approx(noise, abs=0.02)


@pytest.mark.parametrize(("kind", "factor"), [("hessian", 4), ("quadratic", 1.5)])
def test_half_of_a_perturbation_is_the_distance_of_the_outputs_that_it_makes(
    folder: Path, kind: str, factor: float
) -> None:
    """With one layer rounded and nothing else; a mean trace takes the error for white noise."""
    imported = import_torch(network().eval(), torch.zeros(1, 3, SIZE, SIZE))
    np.savez(folder / "images.npz", **{imported.input_name: tensors(folder / "images" / "train")[0].numpy()})
    problem = ByOutputs(OwnData(imported, str(folder / "images.npz"), None)).problem(24)
    found = SENSITIVITIES[kind](problem, (5,), DEFAULT).table
    for layer, (weight,) in candidates(problem, (5,), DEFAULT):
        changed = [
            len(x) * problem.loss(problem.logits(forward(problem.needed, {layer.name: weight}, x)), y)
            for x, y in problem.batches
        ]
        distance = float(torch.stack(changed).sum()) / problem.images
        assert 1 / factor < distance / (found[layer.name][5] / 2) < factor, layer.name


def test_activations_of_fewer_bits(folder: Path, tmp_path: Path) -> None:
    options = ("--bits", 8, "--activation-bits", "4,8", "--bops-limit", "70%", "--scheme", "tensor int8", "--k", 1)
    assert lcpaq(folder / "logits.onnx", tmp_path, *options, data=folder / "images" / "train" / "red") == 0
    solved, refined = record(tmp_path / "solve.json"), record(tmp_path / "refine.json")
    assert 4 in Policy.parse(refined["best"]).activations.values()
    assert all(one["costs"]["bops"] <= solved["limits"]["bops"] for one in refined["scored"])
    assert record(tmp_path / "quantization.json")["scheme"] == "tensor int8, adaptive rounding"


# Killed, and nonsense

KILLED = """
import os, signal, sys
from deploy.cli import main
from deploy.formats.journal import Journal
append, name, count = Journal.append, sys.argv.pop(1), int(sys.argv.pop(1))
seen = []
def dies(self, *records):
    append(self, *records)
    seen.append(self.path.name)
    if seen.count(name) == count:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = dies
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on_and_ends_as_one_that_was_not(folder: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["lcpaq", "run", folder / "logits.onnx", "--data", folder / "images" / "train" / "red", "--out", out]
    for journal, count, missing in (("scores.jsonl", 1, "refine.json"), ("widths.jsonl", 2, "widths.json")):
        command = [sys.executable, "-c", KILLED, journal, count, *words, *QUICK, *PIXELS]
        ended = subprocess.run(
            list(map(str, command)), cwd=REPOSITORY, env=environment(), timeout=240, check=False, capture_output=True
        )
        assert ended.returncode == -signal.SIGKILL and not (out / missing).exists(), ended.stderr
    marked = [json.loads(line) for line in (out / "widths.jsonl").read_text().splitlines()]
    assert [width["name"] for width in marked] == ["LCPAQ", "INT8"]
    (out / "widths.jsonl").write_text("".join(f"{json.dumps({**w, 'noise_db': w['noise_db'] - 1})}\n" for w in marked))
    assert main([str(word) for word in (*words, *QUICK, *PIXELS)]) == 0
    wanted, found = (record(at / "widths.json")["widths"] for at in (unlabelled, out))
    # What was there was taken, not done again.
    assert [w["noise_db"] for w in found] == [wanted[0]["noise_db"] - 1, wanted[1]["noise_db"] - 1] + [
        w["noise_db"] for w in wanted[2:]
    ]
    for name in ("logits.int8.tflite", "policy.json", "quantization.json"):
        assert (out / name).read_bytes() == (unlabelled / name).read_bytes()


def test_another_scheme_or_other_images_are_computed_anew(folder: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unlabelled, tmp_path / "out"))
    red = folder / "images" / "train" / "red"
    before = record(out / "sensitivity.json")["key"]
    assert lcpaq(folder / "logits.onnx", out, "--scheme", "tensor uint8", data=red, action="solve") == 0
    assert record(out / "sensitivity.json")["key"] != before
    assert lcpaq(folder / "logits.onnx", out, data=folder / "images" / "train" / "green", action="solve") == 0
    assert record(out / "sensitivity.json")["key"] != before
    assert lcpaq(folder / "logits.onnx", out, data=red, action="sensitivity") == 0
    assert record(out / "sensitivity.json")["key"] == before


def test_back_at_other_settings_the_files_are_theirs_again(folder: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unlabelled, tmp_path / "out"))
    model, red = unlabelled / "logits.int8.tflite", folder / "images" / "train" / "red"
    assert lcpaq(folder / "logits.onnx", out, "--size-limit", "45%", data=red) == 0
    assert (out / model.name).read_bytes() != model.read_bytes()
    assert lcpaq(folder / "logits.onnx", out, data=red) == 0
    assert (out / model.name).read_bytes() == model.read_bytes()
    assert record(out / "widths.json") == record(unlabelled / "widths.json")


def test_a_second_command_waits_for_the_first(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = LcpaqOptions(file=folder / "logits.onnx", data="random", out=tmp_path, calibration_images=2)
    with own_network(options, folder / "logits.onnx", "quadratic"):
        assert lcpaq(folder / "logits.onnx", tmp_path) == 2
    one_line(capsys.readouterr().err.splitlines()[-1], "another hilnas works", "give another --out")


NONSENSE: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = (
    (("--size-limit", "10%"), ("no policy fits size_bits", "give size_bits", "% more")),
    (("--size-limit", "blocks"), ("--size-limit blocks", "no block bits", "give %")),
    (("--latency-limit", "50%"), ("--latency-limit", "no board")),
    (("--fix", "distillation=0"), ("--fix", "no proxy search", "leave it out")),
    (("--config", "demo-scenes"), ("--config", "a network of its own", "leave it out")),
    (("--loss", "labels"), ("--data random", "it has no labels", "folders:FOLDER")),
    (("--sensitivity", "fisher"), ("--sensitivity fisher", "no slope", "another kind")),
    (("--calibration-images", "0"), ("--images 0", "at least 1")),
    (("--outputs", "nothing"), ("nothing",)),
)


@pytest.mark.parametrize(("options", "words"), NONSENSE, ids=lambda value: str(value)[:30])
def test_nonsense_is_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    assert lcpaq(folder / "logits.onnx", tmp_path / "out", *options, action="solve") == 2
    *_, last = capsys.readouterr().err.splitlines()  # before it the warning that noise is no data
    one_line(last, *words)


def test_labels_that_do_not_fit(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for they are refused; otherwise the outputs are kept, which is said."""
    words = ("labels of 10 classes", "none of the outputs", "is scores of so many")
    assert lcpaq(folder / "logits.onnx", tmp_path, "--loss", "labels", data="shapes", action="solve") == 2
    one_line(capsys.readouterr().err, *words)
    assert lcpaq(folder / "logits.onnx", tmp_path, data="shapes", action="sensitivity") == 0
    said = capsys.readouterr()
    assert all(word in said.err for word in words) and "squared distance of the outputs" in said.out


def test_a_network_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Sigmoid())
    example = torch.zeros(1, 3, 32, 32)
    torch.onnx.export(model, (example,), str(tmp_path / "pool.onnx"), input_names=["x"], dynamo=False)
    assert lcpaq(tmp_path / "pool.onnx", tmp_path / "out", data="scenes", action="solve") == 4
    *_, last = capsys.readouterr().err.splitlines()
    one_line(last, "pool", "no bits to assign")


@pytest.mark.parametrize("options", [("--out", "x"), ("--mean", "0"), ("--calibration-images", "8"), ("--pack",)])
def test_options_of_a_model_file_without_one(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lcpaq", "run", "--data", "scenes", *options]) == 2
    one_line(capsys.readouterr().err, options[0], "give MODEL too")


@pytest.mark.skipif(not SHARED.exists(), reason="needs public networks")
def test_a_public_network(tmp_path: Path) -> None:
    """ResNet8 of MLPerf Tiny: half of its size at less noise than with 4 bits everywhere."""
    options = ("--mean", "0", "--std", "1", "--size-limit", "60%", "--sensitivity", "sqnr")
    assert lcpaq(SHARED / "pretrainedResnet.tflite", tmp_path, *options, data="shapes") == 0
    noise = {width["name"]: width["noise_db"] for width in record(tmp_path / "widths.json")["widths"]}
    assert noise["LCPAQ"] < noise["INT4"]
