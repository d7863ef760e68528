from __future__ import annotations

from pathlib import Path

import pytest

from hil.boards import loopback
from hil.boards.catalog import find_board
from hil.boards.config import KINDS, BoardConfig, load_boards
from hil.boards.kinds import BOARD_KINDS, open_board, trust
from hil.boards.loopback import choose_server
from hil.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return path


def test_the_boards_that_ship() -> None:
    boards = load_boards(ROOT / "boards.toml")
    assert boards["loopback"] == BoardConfig(name="loopback", kind="loopback", target="cpu-xnnpack")
    npu = boards["imx8mp"]
    assert all((ROOT / "deploy/targets/rules" / f"{board.target}.toml").is_file() for board in boards.values())
    assert (npu.kind, npu.delegate, npu.allow_fallback) == ("ssh", "/usr/lib/libvx_delegate.so", False)
    assert npu.env["VIV_VX_CACHE_BINARY_GRAPH_DIR"].startswith(npu.workdir + "/")


def test_every_kind_can_be_opened() -> None:
    assert tuple(BOARD_KINDS) == KINDS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[a]\nkind = "replay"\nof = "b"', "unknown key 'of'; it is called 'recorded_board' now"),
        ('[a]\nkind = "loopback"\nthread = 2', "unknown key 'thread'; did you mean 'threads'?"),
        ('[a]\nkind = "loopbak"', "did you mean 'loopback'?"),
        ("[a]\nthreads = 1", "lacks kind"),
        ('[a]\nkind = "loopback"\nthreads = "2"', "threads is '2': give a int"),
        ('[a]\nkind = "loopback"\nthreads = true', "give a int"),
        ('[a]\nkind = "loopback"\nthreads = 0', "above 0"),
        ('[a]\nkind = "loopback"\nkernels = "gpu"', "none of xnnpack, builtin, reference"),
        ('[a]\nkind = "loopback"\n[a.env]\nX = 1', "env is"),
        ('[a]\nkind = "ssh"\nuser = "u"', "needs host"),
        ('[a]\nkind = "loopback"\nworkdir = "/"', "workdir"),
        ("kind = 1", "outside a table"),
        ("[a", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_boards(written(tmp_path, text))
    assert said in str(caught.value)


def test_an_unknown_board_names_the_near_miss(tmp_path: Path) -> None:
    path = written(tmp_path, '[imx8mp]\nkind = "loopback"')
    with pytest.raises(UsageError, match=r"did you mean 'imx8mp'\?"):
        find_board(path, "imx8pm")
    with pytest.raises(UsageError, match=r"name a boards\.toml that exists"):
        load_boards(tmp_path / "none.toml")


def test_a_loopback_is_never_pinned_by_hand() -> None:
    with pytest.raises(UsageError, match="nothing to trust"):
        list(trust(BoardConfig(name="l", kind="loopback")))


def test_without_sshd_asyncssh_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.boards.loopback.find_sshd", lambda: None)
    assert choose_server(BoardConfig(name="l", kind="loopback")) == "asyncssh"
    with pytest.raises(UsageError, match="install openssh-server"):
        open_board(BoardConfig(name="l", kind="loopback", server="sshd"))


def test_where_sshd_refuses_us_asyncssh_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    if loopback.find_sshd() is None:
        pytest.skip("no sshd here: apt install openssh-server")
    monkeypatch.setattr(loopback, "SSHD_CONFIG", loopback.SSHD_CONFIG + "DenyUsers *\n")
    with open_board(BoardConfig(name="l", kind="loopback")) as board:
        assert board.run(["echo", "in"], 10).stdout == "in\n"
