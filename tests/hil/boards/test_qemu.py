"""The emulated board, broken in every way that only a machine of its own can be: what was asked for is measured,
each once. The contracts of boards and of measuring run on it too (test_board_contract, test_measuring_contract).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from board_scripts.interpret import RESOLVERS
from deploy.compile.subnets import compile_subnets
from deploy.compile.weights import Origin
from deploy.latency.watermark import watermark
from hil.boards import qemu, qemu_image
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.boards.qemu import Machine, QemuBoard
from hil.errors import BoardFull, BoardTimeout, LinkLost, Unreachable, UsageError
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Measurement, Parity
from hil.session import Session
from hil.stage import Stage
from hil.store import Store
from nas.space import SearchSpace, Subnet
from tests.hil.loopback_boards import add_job
from tests.hil.measuring_benches import QUICK, settings_of
from tests.hil.stored_measurements import CONDITIONS

BUSY = MeasureProtocol(warmup_runs=0, warmup_runs_most=0, runs=20_000, rounds=2, run_deadline_s=120)  # 2 s a job
SILENCE_S = 10.0
RETURN_S = 120.0
SUBNETS = ("b2_k3e3-k3e3_w8", "b3_k3e6-k5e3-k7e6_w8", "b2_k3e3-k3e3_w4")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuBoard]:
    with settings_of("qemu", tmp_path_factory.mktemp("qemu")) as config, open_board(config) as opened:
        assert isinstance(opened, QemuBoard)
        yield opened


@pytest.fixture
def without_hook(board: QemuBoard, monkeypatch: pytest.MonkeyPatch) -> QemuBoard:
    """It has to come back by itself, or somebody switches it on."""
    monkeypatch.setattr(board, "config", replace(board.config, power=(), return_deadline_s=RETURN_S))
    return board


def boot_id(board: QemuBoard) -> str:
    return board.run(["cat", "/proc/sys/kernel/random/boot_id"], 20).stdout


def later(seconds: float, act: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def measured_through(board: QemuBoard, folder: Path, fault: Callable[[], object]) -> list[Measurement]:
    """Three models twice, with `fault` while the third measurement runs: none is lost, none is there twice."""
    jobs = [add_job(folder, constant) for constant in (1, 2, 3)]
    done: list[Measurement] = []
    with Session(board, SILENCE_S) as session, Store(folder / "store.db") as store:
        for measurement in measure(session, jobs, BUSY, store):
            done.append(measurement)
            if len(done) == 2:
                fault()
        assert store.all() == done
    assert sorted((m.model, m.round) for m in done) == [(f"add{c}", r) for c in (1, 2, 3) for r in (0, 1)]
    assert len({m.job_id for m in done}) == 6
    assert all(m.status == "ok" and m.parity and m.parity.mismatched == 0 for m in done)
    assert {len(m.latencies_us) for m in done} == {BUSY.runs}
    return done


@pytest.mark.qemu
@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_its_answers_equal_this_machines_exactly(
    board: QemuBoard, tmp_path: Path, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = subnet_jobs(tmp_path, kernels)
    monkeypatch.setattr(board, "config", replace(board.config, kernels=kernels))
    with Session(board) as session, Store(tmp_path / "store.db") as store:
        done = list(measure(session, jobs, replace(QUICK, rounds=1), store))
    assert {m.model for m in done} == set(SUBNETS)
    assert all(m.failure is None and m.parity is not None for m in done), [m.failure for m in done]
    assert {(m.parity.mismatched, m.parity.max_abs_diff) for m in done if m.parity} == {(0, 0)}
    conditions = done[0].conditions
    assert (conditions.kind, conditions.machine, conditions.kernels) == ("qemu", "aarch64", kernels)


@pytest.mark.qemu
def test_convolutions_of_the_builtin_kernels_round_otherwise_and_are_refused(
    board: QemuBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT 2.3's builtin convolutions differ by an LSB between the two instruction sets, its additions do not."""
    jobs = [add_job(tmp_path, 1), *subnet_jobs(tmp_path, "builtin")]
    monkeypatch.setattr(board, "config", replace(board.config, kernels="builtin"))
    with Session(board) as session, Store(tmp_path / "store.db") as store:
        done = {m.model: m for m in measure(session, jobs, replace(QUICK, rounds=1), store)}
    assert done.pop("add1").parity == Parity(elements=1024, mismatched=0, max_abs_diff=0)
    assert all(m.failure and "outputs differ" in m.failure.reason and not m.latencies_us for m in done.values())


def subnet_jobs(folder: Path, kernels: str) -> list[Job]:
    """Each expects what this machine's runtime answers with these kernels."""
    origin = Origin(SearchSpace.load(Path("nas/spaces/demo.toml")), (64, 64))
    models = list(compile_subnets(origin, [Subnet.parse(name) for name in SUBNETS], folder))
    return [
        Job(model, model.stem, model.with_suffix(".input.bin"), answer_here(model, kernels, folder)) for model in models
    ]


def answer_here(model: Path, kernels: str, folder: Path) -> Path:
    """The outputs of this machine's runtime for the golden input."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType[RESOLVERS[kernels]]
    interpreter = Interpreter(str(model), experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    raw = model.with_suffix(".input.bin").read_bytes()
    interpreter.set_tensor(taken["index"], np.frombuffer(raw, taken["dtype"]).reshape(taken["shape"]))
    interpreter.invoke()
    answer = folder / f"{model.stem}.{kernels}"
    answer.write_bytes(b"".join(interpreter.get_tensor(o["index"]).tobytes() for o in interpreter.get_output_details()))
    return answer


@pytest.mark.qemu
def test_a_hung_board_does_not_answer_and_goes_on_when_it_wakes(board: QemuBoard) -> None:
    before = boot_id(board)
    board.machine.hang()
    with pytest.raises(BoardTimeout):
        board.run(["true"], 2)
    board.machine.wake()
    assert boot_id(board) == before


@pytest.mark.qemu
def test_a_hang_during_the_runs(without_hook: QemuBoard, tmp_path: Path) -> None:
    def hang() -> None:
        without_hook.machine.hang()
        later(SILENCE_S + 5, without_hook.machine.wake)

    before = boot_id(without_hook)
    done = measured_through(without_hook, tmp_path, hang)
    assert {m.conditions.boot_id for m in done} == {before.strip()}


@pytest.mark.qemu
def test_a_reset_during_the_runs(without_hook: QemuBoard, tmp_path: Path) -> None:
    done = measured_through(without_hook, tmp_path, without_hook.machine.reset)
    assert len({m.conditions.boot_id for m in done}) == 2


@pytest.mark.qemu
def test_a_kernel_that_crashes_during_the_runs(without_hook: QemuBoard, tmp_path: Path) -> None:
    crashing: list[object] = []  # paramiko closes a channel that nobody holds, and the shell with it

    def crash() -> None:
        crashing.append(without_hook.start(["sh", "-c", "echo c > /proc/sysrq-trigger"]))

    done = measured_through(without_hook, tmp_path, crash)
    assert len({m.conditions.boot_id for m in done}) == 2
    assert "Kernel panic" in (without_hook.machine.folder / "console.log").read_text(errors="replace")


@pytest.mark.qemu
def test_a_cable_that_is_pulled_and_put_back(without_hook: QemuBoard, tmp_path: Path) -> None:
    def pull() -> None:
        without_hook.machine.cable(plugged=False)
        later(SILENCE_S + 5, lambda: without_hook.machine.cable(plugged=True))

    done = measured_through(without_hook, tmp_path, pull)
    assert len({m.conditions.boot_id for m in done}) == 1


@pytest.mark.qemu
def test_a_loss_of_power_is_reported_as_one(board: QemuBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "config", replace(board.config, power=()))
    before = boot_id(board)
    board.machine.off()
    with pytest.raises((LinkLost, Unreachable)):
        board.run(["true"], 20)
    with pytest.raises(Unreachable, match="is it on"):
        board.run(["true"], 20)
    with pytest.raises(Unreachable, match="switch it on"):
        board.machine.reset()
    board.machine.on()
    qemu.wait_for_ssh(board.machine)
    assert boot_id(board) != before


@pytest.mark.qemu
def test_the_power_hook_brings_it_back_during_the_runs(board: QemuBoard, tmp_path: Path) -> None:
    done = measured_through(board, tmp_path, board.machine.off)
    assert len({m.conditions.boot_id for m in done}) == 2


@pytest.mark.qemu
def test_the_power_hook_wakes_a_hung_board(board: QemuBoard, tmp_path: Path) -> None:
    done = measured_through(board, tmp_path, board.machine.hang)
    assert len({m.conditions.boot_id for m in done}) == 2


@pytest.mark.qemu
def test_a_clock_that_steps_changes_no_latency(board: QemuBoard, tmp_path: Path) -> None:
    begin = time.monotonic()
    done = measured_through(board, tmp_path, lambda: board.run(["date", "-s", "@86400"], 20))
    assert board.run(["date", "+%Y"], 20).stdout == "1970\n"
    board.run(["date", "-s", f"@{time.time():.0f}"], 20)
    assert sum(m.board_us for m in done) < (time.monotonic() - begin) * 1e6
    assert all(m.started_at.startswith(time.strftime("%Y-")) for m in done)


@pytest.mark.qemu
def test_a_disk_that_is_full_is_named_and_left_clean(board: QemuBoard, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(2 << 20))
    (tmp_path / "small").write_bytes(os.urandom(1000))
    mounted = board.run(["sh", "-c", "mkdir -p /small && mount -t tmpfs -o size=1m none /small"], 20)
    assert mounted.exit_code == 0, mounted.stderr
    try:
        with pytest.raises(BoardFull, match="its disk or quota is full"):
            board.put(tmp_path / "large", "/small/large")
        with pytest.raises(BoardFull):
            Stage(board, "/small/work").stage_many([tmp_path / "small", tmp_path / "large"])
        assert board.run(["find", "/small", "-type", "f"], 20).stdout == ""
        staged = Stage(board, "/small/work").stage(tmp_path / "small")
        board.get(staged, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "small").read_bytes()
    finally:
        board.run(["umount", "/small"], 20)


@pytest.mark.qemu
def test_it_dies_with_us(board: QemuBoard) -> None:
    script = (
        "import time; from hil.boards.config import BoardConfig; from hil.boards.kinds import open_board\n"
        "board = open_board(BoardConfig(name='qemu', kind='qemu'))\n"
        "print(board.machine.folder, (board.machine.folder / 'pid').read_text(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        folder, pid = client.stdout.readline().split()
        client.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (Path(folder).exists() or running(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists() and not running(int(pid))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.qemu
def test_boards_join_the_machine_that_was_started(board: QemuBoard, tmp_path: Path) -> None:
    image = board.machine.image
    (tmp_path / image.name).symlink_to(image)
    machine = qemu.start(tmp_path)
    try:
        assert qemu.start(tmp_path) == machine
        config = BoardConfig(name="started", kind="qemu", image=str(tmp_path))
        seen = []
        for _ in range(2):
            with open_board(config) as joined:
                seen.append(boot_id(joined))  # type: ignore[arg-type]
        assert seen[0] == seen[1] != boot_id(board)
    finally:
        qemu.stop(tmp_path)
    assert not (tmp_path / "machine").exists() and not machine.is_on()
    with pytest.raises(UsageError, match="hilnas board qemu start"):
        qemu.stop(tmp_path)


def test_its_times_are_never_shown_as_a_boards() -> None:
    assert watermark(replace(CONDITIONS, kind="qemu", board="emu")).startswith("EMULATED: emu is QEMU")
    assert watermark(replace(CONDITIONS, kind="ssh", board="evk")) == ""


def test_without_an_image_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `hilnas board qemu build`"):
        open_board(BoardConfig(name="qemu", kind="qemu", image=str(tmp_path)))


def test_a_missing_program_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_image, "which", lambda program: None if program == "mke2fs" else program)
    with pytest.raises(UsageError, match=r"no program mke2fs here: apt-get install e2fsprogs"):
        next(qemu_image.build(tmp_path))


def test_a_build_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps stand in for the real ones; the order and what is kept are build's own."""
    ran: list[str] = []

    def step(name: str, fails: list[bool]) -> tuple[str, str, Callable[[Path, Path], None]]:
        def write(work: Path, part: Path) -> None:
            ran.append(name)
            part.write_text(f'{{"recipe": "{name}"}}')
            if fails and fails.pop():
                raise UsageError("killed here")

        return name, f"making {name}", write

    steps = (step("packages", []), step("root.ext4", [True]), step("image.json", []))
    monkeypatch.setattr(qemu_image, "STEPS", steps)
    monkeypatch.setattr(qemu_image, "which", str)
    (tmp_path / ("0" * 16)).mkdir()  # of another recipe
    with pytest.raises(UsageError, match="killed here"):
        list(qemu_image.build(tmp_path))
    with pytest.raises(UsageError):
        qemu_image.find_image(tmp_path)
    assert list(qemu_image.build(tmp_path)) == ["making root.ext4", "making image.json"]
    assert list(qemu_image.build(tmp_path)) == []
    assert ran == ["packages", "root.ext4", "root.ext4", "image.json"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        qemu_image.find_image(tmp_path).folder.name, "image.json", "root.ext4"
    ]  # fmt: skip


def test_the_power_switch_says_in_a_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qemu.main([str(tmp_path), "cycle"]) == UsageError.exit_code
    assert "no emulated board there" in capsys.readouterr().err
    with pytest.raises(Unreachable, match="is off"):
        Machine(tmp_path, tmp_path, 1).qmp("stop")
