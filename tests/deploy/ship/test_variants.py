"""Two models in one bundle: the one for what the board has is verified and run, and the verifier says why."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from board_scripts.places import PLACES, chosen
from board_scripts.unpack_model import unpack
from board_scripts.verify_bundle import KNOWN
from deploy.cli import main
from deploy.ship.manifest import GoldenPair, ListedFile, Manifest, Place, Variant
from tests.board_scripts.test_verify_bundle import verify
from tests.deploy.ship.test_manifest import MANIFEST, MEASUREMENT, PREPROCESSING
from tests.hil.tiny_model import SHAPE, int8_add


def small_bundle(folder: Path, added: int, labels: str = "road\n") -> Path:
    """Of y = x + `added`."""
    (folder / "golden").mkdir(parents=True)
    int8_add(folder / "model.tflite", constant=added)
    given = np.zeros(SHAPE, np.int8)
    (folder / "golden/0.input.bin").write_bytes(given.tobytes())
    (folder / "golden/0.output.bin").write_bytes((given + np.int8(added)).tobytes())
    (folder / "labels.txt").write_text(labels)
    PREPROCESSING.write(folder / PREPROCESSING.FILE)
    MEASUREMENT.write(folder / MEASUREMENT.FILE)
    listed = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files = {name: ListedFile(hashlib.sha256(data).hexdigest(), len(data)) for name, data in listed.items()}
    golden = (GoldenPair("golden/0.input.bin", "golden/0.output.bin", 0.0, 0),)
    replace(MANIFEST, golden=golden, files=files).write(folder / Manifest.FILE)
    return folder


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    npu, cpu = (small_bundle(tmp_path / name, added) for name, added in (("npu", 3), ("cpu", 5)))
    command = ["bundle", "join", "--delegate", str(npu), "--cpu", str(cpu), "--out", str(tmp_path / "joined")]
    assert main(command) == 0
    return tmp_path / "joined"


@pytest.fixture(scope="module")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here: apt install gcc libc6-dev")
    built = tmp_path_factory.mktemp("delegate") / "libdelegate.so"
    source = Path(__file__).parents[2] / "hil" / "faulty_delegate.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    return built


def test_the_model_for_what_the_board_has(joined: Path, delegate: Path) -> None:
    for words, model, why in (
        ((), "models/cpu/", "models/cpu/model.tflite, for the cpu: no delegate is given"),
        (("--delegate", delegate), "", "model.tflite, for the delegate: a delegate is given"),
    ):
        code, said = verify(joined, "--runs", 1, *words)
        assert code == 0, said
        details = {line["check"]: line["detail"] for line in said[:-1]}
        assert details["variant"] == why and details["golden"].startswith(f"{model}golden/0.output.bin: 0 of")


def test_a_packed_model_is_restored_where_it_is_loaded(tmp_path: Path, joined: Path) -> None:
    """In memory: nothing is written beside the bundle's files, which have to be listed."""
    command = ["bundle", "join", "--delegate", str(tmp_path / "npu"), "--cpu", str(tmp_path / "cpu"), "--pack"]
    assert main([*command, "--out", str(tmp_path / "packed")]) == 0
    path = tmp_path / "packed" / "models/cpu/model.packed"
    assert unpack(path.read_bytes()) == (joined / "models/cpu/model.tflite").read_bytes()
    code, said = verify(tmp_path / "packed", "--runs", 1)
    assert code == 0 and "models/cpu/model.packed, for the cpu" in str(said)
    path.write_bytes(b"HILNASP2" + bytes(40))
    edit_listed(tmp_path / "packed", "models/cpu/model.packed")
    code, said = verify(tmp_path / "packed")
    assert code == 1 and "model.packed does not load: the header is not whole" in said[-2]["detail"]


def edit_listed(folder: Path, name: str) -> None:
    """The file's hash, as it is now."""
    manifest, data = Manifest.read(folder / Manifest.FILE), (folder / name).read_bytes()
    listed = ListedFile(hashlib.sha256(data).hexdigest(), len(data))
    replace(manifest, files={**manifest.files, name: listed}).write(folder / Manifest.FILE)


def test_each_model_is_checked_by_its_own_golden_output(joined: Path) -> None:
    """With the other's it does not hold."""
    manifest = Manifest.read(joined / Manifest.FILE)
    first, second = manifest.variants
    swapped = (replace(first, golden=second.golden), replace(second, golden=first.golden))
    replace(manifest, variants=swapped).write(joined / Manifest.FILE)
    code, said = verify(joined, "--runs", 1)
    assert code == 1 and [line["check"] for line in said[:-1] if not line["ok"]] == ["golden"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": {}}, '"variants" is not a list'),
        ({"variants": [1]}, "a variant is not an object"),
        ({"variants": [{"place": "moon", "model": "model.tflite"}]}, "none of delegate, cpu"),
        ({"variants": [{"place": "cpu", "model": "../model.tflite"}]}, "leaves the bundle"),
        ({"modell": 1}, "['modell'] is unknown to this verifier"),
    ],
)
def test_what_the_verifier_does_not_know_is_refused(joined: Path, change: dict[str, object], words: str) -> None:
    import json

    path = joined / Manifest.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, said = verify(joined)
    assert code == 1 and words in said[-2]["detail"]


def test_the_verifier_knows_every_field_of_the_manifest() -> None:
    assert {*(f.name for f in fields(Manifest)), "schema_version"} == KNOWN
    assert Place.__args__ == PLACES


def test_which_model_it_is() -> None:
    npu, cpu = {"place": "delegate", "model": "a"}, {"place": "cpu", "model": "b"}
    assert chosen({"model": "a"}, delegate=True)[0] == {"model": "a"}
    assert chosen({"variants": [npu, cpu]}, delegate=False)[0] == cpu
    entry, why = chosen({"variants": [npu]}, delegate=False)
    assert entry == npu and why == "a: no delegate is given, and no model is for the cpu"


def test_what_cannot_be_joined(tmp_path: Path, joined: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = small_bundle(tmp_path / "other", 1, "sea\n")
    for cpu, words in ((other, "has other labels than"), (joined, "holds several models already")):
        capsys.readouterr()
        command = ["bundle", "join", "--delegate", str(tmp_path / "npu"), "--cpu", str(cpu), "--out"]
        assert main([*command, str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_joined_again_it_is_the_same(joined: Path, tmp_path: Path) -> None:
    command = ["bundle", "join", "--delegate", str(tmp_path / "npu"), "--cpu", str(tmp_path / "cpu"), "--out"]
    assert main([*command, str(tmp_path / "again")]) == 0
    assert main(["bundle", "diff", str(joined), str(tmp_path / "again")]) == 0
    assert (joined / Manifest.FILE).read_bytes() == (tmp_path / "again" / Manifest.FILE).read_bytes()
    variant = Manifest.read(joined / Manifest.FILE).variants[1]
    assert variant == Variant(
        "cpu", "models/cpu/model.tflite", "models/cpu/preprocessing.json", "models/cpu/measurement.json",
        (GoldenPair("models/cpu/golden/0.input.bin", "models/cpu/golden/0.output.bin", 0.0, 0),),
    )  # fmt: skip
