"""A packed bundle: the same bytes for the same content, and nothing of a hostile one outside its folder."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.formats.digest import file_digest
from deploy.ship import archive
from deploy.ship.archive import pack, unpack, unpacked
from deploy.ship.manifest import ListedFile, Manifest
from hil.errors import HilError, ModelError, UsageError
from tests.deploy.ship.test_manifest import MANIFEST

FUZZ = int(os.environ.get("HILNAS_FUZZ", "200"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(bytes(range(256)) * 9)
    (folder / "golden" / "input.bin").write_bytes(b"\0" * 5000)
    (folder / "labels.txt").write_text("road\n")
    listed = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    files = {name: ListedFile(file_digest(path), path.stat().st_size) for name, path in listed.items()}
    replace(MANIFEST, files=files).write(folder / Manifest.FILE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_comes_back_as_it_was(bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json.sig").write_text("a signature")
    pack(bundle, tmp_path / "a.bundle")
    assert contents(unpack(tmp_path / "a.bundle", tmp_path / "back")) == contents(bundle)
    with unpacked(tmp_path / "a.bundle") as folder:
        assert contents(folder) == contents(bundle)
    assert not folder.exists()
    with unpacked(bundle) as folder:
        assert folder == bundle


def test_the_same_content_is_the_same_file(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "a.bundle")
    for path in bundle.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    pack(bundle, tmp_path / "b.bundle")
    assert (tmp_path / "a.bundle").read_bytes() == (tmp_path / "b.bundle").read_bytes()


def test_what_is_no_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "labels.txt").unlink()
    (bundle / "labels.txt").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match=r"labels\.txt: not a file; .* no links"):
        pack(bundle, tmp_path / "a.bundle")
    with pytest.raises(UsageError, match=r"no bundle there"):
        pack(tmp_path, tmp_path / "a.bundle")
    assert not (tmp_path / "a.bundle").exists()


def written(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        for entry, data in entries:
            packed.addfile(entry, io.BytesIO(data))
    path.write_bytes(content.getvalue())
    return path


def entry(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, "/etc/passwd"
    return info, data


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "./x", "a//b", "a\\b", "C:x", "a\nb", "x" * 300, ".."])
def test_a_name_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    source = written(tmp_path / "a.bundle", entry(Manifest.FILE), entry(name))
    with pytest.raises(ModelError, match="no name inside a bundle"):
        unpack(source, tmp_path / "out" / "bundle")
    assert contents(tmp_path) == {"a.bundle": source.read_bytes()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    source = written(tmp_path / "a.bundle", entry(Manifest.FILE), entry("labels.txt", kind=kind))
    with pytest.raises(ModelError, match=r"'labels\.txt' is a link or no regular file"):
        unpack(source, tmp_path / "bundle")


def test_what_is_twice_or_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "a.bundle", entry(Manifest.FILE), entry("a"), entry("A"))
    with pytest.raises(ModelError, match="'A' is in it twice"):
        unpack(source, tmp_path / "bundle")
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    bomb = written(tmp_path / "b.bundle", entry(Manifest.FILE), entry("a", b"\0" * 99), entry("b", b"\0" * 99))
    with pytest.raises(ModelError, match="no bundle has so much"):
        unpack(bomb, tmp_path / "bundle")
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    many = written(tmp_path / "c.bundle", entry(Manifest.FILE), entry("a"), entry("b"))
    with pytest.raises(ModelError, match="more than 2 files"):
        unpack(many, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bundle", "b.bundle", "c.bundle"]


def test_other_files(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(UsageError, match="no bundle there"):
        unpack(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ModelError, match=r"no bundle \(no manifest\.json in it\)"):
        unpack(written(tmp_path / "a.bundle", entry("labels.txt")), tmp_path / "out")
    for content in (
        b"",
        b"PK\3\4",
        gzip.compress(b""),
        gzip.compress(b"x" * 2000),
        b"\x1f\x8b" + b"\0" * 50,
        b"\x1f\x8b\x08",
    ):
        (tmp_path / "b.bundle").write_bytes(content)
        with pytest.raises(ModelError, match=r"b\.bundle: (not a packed bundle|no bundle)"):
            unpack(tmp_path / "b.bundle", tmp_path / "out")
    pack(bundle, tmp_path / "whole.bundle")
    written(tmp_path / "b.bundle", entry("a"), entry("a/b"))
    with pytest.raises(ModelError, match="a file in it is the folder of another"):
        unpack(tmp_path / "b.bundle", tmp_path / "out")
    (tmp_path / "b.bundle").write_bytes((tmp_path / "whole.bundle").read_bytes()[:-200])
    with pytest.raises(ModelError, match=r"damaged|cut short"):
        unpack(tmp_path / "b.bundle", tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        unpack(tmp_path / "whole.bundle", bundle)
    assert not (tmp_path / "out").exists()


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_hostile_archive_is_refused_or_stays_inside(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Random entries, and whole bundles with random bytes changed, cut and inserted."""
    source, out = tmp_path / "hostile.bundle", tmp_path / "inside" / "bundle"
    if data.draw(st.booleans()):
        names = st.one_of(
            st.text(max_size=20), st.sampled_from(["../up", "/abs", "manifest.json", "a/b", "a", "a/b/c"])
        )
        kinds = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
        some = st.lists(st.tuples(names, st.binary(max_size=30), kinds), max_size=6)
        try:
            written(source, *(entry(*one) for one in data.draw(some)))
        except (ValueError, UnicodeError):
            return  # tarfile does not write such a name
    else:
        pack(bundle, source)
        content = bytearray(gzip.decompress(source.read_bytes()))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        whole = gzip.compress(bytes(content))
        source.write_bytes(whole[: data.draw(st.integers(1, len(whole)))] if data.draw(st.booleans()) else whole)
    before = set(tmp_path.rglob("*"))
    try:
        unpack(source, out)
    except HilError as error:
        assert "\n" not in str(error)
    after = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "inside") and not path.is_symlink() for path in after)
    for path in sorted(after, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
