"""Bundles installed in a folder of the board: each release whole, one of them current, switched by a link.

    python3 install_bundle.py list DIR               what is installed
    python3 install_bundle.py sweep DIR              makes DIR, removes what a cut upload or removal left in it
    python3 install_bundle.py signed DIR ID SIGNER   does DIR/incoming/ID.signers allow SIGNER, who signed it?
    python3 install_bundle.py place DIR ID           DIR/incoming/ID becomes the newest release, and the current one
    python3 install_bundle.py switch DIR RELEASE     that release becomes the current one

    DIR/current -> releases/0002-ID     what applications open
    DIR/releases/0001-ID                numbered as they were installed; never half
    DIR/incoming/ID                     an upload, or what is being removed

ID: first digits of the manifest's sha256. A release is on the disk, with its folders, before the link names it, and the
link is replaced by a rename: power lost at any moment leaves the old release or the new one. Prints one JSON line,
{"releases": [{"folder", "bundle", "current"}], "signed": true, false or null, "reason": null or why not}. Exit 0: done;
1: not; 2: wrong call. Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

MANIFEST = "manifest.json"
NAMESPACE = "hilnas-bundle"
KEPT = 2  # releases: the current one, and the one before it to go back to
UPLOAD_KEPT_S = 3600  # somebody else may be uploading right now
ID = re.compile("[0-9a-f]{16}")
RELEASE = re.compile("([0-9]{4,9})-[0-9a-f]{16}")
NO_SIGNATURES = ("unknown option", "illegal option", "usage:")  # of an ssh-keygen before OpenSSH 8.1


class Refused(Exception):  # noqa: N818
    """What was asked for is not done; its text is the reason."""


@contextlib.contextmanager
def locked(root: str) -> Iterator[None]:
    """One at a time changes the folder; the kernel gives the lock back however we end."""
    fd = os.open(os.path.join(root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: str) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(os.path.join(parent, name))
        sync(parent)


def releases_in(root: str) -> dict[int, str]:
    """Folders by their number, in its order."""
    with contextlib.suppress(FileNotFoundError):
        found = filter(None, map(RELEASE.fullmatch, os.listdir(os.path.join(root, "releases"))))
        return dict(sorted((int(match[1]), match[0]) for match in found))
    return {}


def current_in(root: str) -> int | None:
    """The number of the release that the link names, if it is there."""
    with contextlib.suppress(OSError):
        name = os.path.basename(os.readlink(os.path.join(root, "current")))
        return next((number for number, folder in releases_in(root).items() if folder == name), None)
    return None


def discard(root: str, folder: str) -> None:
    """Out of the releases first: half removed, it would be none."""
    gone = os.path.join(root, "incoming", f"gone-{folder}")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(os.path.join(root, "releases", folder), gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(root: str) -> None:
    incoming = os.path.join(root, "incoming")
    for folder in (incoming, os.path.join(root, "releases")):
        os.makedirs(folder, exist_ok=True)
    for name in os.listdir(incoming):
        path = os.path.join(incoming, name)
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime <= UPLOAD_KEPT_S and not name.startswith("gone-"):
                continue
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def switch(root: str, folder: str) -> None:
    if folder not in releases_in(root).values():
        raise Refused(f"no release {folder} there")
    part = os.path.join(root, ".current.part")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    os.symlink(os.path.join("releases", folder), part)
    os.replace(part, os.path.join(root, "current"))
    sync(root)


def place(root: str, identity: str) -> None:
    """Releases newer than the current one were rolled back from: nobody goes back to them."""
    source, there = os.path.join(root, "incoming", identity), os.path.join(root, "releases")
    if not os.path.isfile(os.path.join(source, MANIFEST)):
        raise Refused(f"no upload {identity} there")
    sync_tree(source)
    current = current_in(root)
    for number, folder in releases_in(root).items():
        if current is not None and number > current:
            discard(root, folder)
    folder = f"{max(releases_in(root), default=0) + 1:04}-{identity}"
    os.rename(source, os.path.join(there, folder))
    sync(there)
    switch(root, folder)
    for old in list(releases_in(root).values())[:-KEPT]:
        discard(root, old)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{source}.signers")


def signed(root: str, identity: str, signer: str) -> bool | None:
    """None where no ssh-keygen that verifies is there."""
    folder = os.path.join(root, "incoming", identity)
    argv = ["ssh-keygen", "-Y", "verify", "-f", f"{folder}.signers", "-I", signer, "-n", NAMESPACE]
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as manifest:
            argv += ["-s", os.path.join(folder, f"{MANIFEST}.sig")]
            done = subprocess.run(argv, stdin=manifest, capture_output=True, timeout=60, check=False)
    except FileNotFoundError as error:
        if error.filename != argv[0]:
            raise
        return None
    if any(text in done.stderr.decode(errors="replace").lower() for text in NO_SIGNATURES):
        return None
    return done.returncode == 0


def listed(root: str) -> list[dict[str, Any]]:
    current, found = current_in(root), []
    for number, folder in releases_in(root).items():
        name = "?"
        path = os.path.join(root, "releases", folder, MANIFEST)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as manifest:
            name = str(json.load(manifest)["name"])
        found.append({"folder": folder, "bundle": name, "current": number == current})
    return found


def done(action: str, root: str, words: Sequence[str]) -> bool | None:
    """Does it; of "signed", whether it is."""
    if action == "list":
        return None
    os.makedirs(root, exist_ok=True)
    with locked(root):
        if action == "sweep":
            sweep(root)
        elif action == "place":
            place(root, *words)
        elif action == "switch":
            switch(root, *words)
        else:
            return signed(root, *words)
    return None


WORDS = {"list": (), "sweep": (), "place": (ID,), "switch": (RELEASE,), "signed": (ID, re.compile("(?s).+"))}
"""The actions, and what their arguments after DIR are."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="releases of bundles in a folder of this board")
    parser.add_argument("action", choices=WORDS)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("words", nargs="*", metavar="ID|RELEASE|SIGNER")
    options = parser.parse_args(arguments)
    wanted = WORDS[options.action]
    if len(options.words) != len(wanted) or not all(map(re.fullmatch, wanted, options.words)):
        parser.error(f"{options.action} does not take {options.words}")
    answer: dict[str, Any] = {"releases": [], "signed": None, "reason": None}
    try:
        answer["signed"] = done(options.action, options.folder, options.words)
        answer["releases"] = listed(options.folder)
    except (OSError, Refused, subprocess.SubprocessError) as error:
        answer["reason"] = str(error)
    print(json.dumps(answer))
    return 0 if answer["reason"] is None else 1


if __name__ == "__main__":
    sys.exit(main())
