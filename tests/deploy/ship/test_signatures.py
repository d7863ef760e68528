"""Signed bundles, by the real ssh-keygen: who signed, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.ship.signatures import SIGNATURE, sign, signer
from hil.errors import CheckFailed, UsageError
from tests.deploy.ship.test_manifest import MANIFEST

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="no ssh-keygen: apt-get install openssh-client"
)


def key(path: Path, *, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)], check=True)
    return path


def allowing(path: Path, **keys: Path) -> Path:
    lines = [f"{name} {one.with_name(one.name + '.pub').read_text()}" for name, one in keys.items()]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    MANIFEST.write(tmp_path / "bundle" / MANIFEST.FILE)
    return tmp_path / "bundle"


def test_who_signed_is_named(bundle: Path, tmp_path: Path) -> None:
    ours, theirs = key(tmp_path / "ours"), key(tmp_path / "theirs")
    allowed = allowing(tmp_path / "allowed", anna=theirs, bert=ours)
    assert sign(bundle, ours) == bundle / SIGNATURE
    assert signer(bundle, allowed) == "bert"
    sign(bundle, theirs)  # again, by another
    assert signer(bundle, allowed) == "anna"


def test_what_is_refused(bundle: Path, tmp_path: Path) -> None:
    ours, theirs = key(tmp_path / "ours"), key(tmp_path / "theirs")
    allowed = allowing(tmp_path / "allowed", bert=ours)
    with pytest.raises(CheckFailed, match="not signed"):
        signer(bundle, allowed)
    sign(bundle, theirs)
    with pytest.raises(CheckFailed, match="signed by nobody in"):
        signer(bundle, allowed)
    sign(bundle, ours)
    manifest = bundle / MANIFEST.FILE
    manifest.write_bytes(manifest.read_bytes().replace(b"run-fast", b"run-last"))
    with pytest.raises(CheckFailed, match="was changed after it was signed"):
        signer(bundle, allowed)
    (bundle / SIGNATURE).write_text("no signature")
    with pytest.raises(CheckFailed, match="signed by nobody"):
        signer(bundle, allowed)
    with pytest.raises(UsageError, match="no such file; it lists who may sign"):
        signer(bundle, tmp_path / "none")


def test_a_signature_of_something_else_does_not_count(bundle: Path, tmp_path: Path) -> None:
    ours = key(tmp_path / "ours")
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(ours), "-n", "file", str(bundle / MANIFEST.FILE)], check=True
    )
    with pytest.raises(CheckFailed, match=r"was changed|nobody"):
        signer(bundle, allowing(tmp_path / "allowed", bert=ours))


def test_keys_that_cannot_sign(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such key"):
        sign(bundle, tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(UsageError, match="text: cannot sign with it: "):
        sign(bundle, tmp_path / "text")
    with pytest.raises(UsageError, match="no bundle there"):
        sign(tmp_path, key(tmp_path / "ours"))
