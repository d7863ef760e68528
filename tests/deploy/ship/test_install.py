"""Bundles installed on a loopback board: verified there, switched to, refused, gone back from, and killed meanwhile.

By default 4 kills; HILNAS_KILLS=30 is the whole of it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.ship.install import InstallFolder, check_folder, installed, over_fleet
from deploy.ship.signatures import sign
from deploy.ship.verification import identity
from hil.boards.board import Board
from hil.boards.kinds import open_board
from hil.errors import BoardError, CheckFailed, ModelError, UsageError
from hil.measurement import Conditions
from hil.scripts import script
from hil.sessions import open_session
from tests.conftest import REPOSITORY
from tests.deploy.ship.small_bundles import small_bundle
from tests.deploy.ship.test_signatures import allowing, key
from tests.hil.loopback_boards import loopback

KILLS = int(os.environ.get("HILNAS_KILLS", "4"))
HOST = """
import sys
from pathlib import Path
from deploy.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with open_board(loopback()) as opened:
        yield opened


@pytest.fixture(scope="module")
def conditions(board: Board) -> Conditions:
    with open_session(board) as session:
        return session.conditions


@pytest.fixture
def folder(board: Board, conditions: Conditions, tmp_path: Path) -> InstallFolder:
    return InstallFolder(board, str(tmp_path / "to"), conditions)


def known(folder: InstallFolder) -> list[tuple[str, bool]]:
    return [(release.bundle, release.current) for release in installed(folder.board, folder.path)]


def test_installed_twice_and_rolled_back(folder: InstallFolder, tmp_path: Path) -> None:
    one, two = small_bundle(tmp_path / "one", 3, pairs=2), small_bundle(tmp_path / "two", 4)
    assert known(folder) == []
    first = folder.install(one)
    assert first.before is None and first.verification.latency_us is not None
    second = folder.install(two)
    assert second.before == replace(first.release, current=True)
    assert known(folder) == [("add-3", False), ("add-4", True)]
    assert (Path(folder.path) / "current" / "model.tflite").read_bytes() == (two / "model.tflite").read_bytes()
    again = folder.install(two)
    assert again.release == again.before and len(known(folder)) == 2
    back = folder.roll_back()
    assert back.release.bundle == "add-3" and known(folder) == [("add-3", True), ("add-4", False)]
    with pytest.raises(UsageError, match="no release before the current one"):
        folder.roll_back()


def test_a_release_that_decayed_is_not_gone_back_to(folder: InstallFolder, tmp_path: Path) -> None:
    folder.install(small_bundle(tmp_path / "one", 3))
    folder.install(small_bundle(tmp_path / "two", 4))
    (old,) = Path(folder.path, "releases").glob("0001-*")
    (old / "labels.txt").write_text("other")
    with pytest.raises(ModelError, match=r"labels\.txt"):
        folder.roll_back()
    assert known(folder) == [("add-3", False), ("add-4", True)]


def test_what_is_not_right_is_not_switched_to(folder: InstallFolder, tmp_path: Path) -> None:
    folder.install(small_bundle(tmp_path / "one", 3))
    last_pair = small_bundle(tmp_path / "wrong", 4, wrong=1, pairs=3)
    with pytest.raises(ModelError, match=r"golden/output2\.bin: 1 of"):
        folder.install(last_pair)
    changed = small_bundle(tmp_path / "changed", 5)
    (changed / "labels.txt").write_text("c\nd\n")
    before = sorted(Path(folder.path).rglob("*"))
    with pytest.raises(ModelError, match=r"shown: labels\.txt was changed"):
        folder.install(changed, shown=Path("shown"))
    assert sorted(Path(folder.path).rglob("*")) == before  # nothing was uploaded
    assert known(folder) == [("add-3", True)]


def test_latency_counts_under_the_same_conditions_alone(
    folder: InstallFolder, conditions: Conditions, tmp_path: Path
) -> None:
    slow = small_bundle(tmp_path / "slow", 3, recorded_us=1e-3, conditions=conditions)
    with pytest.raises(CheckFailed, match=r"not installed: median .* slower than the recorded .*, twice"):
        folder.install(slow)
    assert known(folder) == []
    same = small_bundle(tmp_path / "same", 4, conditions=conditions)
    assert folder.install(same).latency.holds is True
    other = replace(conditions, governor="powersave", board="imx8mp")
    elsewhere = folder.install(small_bundle(tmp_path / "elsewhere", 5, recorded_us=1e-3, conditions=other))
    assert elsewhere.latency.holds is None and "other conditions (board, governor)" in elsewhere.latency.text
    old = small_bundle(tmp_path / "old", 6, recorded_us=1e-3, conditions=conditions, tolerance=None)
    assert "states no tolerance" in folder.install(old).latency.text
    builtin = replace(folder, conditions=replace(conditions, kernels="builtin"))
    alike = small_bundle(tmp_path / "builtin", 7, recorded_us=1e-3, conditions=builtin.conditions)
    assert "other conditions (kernels)" in builtin.install(alike).latency.text  # the verifier runs XNNPACK's


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen: apt-get install openssh-client")
def test_a_signature_is_asked_for_here_and_there(
    folder: InstallFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = key(tmp_path / "ours"), key(tmp_path / "theirs")
    allowed, others = allowing(tmp_path / "allowed", anna=ours), allowing(tmp_path / "others", eve=theirs)
    bundle = small_bundle(tmp_path / "one", 3)
    with pytest.raises(CheckFailed, match="not signed"):
        folder.install(bundle, allowed)
    sign(bundle, ours)
    with pytest.raises(CheckFailed, match="signed by nobody in"):
        folder.install(bundle, others)
    assert not Path(folder.path).exists() or not list(Path(folder.path, "incoming").iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("deploy.ship.install.signer", lambda *_: "eve")  # a host that was deceived
        with pytest.raises(CheckFailed, match="the board's ssh-keygen finds no signature of eve"):
            folder.install(bundle, others)
    done = folder.install(bundle, allowed)
    assert done.signed_by == "anna" and done.signed_there is True


def test_folders_that_cannot_be(board: Board, conditions: Conditions, tmp_path: Path) -> None:
    for path in ("opt/model", "/", "/opt/../etc", "/opt/model/", ""):
        with pytest.raises(UsageError, match="absolute path of a folder on the board"):
            check_folder(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BoardError, match=r"file.*name another folder"):
        InstallFolder(board, str(tmp_path / "file"), conditions).install(small_bundle(tmp_path / "one"))
    odd = str(tmp_path / "it's $(touch x); *")
    InstallFolder(board, odd, conditions).install(small_bundle(tmp_path / "two"))
    assert [release.current for release in installed(board, odd)] == [True]


def test_a_fleet_stops_at_the_first_that_fails() -> None:
    tried: list[str] = []

    def work(name: str) -> None:
        tried.append(name)
        if name == "b":
            raise BoardError("board b: gone")

    with pytest.raises(BoardError, match=r"^board b: gone; done on a; not tried on c, d$"):
        over_fleet(("a", "b", "c", "d"), work)
    assert tried == ["a", "b"]


# Power lost: the host, the server and all that runs on the board end at once.


def lost_at(moment_s: float, arguments: list[str]) -> None:
    """Starts an install and kills it and everything below it after that time.

    Shells end by themselves, before this returns: killed within a user's start-up files, they leave locks of others.
    """
    with subprocess.Popen([sys.executable, "-c", HOST, *arguments], cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        time.sleep(moment_s)
        everything, shells = [*psutil.Process(process.pid).children(recursive=True), process], []
        for one in everything:
            with suppress(psutil.Error, ProcessLookupError):
                if isinstance(one, psutil.Process) and is_shell(one):
                    shells.append(one)
                else:
                    one.send_signal(signal.SIGKILL)
    psutil.wait_procs(shells, timeout=90)


def is_shell(process: psutil.Process) -> bool:
    """One of them, or what one of their start-up files started."""
    return any(one.name() in ("sh", "bash", "dash") for one in (process, process.parent() or process))


def verified(folder: Path) -> bool:
    """By the verifier alone, as it runs on a board."""
    argv = [sys.executable, "-I", "-", str(folder), "--runs", "1"]
    done = subprocess.run(argv, input=script("verify_bundle.py"), capture_output=True, check=False)
    return done.returncode == 0


def test_power_lost_again_and_again(board: Board, conditions: Conditions, tmp_path: Path) -> None:
    rng, to = random.Random(0), tmp_path / "to"
    bundles = [small_bundle(tmp_path / f"bundle{number}", 3 + number, pairs=3) for number in range(2)]
    first = InstallFolder(board, str(to), conditions).install(bundles[0])
    (tmp_path / "boards.toml").write_text(f'[bench]\nkind = "loopback"\nworkdir = "{tmp_path / "work"}"\n')
    command = ["bundle", "install", "--to", str(to), "--board", "bench", "--boards", str(tmp_path / "boards.toml")]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", HOST, *command, str(bundles[1])], cwd=REPOSITORY, check=True)
    length_s, before, switched = time.monotonic() - begun, identity(bundles[1]), 0
    for number in range(KILLS):
        lost_at(rng.uniform(0.2, 1.1) * length_s, [*command, str(bundles[number % 2])])
        after = identity(to / "current")
        assert after in (before, identity(bundles[number % 2])) and verified(to / "current"), number
        assert all(verified(release) for release in (to / "releases").iterdir()), number
        before, switched = after, switched + (after != before)
    assert 0 < switched < KILLS or KILLS < 10  # some came before the switch, some after it
    again = InstallFolder(board, str(to), conditions).install(bundles[0])
    assert again.release.identity == first.release.identity == identity(to / "current")
