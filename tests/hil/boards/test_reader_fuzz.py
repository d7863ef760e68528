"""Readers of what people and other programs write: a damaged file is an error of ours, or is read; never a traceback.

`HILNAS_FUZZ=100000 pytest tests/hil/boards/test_reader_fuzz.py` tries so many files in all; without it a quick share.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.run.config import Overrides, load_experiment
from deploy.targets.placement import load_target
from hil.boards.config import BoardConfig, load_boards
from hil.boards.hostkeys import known_keys, require_pinned
from hil.boards.login import find_login
from hil.boards.private_keys import SSHAgent, find_offers
from hil.errors import HilError
from nas.errors import NasError
from nas.space import SearchSpace
from tests.hil.boards.test_hostkeys import OTHERS
from tests.hil.boards.test_ssh_config import FILES
from tests.hil.ssh_servers import write_key

ROOT = Path(__file__).resolve().parents[3]
IN_ALL = int(os.environ.get("HILNAS_FUZZ", "2000"))
LOGIN = find_login(BoardConfig("evk", "ssh", host="evk", key="/none", known_hosts="/none", ssh_config="none"))

STUMBLING_BLOCKS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x85", b"\r", b"\n", b"\t", b" ", b"#", b'"', b"'", b'"""',
    b"[", b"]", b"[[", b"[" * 3000, b"{", b"}", b"=", b".", b",", b"a." * 3000, b"-1", b"0", b"nan", b"-inf", b"1e999",
    b"9" * 20, b"9" * 5000, b"0x" + b"f" * 5000, b"true", b"1979-05-27", b"99:99:99", b"\\u0000", b"\\ud800", b"@",
    b"|1|", b"@revoked ", b"@cert-authority ", b"*", b"!", b"?", b"~", b"~x/", b"%", b"AAAA", b"/", b"-----",
    b"Match ", b"Include ",
]  # fmt: skip


def known_hosts(path: Path) -> None:
    known = known_keys(replace(LOGIN, known_hosts=(path,)))
    assert set(known.preferred(["ssh-ed25519", "rsa-sha2-512"])) == {"ssh-ed25519", "rsa-sha2-512"}
    require_pinned(replace(LOGIN, known_hosts=(path,)), known)


def boards(path: Path) -> None:
    for config in load_boards(path).values():
        if config.kind == "ssh":
            find_login(replace(config, ssh_config="none"))


def ssh_config(path: Path) -> None:
    for host in ("evk", "other"):
        find_login(BoardConfig("evk", "ssh", host=host, ssh_config=str(path)))


def private_key(path: Path) -> None:
    find_offers(replace(LOGIN, keys=(path,), chosen=bool(path.stat().st_size % 2)), SSHAgent())


def experiment(path: Path) -> None:
    load_experiment(path, Overrides())


def space(path: Path) -> None:
    SearchSpace.load(path)


def target(path: Path) -> None:
    load_target(path.parent, path.stem)


READERS: dict[Callable[[Path], None], float] = {
    known_hosts: 0.45,
    boards: 0.45,
    ssh_config: 0.04,
    private_key: 0.025,
    space: 0.02,
    target: 0.01,
    experiment: 0.005,
}
"""Each with its share of the files: the slower, the fewer."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[bytes]]:
    """Sound files for each reader, by its name."""
    keys = tmp_path_factory.mktemp("keys")
    made = [
        write_key(keys / "a"),
        write_key(keys / "b", "rsa", locked_by="secret"),
        write_key(keys / "c", "ecdsa", style="PKCS8"),
        write_key(keys / "d", "rsa", style="TraditionalOpenSSL"),
    ]
    pinned = b"evk,[evk]:2222 " + (keys / "a.pub").read_bytes()
    return {
        "known_hosts": [b"\n".join([*OTHERS, pinned]), pinned + b"@revoked * " + (keys / "c.pub").read_bytes()],
        "boards": [(ROOT / "boards.toml").read_bytes(), BOARD],
        "ssh_config": [text.replace("{folder}", str(keys)).encode() for text in FILES.values()],
        "private_key": [path.read_bytes() for path in made],
        "space": contents("nas/spaces"),
        "target": contents("deploy/targets/rules"),
        "experiment": contents("deploy/configs"),
    }


BOARD = b"""\
[evk-1]
kind = "ssh"
host = "evk-1.lab"
port = 2222
jump = "gate@gate.lab:22,inner"
key = "~/.ssh/id_ed25519"
connect_timeout_s = 2.5
power = ["uhubctl", "-a"]
labels = {shelf = "3"}
[lo]
kind = "loopback"
env.OMP_NUM_THREADS = "1"
"""


def contents(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / folder).glob("*.toml"))]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to four changes."""
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randint(0, len(content)), chance.choice([1, 1, 2, 8, 40, 400])
        piece, other = content[at : at + length], chance.randint(0, len(content))
        content = chance.choice(
            [
                content[:at] + chance.choice(STUMBLING_BLOCKS) + content[at:],
                content[:at] + chance.choice(STUMBLING_BLOCKS) + content[at + length :],
                content[:at] + bytes([chance.randint(0, 255)]) + content[at + 1 :],
                content[:at] + content[at + length :],
                content[:at],
                content[:other] + piece + content[other:],
            ]
        )
    return content


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_damaged_file_is_never_a_traceback(
    reader: Callable[[Path], None],
    originals: dict[str, Sequence[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    chance, path = random.Random(reader.__name__), tmp_path / "file.toml"
    for original in originals[reader.__name__]:
        path.write_bytes(original)
        if reader in (boards, space, target, experiment):  # of the others some are sound and do not serve
            reader(path)
    read = 0
    for number in range(round(IN_ALL * READERS[reader])):
        content = damaged(chance.choice(originals[reader.__name__]), chance)
        path.unlink()  # some file systems write a file out that is replaced by emptying it
        path.write_bytes(content)
        try:
            reader(path)
            read += 1
        except (HilError, NasError) as error:
            assert "\n" not in str(error), (number, content)
            assert str(error).isprintable() or isinstance(error, NasError), (number, content)
        except Exception as error:
            raise AssertionError(f"{reader.__name__}, input {number} {content[:2000]!r}: {error!r}") from error
    assert 0 < read < round(IN_ALL * READERS[reader])
