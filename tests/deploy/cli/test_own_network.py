"""A network of the user's own, from torch to a verified bundle: each command as it stands, on the loopback board."""

from __future__ import annotations

import json
import runpy
import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

onnx = pytest.importorskip("onnx")

from deploy.cli import main  # noqa: E402
from deploy.formats.tflite.normalization import Normalization, normalization  # noqa: E402
from deploy.formats.tflite.read import read  # noqa: E402
from deploy.quantize import quantize_model  # noqa: E402
from deploy.quantize.record import NetworkOrigin  # noqa: E402
from deploy.ship.evaluated_models import ImagesAsked, file_model  # noqa: E402
from deploy.ship.input_images import ImagePreprocessing  # noqa: E402
from deploy.ship.manifest import BundleMeasurement, Manifest  # noqa: E402
from deploy.ship.model_ends import images_of  # noqa: E402
from deploy.targets.inspection import inspect_model  # noqa: E402
from tests.board_scripts.test_infer import infer  # noqa: E402
from tests.deploy.cli.failing import MODEL, USAGE, Fails, profile  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
IMAGES = ("--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375")
SHORT = ("--runs", "2", "--rounds", "2")
PETS = ("cat", "dog", "owl")
Run = Callable[..., str]


class Network(torch.nn.Module):
    """Scores of an image, of each pixel, or boxes with scores."""

    def __init__(self, task: str, classes: int, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.task = task
        first, second = torch.nn.Conv2d(channels, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 3, 2, 1)
        self.body = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU())
        self.head = torch.nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        y = self.head(self.body(x))
        if self.task == "image":
            return y.mean((2, 3))
        if self.task == "pixels":
            return torch.nn.functional.interpolate(y, scale_factor=4.0, mode="bilinear")
        boxes, scores = y.flatten(2).permute(0, 2, 1).split((4, 1), 2)
        return boxes, torch.sigmoid(scores)


def exported(folder: Path, task: str, classes: int, size: tuple[int, int] = (32, 32), channels: int = 3) -> Path:
    path, names = folder / "network.onnx", ["boxes", "scores"] if task == "boxes" else ["y"]
    model, example = Network(task, classes, channels).eval(), torch.randn(1, channels, *size)
    torch.onnx.export(model, (example,), path, input_names=["x"], output_names=names, dynamo=False)
    return path


def write_pets(folder: Path) -> str:
    """Six images of each class for training, two for validation; each class is brighter in another colour."""
    for split, count in (("train", 6), ("val", 2)):
        for channel, name in enumerate(PETS):
            (there := folder / split / name).mkdir(parents=True)
            for seed in range(count):
                pixels = np.random.default_rng([channel, seed, count]).integers(0, 150, (40, 52, 3), np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(there / f"{seed}.png")
    return f"folders:{folder}"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A command that must succeed; what it prints."""
    monkeypatch.chdir(tmp_path)

    def check(*words: object) -> str:
        capfd.readouterr()
        assert main([str(word) for word in words]) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    return check


def manifest(bundle: Path) -> Manifest:
    return Manifest.read(bundle / Manifest.FILE)


def reads_golden_inputs(bundle: Path) -> bool:
    """Whether the bundle's application makes the golden inputs of the golden images."""
    program = runpy.run_path(str(bundle / "infer.py"))
    options = Namespace(delegate="", delegate_option=[], threads=1)
    model = program["Model"](np, bundle, options)
    for pair in manifest(bundle).golden:
        assert pair.image is not None
        image = program["read_image"](np, bundle / pair.image)
        if model.before(image).tobytes() != (bundle / pair.input).read_bytes():
            return False
    return True


def test_a_classifier(run: Run, tmp_path: Path) -> None:
    """Nothing is said twice: the file knows how images become its input, and the data set has the labels."""
    pets, bundle = write_pets(tmp_path / "pets"), tmp_path / "net"
    how = (*IMAGES, "--size", "40x40", "--colours", "bgr")
    run("quantize", exported(tmp_path, "image", len(PETS)), "--data", pets, *how, "--out", "int8")
    file = Path("int8/network.int8.tflite")
    run("lint", file, "--target", "cpu-xnnpack")
    run(*profile(tmp_path, file))
    scored = json.loads(run("evaluate", file, "--data", pets, "--board", "loopback", "--json"))
    assert "in the middle of 40 x 40 BGR" in scored["input"] and scored["input"].endswith("as the file says")
    baseline = ("--suite", "int8", "--baselines", "baselines", "--runs", "2", "--rounds", "4")
    run("regress", *baseline, "--update")
    run("regress", *baseline, "--threshold", "50")
    run("bundle", "export", "int8", "--data", pets, *SHORT, "--out", bundle)
    run("bundle", "pack", bundle, "--out", "net.bundle")
    run("bundle", "verify", "net.bundle")
    assert run("bundle", "show", "net.bundle").startswith("name: network\n")

    model, data = file_model(file, ImagesAsked(pets, "val"))
    images, (end,) = images_of(read(file)), inspect_model(read(file)).inputs
    assert images is not None and reads_golden_inputs(bundle)
    for i, sample in enumerate(data):  # as it was calibrated
        real = images.input(data.original(i).image, (32, 32, 3))
        stored = np.clip(np.rint(real / np.float32(end.scale[0])) + end.zero_point[0], -128, 127)
        assert model.input.encode(sample.image) == stored.astype(np.int8).tobytes()

    golden, evaluation = manifest(bundle).golden, json.loads((bundle / "evaluation.json").read_text())
    assert evaluation["scores"] == scored["scores"] and evaluation["images"]["classes"] == list(PETS)
    assert len(golden) == 8 and {label for pair in golden for label in pair.top} == set(PETS)
    done = infer(bundle, bundle / "golden/images", "--top", 1)
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == [pair.top[0] for pair in golden], done.stderr
    measured = BundleMeasurement.read(bundle / BundleMeasurement.FILE)
    assert [len(samples) for samples in measured.rounds_us] == [2, 2] and measured.conditions.board == "loopback"
    model = read(bundle / "model.tflite")
    assert normalization(model) is not None and model.signatures == ("serving_default",)
    card = (bundle / "MODEL_CARD.md").read_text()
    for words in (
        "| cat |",
        "- top-1, board: ",
        "examples: y -",
        "- Latency: ",
        "    hilnas quantize network.onnx --data",
    ):
        assert words in card, card


def test_the_command_in_the_bundle_makes_the_same_file(run: Run, tmp_path: Path) -> None:
    pets = write_pets(tmp_path / "pets")
    words = ("--scheme", "tensor uint8", "--images", "5", *IMAGES, "--target", "imx8mp-vx")
    run("quantize", exported(tmp_path, "image", len(PETS)), "--data", pets, *words, "--out", "int8")
    run("bundle", "export", "int8", *SHORT, "--out", "net")
    command = json.loads(Path("net/provenance.json").read_text())["command"]
    assert run(*shlex.split(command)[1:])
    for path in Path("int8").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (Path("DIR") / path.relative_to("int8")).read_bytes(), path


@pytest.mark.parametrize("scheme", ["channel int8", "tensor uint8"])
def test_class_maps(run: Run, tmp_path: Path, scheme: str) -> None:
    """Logits at a quarter and their resize are the file's, the class map is made by the CPU everywhere alike."""
    bundle = tmp_path / "net"
    model = exported(tmp_path, "pixels", 11, (48, 64))
    run("quantize", model, "--data", "scenes", "--images", 8, *IMAGES, "--scheme", scheme, "--out", "q")
    data = ("--data", "scenes", "--images", 2)
    run("bundle", "export", f"q/network.{scheme.split()[1]}.tflite", *data, *SHORT, "--out", bundle)
    assert "verified" in run("bundle", "verify", bundle)
    assert json.loads(run("evaluate", bundle, *data, "--json"))["images"]["scored"] == 2
    done = infer(bundle, bundle / "golden/images", "--out", tmp_path / "out")
    assert "%" in done.stdout and "pre-processing" in done.stdout and reads_golden_inputs(bundle), done.stderr
    for number, pair in enumerate(manifest(bundle).golden):
        assert pair.classes is not None
        with Image.open(bundle / pair.classes) as wanted, Image.open(tmp_path / f"out/{number}.classes.png") as found:
            assert np.array_equal(np.asarray(wanted), np.asarray(found)) and len(set(wanted.tobytes())) > 1
            assert np.asarray(wanted).tobytes() == (bundle / pair.output).read_bytes()[::4]


def test_several_outputs_are_tensors(run: Run, tmp_path: Path, fails: Fails) -> None:
    """All of them are compared, on the board and by infer.py."""
    write_pets(tmp_path / "pets")
    bundle, words = tmp_path / "net", ("--data", tmp_path / "pets/train/cat", *IMAGES)
    run("quantize", exported(tmp_path, "boxes", 5), *words, "--out", "int8")
    run("bundle", "export", "int8", *SHORT, "--out", bundle)
    assert "boxes int8 1x64x4, scores int8 1x64x1" in (bundle / "README.md").read_text()
    done = infer(bundle, bundle / "golden/images", "--out", tmp_path / "out")
    assert "boxes 1x64x4 [" in done.stdout and ", scores 1x64x1 [" in done.stdout, done.stderr
    ends = inspect_model(read(bundle / "model.tflite")).outputs
    for number, pair in enumerate(manifest(bundle).golden):
        stored = np.frombuffer((bundle / pair.output).read_bytes(), np.int8).astype(np.float32)
        for k, (end, values) in enumerate(zip(ends, np.split(stored, [256]), strict=True)):
            real = (values - end.zero_point[0]) * np.float32(end.scale[0])
            assert np.array_equal(np.load(tmp_path / f"out/{number}.{k}.npy").reshape(-1), real)
    output = tmp_path / "int8/network.int8.expected.bin"
    output.write_bytes(output.read_bytes()[:-1] + b"\x05")  # the last score
    fails(MODEL, ["bundle", "export", "int8", *SHORT, "--out", "wrong"], "outputs differ", "1 of 320 elements")
    assert not Path("wrong").exists()


def test_an_input_that_is_no_image(run: Run, tmp_path: Path, fails: Fails) -> None:
    np.savez("data.npz", x=np.random.default_rng(0).standard_normal((9, 3, 32, 32)).astype(np.float32))
    run("quantize", exported(tmp_path, "image", 3), "--data", "data.npz", "--out", "int8")
    run("bundle", "export", "int8", *SHORT, "--out", "net")
    bundle = tmp_path / "net"
    assert not (bundle / "c").exists() and "no image" in (bundle / "README.md").read_text()
    assert len(manifest(bundle).golden) == 8 and "verified" in run("bundle", "verify", "net")
    np.save("real.npy", np.zeros((1, 32, 32, 3), np.float32))
    done = infer(bundle, "real.npy", bundle / "golden/0.input.bin", "--out", tmp_path / "out")
    assert done.returncode == 0 and done.stdout.count("y 1x3 [") == 2, done.stderr
    (end,) = inspect_model(read(bundle / "model.tflite")).outputs
    stored = np.frombuffer((bundle / "golden/0.output.bin").read_bytes(), np.int8).astype(np.float32)
    real = (stored - end.zero_point[0]) * np.float32(end.scale[0])
    assert np.array_equal(np.load(tmp_path / "out/0.input.0.npy").reshape(-1), real)
    pets = write_pets(tmp_path / "pets")
    fails(MODEL, ["evaluate", "int8/network.int8.tflite", "--data", pets], "nothing says how pixels become numbers")
    assert infer(bundle, tmp_path / "pets/val/cat/0.png").returncode == 1


def test_a_network_that_came_from_python(run: Run, tmp_path: Path) -> None:
    """It has the one golden pair, and of how images become its input what its caller says."""
    found = quantize_model(Network("image", 3, 3).eval(), torch.rand(1, 3, 32, 32), torch.rand(4, 3, 32, 32))
    images = ImagePreprocessing(Normalization((0.0,), (255.0,)))
    found.save(tmp_path / "int8", "network", "random images", NetworkOrigin(images=images))
    pets, bundle = write_pets(tmp_path / "pets"), tmp_path / "net"
    run("bundle", "export", "int8", "--data", pets, *SHORT, "--out", bundle)
    (pair,) = manifest(bundle).golden
    assert pair.image is None and "verified" in run("bundle", "verify", bundle)
    assert "from a network in Python" in (bundle / "MODEL_CARD.md").read_text()
    done = infer(bundle, bundle / pair.input, tmp_path / "pets/val/cat", "--top", 3)
    assert done.returncode == 0 and done.stdout.count("cat ") == 3, done.stderr


def test_grey_images(run: Run, tmp_path: Path) -> None:
    pets, bundle = write_pets(tmp_path / "pets"), tmp_path / "net"
    words = ("--data", pets, "--mean", "127.5", "--std", "127.5")
    run("quantize", exported(tmp_path, "image", len(PETS), channels=1), *words, "--out", "int8")
    run("bundle", "export", "int8", "--data", pets, *SHORT, "--out", bundle)
    golden = manifest(bundle).golden
    assert reads_golden_inputs(bundle)
    done = infer(bundle, bundle / "golden/images", "--top", 3)
    for pair, line in zip(golden, done.stdout.splitlines(), strict=False):
        assert line.replace(",", "").split()[1::2] == list(pair.top), done.stderr


def test_what_is_no_file_of_quantize(run: Run, tmp_path: Path, fails: Fails) -> None:
    model = exported(tmp_path, "image", len(PETS))
    run("quantize", model, "--data", "random", "--out", "int8")
    for code, words, said in (
        (USAGE, ["export", tmp_path, "--out", "b"], "no quantization.json there; give what `hilnas quantize` wrote"),
        (USAGE, ["export", "int8", "--model", "fast", "--out", "b"], "--model fast"),
        (USAGE, ["export", "--data", "scenes", "--out", "b"], "--data scenes: is for what `hilnas quantize` wrote"),
        (MODEL, ["export", "int8", "--data", "scenes", "--out", "b"], "nothing says how pixels become numbers"),
    ):
        fails(code, ["bundle", *words], said)
    run("quantize", model, "--data", "random", "--scheme", "tensor uint8", "--out", "int8")
    fails(
        USAGE, ["bundle", "export", "int8/network.int8.tflite", "--out", "b"], "is of network.uint8.tflite; give each"
    )
    Path("int8/network.uint8.expected.bin").unlink()
    fails(USAGE, ["bundle", "export", "int8", "--out", "b"], "golden pair, is missing: quantize again")
    assert not Path("b").exists()
