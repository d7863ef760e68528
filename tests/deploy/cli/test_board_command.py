"""`hilnas board`: check, reserve, release, list, power."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.latency.watermark import watermark
from hil.boards.catalog import BUILT_IN
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.boards.loopback import LoopbackBoard, free_port
from hil.job import Job
from tests.hil.stored_measurements import CONDITIONS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    work = tmp_path_factory.mktemp("machine") / "work"
    with open_board(BoardConfig("machine", "loopback", server="asyncssh", workdir=str(work))) as board:
        yield board


@pytest.fixture
def boards(machine: LoopbackBoard, tmp_path: Path) -> Path:
    """A boards.toml: a machine behind SSH as others would reach it, one that is off, a loopback and a replay."""
    config = machine.config
    reached = (
        f'kind = "ssh"\nhost = "127.0.0.1"\nuser = "{config.user}"\nkey = "{config.key}"\npython = "{config.python}"\n'
        f'known_hosts = "{config.known_hosts}"\nworkdir = "{config.workdir}"\n'
    )
    off = free_port()
    (tmp_path / "known").write_text(Path(config.known_hosts).read_text().replace(f":{config.port} ", f":{off} "))
    (tmp_path / "boards.toml").write_text(
        f'[evk]\n{reached}port = {config.port}\nfleet = "evks"\npower = ["sh", "-c", "echo $0 >> {tmp_path}/plug"]\n'
        f'[evk.labels]\nshelf = "3"\n'
        f"[off]\n{reached.replace(config.known_hosts, str(tmp_path / 'known'))}port = {off}\n"
        f'[lo]\nkind = "loopback"\nserver = "asyncssh"\n[again]\nkind = "replay"\nstore = "{tmp_path}/rec.db"\n'
    )
    return tmp_path / "boards.toml"


@pytest.fixture
def run(boards: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def hilnas_board(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["board", *words, "--boards", str(boards)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return hilnas_board


def test_a_sound_board_passes_line_by_line(run: Run) -> None:
    code, out, err = run("check", "evk")
    checks = " ".join(line.split()[1] for line in out.splitlines())
    assert (code, err) == (0, "")
    assert checks == "reach neighbours clock identity runtime governor heat disk cma load model"
    assert "0 of 6144 elements differ" in out and not any(line.startswith("FAIL") for line in out.splitlines())


def test_json_holds_the_same(run: Run) -> None:
    code, out, _ = run("check", "evk", "--json")
    record = json.loads(out)
    assert (code, record["board"], len(record["findings"])) == (0, "evk", 11)
    assert all(set(finding) == {"check", "state", "said", "todo"} for finding in record["findings"])


def test_a_board_that_is_off_or_amiss_is_exit_3(run: Run, boards: Path) -> None:
    code, out, err = run("check", "off")
    assert code == 3 and "refused" in err and out.startswith("FAIL board") and err.count("\n") == 1
    boards.write_text(boards.read_text().replace('fleet = "evks"', 'delegate = "/no/libvx_delegate.so"'))
    code, out, err = run("check", "evk")
    assert code == 3 and "install the BSP's package" in err
    assert "note model      not run: fix the board first" in out


def test_a_model_that_fails_is_exit_4(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.compile import canary

    real = canary.known_good

    def spoiled(folder: Path) -> Job:
        job = real(folder)
        job.expected.write_bytes(bytes(byte ^ 1 for byte in job.expected.read_bytes()))
        return job

    monkeypatch.setattr(canary, "known_good", spoiled)
    code, out, err = run("check", "evk")
    assert code == 4 and "6144 of 6144 elements" in err
    assert [line.split()[1] for line in out.splitlines() if line.startswith("FAIL")] == ["model"]


def test_a_reservation_from_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("reserve", "evk", "--for", "1h30m", "--note", "tonight")
    assert code == 0 and "(tonight) until" in out and "90 min left" in out
    monkeypatch.setenv("LOGNAME", "somebody")
    assert run("reserve", "evk")[0] == 3
    code, out, err = run("check", "evk")
    assert code == 3 and "tonight" in err and "not run" in out
    code, _, err = run("release", "evk")
    assert code == 3 and "--force" in err
    assert "tonight" in run("list", "--probe")[1]
    assert run("release", "evk", "--force")[:2] == (0, "evk: released\n")
    assert run("reserve", "evk", "--for", "soon")[0] == 2
    code, _, err = run("reserve", "lo")
    assert code == 2 and "nothing to reserve" in err


def test_the_list(run: Run) -> None:
    lines = {line.split()[0]: line for line in run("list")[1].splitlines()}
    assert list(lines) == ["evk", "off", "lo", "again", *BUILT_IN]
    assert "fleet evks" in lines["evk"] and "shelf 3" in lines["evk"] and "free" not in lines["evk"]
    assert "recorded in" in lines["again"]
    probed = {line.split()[0]: line for line in run("list", "--probe")[1].splitlines()}
    assert probed["evk"].endswith("  free") and probed["lo"].endswith("  free")
    assert "not known: " in probed["off"] and "refused" in probed["off"]


def test_power(run: Run, tmp_path: Path) -> None:
    with suppress(FileNotFoundError):
        (tmp_path / "plug").unlink()
    assert run("power", "evk", "cycle")[:2] == (0, "evk: power cycle\n")
    assert (tmp_path / "plug").read_text() == "cycle\n"
    code, _, err = run("power", "lo", "on")
    assert code == 2 and "no power hook" in err


def test_a_replay_has_nothing_to_check(run: Run) -> None:
    code, _, err = run("check", "again")
    assert code == 2 and "no machine to check" in err


def test_the_watermark_is_for_replays_only() -> None:
    assert watermark(replace(CONDITIONS, kind="ssh", board="evk")) == ""
    assert "replay of evk" in watermark(replace(CONDITIONS, kind="replay", board="replay of evk"))
