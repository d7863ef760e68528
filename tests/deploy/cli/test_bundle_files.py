"""`hilnas bundle pack|show|diff|sign|verify` of files: a finished run's bundle packed, signed, verified and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.cli.failing import BOARDS, MODEL, USAGE

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="no ssh-keygen: apt-get install openssh-client"
)


@pytest.fixture
def packed(finished, tmp_path, capfd) -> Path:
    assert main(["bundle", "pack", str(finished.folder), "--out", str(tmp_path / "fast.bundle")]) == 0
    assert "packed: " in capfd.readouterr().out
    return tmp_path / "fast.bundle"


def signers(folder: Path, name: str = "anna") -> tuple[Path, Path]:
    """A new key, and the file that allows its owner alone."""
    key, allowed = folder / name, folder / f"{name}.allowed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    allowed.write_text(f"{name} {key.with_name(f'{name}.pub').read_text()}")
    return key, allowed


def test_a_packed_bundle_verifies_as_it_is(packed, finished, tmp_path, capfd, fails):
    assert main(["bundle", "verify", str(packed), "--boards", str(BOARDS)]) == 0
    assert f"{packed} verified on loopback" in capfd.readouterr().out
    again = tmp_path / "again.bundle"
    assert main(["bundle", "pack", str(finished.folder / "bundle"), "--out", str(again)]) == 0
    assert again.read_bytes() == packed.read_bytes()
    packed.write_bytes(packed.read_bytes()[:-100])
    fails(MODEL, ["bundle", "verify", packed, "--boards", BOARDS], str(packed), "damaged")
    fails(USAGE, ["bundle", "verify", tmp_path / "none.bundle", "--boards", BOARDS], "none.bundle", "no bundle there")
    fails(USAGE, ["bundle", "pack", tmp_path], str(tmp_path), "neither a bundle nor a finished run")


def test_what_is_in_it(packed, capfd):
    assert main(["bundle", "show", str(packed)]) == 0
    said = capfd.readouterr().out
    for words in ("name: tiny-fast", "mIoU", "golden pairs: 4", "CONV_2D", "model.tflite: ", "signature: none"):
        assert words in said, said
    assert main(["bundle", "show", str(packed), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["files"]["model.tflite"] > 1000 and found["signed_by"] is None


def test_a_signed_one_is_asked_for(packed, tmp_path, capfd, fails):
    (key, allowed), (_, others) = signers(tmp_path), signers(tmp_path, "eve")
    verify = ["bundle", "verify", packed, "--boards", BOARDS, "--allowed-signers"]
    fails(1, [*verify, allowed], str(packed), "not signed")
    assert main(["bundle", "sign", str(packed), "--key", str(key)]) == 0
    assert main([str(word) for word in (*verify, allowed)]) == 0
    assert "signed by anna" in capfd.readouterr().out
    fails(1, [*verify, others], "signed by nobody in")
    assert main(["bundle", "show", str(packed), "--allowed-signers", str(allowed)]) == 0
    assert "signed by anna" in capfd.readouterr().out


def test_what_differs(packed, finished, tmp_path, capfd):
    other = tmp_path / "teacher"
    assert main(["bundle", "export", "--run", str(finished.folder), "--model", "teacher", "--out", str(other)]) == 0
    measurement = json.loads((other / "measurement.json").read_text(encoding="utf8"))
    measurement["latency_us"]["median"] += 1000.0  # both may take the same, to three digits of a millisecond
    (other / "measurement.json").write_text(json.dumps(measurement), encoding="utf8")
    capfd.readouterr()
    assert main(["bundle", "diff", str(packed), str(other)]) == 0
    said = capfd.readouterr().out
    for words in ("name", "subnet", "latency", "model.tflite", "tiny-teacher"):
        assert words in said, said
    assert main(["bundle", "diff", str(packed), str(finished.folder / "bundle")]) == 0
    assert "hold the same" in capfd.readouterr().out
