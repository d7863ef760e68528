"""A working session on a board: a folder there, what the board is, and one runner that stays."""

from __future__ import annotations

import getpass
import json
import socket
import tempfile
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hil.boards.board import Board, Process
from hil.errors import BoardBusy, BoardError, BoardFault, BoardTimeout, LinkLost, UsageError
from hil.measurement import Conditions
from hil.boards.power import answering
from hil.scripts import RUNNER, runner_archive, script_path
from hil.stage import Stage

PROBE_TIMEOUT_S = 120.0  # importing the runtime from a slow SD card, once
START_TIMEOUT_S = 120.0
FOLDER_TIMEOUT_S = 30.0
SILENCE_S = 30.0  # the runner says every 2 s that it lives
DEFAULT_WORKDIR = "/tmp/hilnas"  # noqa: S108 - on the board, and what BSPs leave writable


class Session:
    """Use as a context manager. The board stays the caller's to close.

    Jobs may be sent ahead; answers come in the order of the jobs, and stay on the board until acknowledged.

    Attributes:
        board: the board.
        conditions: what the board was when the session began, or reconnected.
        stage: files under their content.
    """

    board: Board
    conditions: Conditions
    stage: Stage

    def __init__(self, board: Board, silence_s: float = SILENCE_S) -> None:
        self.board = board
        self.workdir = board.config.workdir or DEFAULT_WORKDIR
        self.stage = Stage(board, self.workdir, board.config.quota_mb << 20)
        self._silence_s = silence_s
        self._token = uuid.uuid4().hex
        self._runner: Process | None = None
        self._program = ""  # benchmark_model's path, where that is the driver
        self._sent: deque[str] = deque()  # jobs whose answer is still to come, in order
        self._scripts = tempfile.TemporaryDirectory(prefix="hilnas-scripts-")

    def __enter__(self) -> Session:
        (Path(self._scripts.name) / RUNNER).write_bytes(runner_archive())
        self._prepare()
        self.conditions = self._probe()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._scripts.cleanup()

    def send(self, job: dict[str, Any]) -> None:
        """Hands a job (see board_scripts/runner.py) to the runner. Raises LinkLost, BoardTimeout."""
        self._runner_or_lost().send(json.dumps(job))
        self._sent.append(job["id"])

    def receive(self, job_id: str) -> dict[str, Any]:
        """The answer to `job_id`; those to older jobs, which nobody waits for any more, are left out.

        Raises LinkLost when runner or link ended, BoardTimeout when the runner does not even say that it lives.
        """
        while True:
            line = self._runner_or_lost().receive(self._silence_s)
            answer = _parse(line, f"the runner on board {self.board.name}")
            if "beat" in answer:
                continue
            if not self._sent or answer.get("id") != self._sent[0]:
                failure = answer.get("failure") or {}
                reason = failure.get("reason", answer) if isinstance(failure, dict) else answer
                raise UsageError(f"the runner on board {self.board.name} refuses a job: {str(reason)[:300]}")
            if self._sent.popleft() == job_id:
                return answer

    def acknowledge(self, job_ids: Sequence[str]) -> None:
        """These answers are safe here: the board may forget them."""
        self._runner_or_lost().send(json.dumps({"ack": list(job_ids)}))

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job from here to its answer."""
        self.send(job)
        return self.receive(job["id"])

    def reconnect(self) -> None:
        """A fresh runner on a fresh link; a board that does not answer is brought back where that can be done.

        Raises BoardError when the board came back in another state.
        """
        answering(self.board, self._begin_again)

    def _begin_again(self) -> None:
        self._stop()
        self.board.disconnect()
        self.stage.forget()
        self._prepare()
        now = self._probe()
        if now.key() != self.conditions.key():
            raise BoardError(
                f"board {self.board.name} came back different from how the session began (kernel, runtime, "
                "delegate or governor): begin a new session, its numbers do not compare with the old ones"
            )
        self.conditions = now
        self._start()

    def _runner_or_lost(self) -> Process:
        if self._runner is None:
            raise LinkLost(f"board {self.board.name}: no runner")
        return self._runner

    def _argv(self, script: str, *arguments: str) -> list[str]:
        config = self.board.config
        environment = [f"{key}={value}" for key, value in config.env.items()]
        remote = self.stage.stage(self._script(script))
        return ["env", *environment, config.python or "python3", remote, *arguments]

    def _script(self, name: str) -> Path:
        return Path(self._scripts.name) / RUNNER if name == RUNNER else script_path(name)

    def _prepare(self) -> None:
        """Our scripts, the workdir, and what the environment names in it: a graph cache makes no folder."""
        inside = [value for value in self.board.config.env.values() if value.startswith(f"{self.workdir}/")]
        made = self.board.run(["mkdir", "-p", self.workdir, *inside], FOLDER_TIMEOUT_S)
        if made.exit_code:
            raise BoardError(
                f"board {self.board.name}: cannot make {self.workdir}: {made.stderr}: "
                "give it another workdir in boards.toml, or free space there"
            )
        self.stage.stage_many([self._script("probe.py"), self._script(RUNNER)])  # one upload for both

    def _probe(self) -> Conditions:
        config = self.board.config
        arguments = self._roots(sys="sys", proc="proc", etc="etc")
        arguments += ["--delegate", config.delegate] if config.delegate else []
        arguments += ["--program", config.benchmark_model] if config.driver == "benchmark_model" else []
        probed = self.board.run(self._argv("probe.py", *arguments), PROBE_TIMEOUT_S)
        if probed.exit_code:
            said = (probed.stderr.strip().splitlines() or ["no message"])[-1]
            raise BoardError(
                f"board {self.board.name}: {config.python or 'python3'} cannot run the probe "
                f"(exit {probed.exit_code}): {said}: set `python` in boards.toml to one from 3.9 on"
            )
        found = _parse(probed.stdout, f"the probe on board {self.board.name}")
        self._program = self._program_in(found) if config.driver == "benchmark_model" else ""
        if found["runtime"] is None and not self._program:
            raise BoardError(
                f"board {self.board.name}: no TFLite runtime for {config.python or 'python3'} "
                f"({found['runtime_version']}): install ai-edge-litert or tflite-runtime there"
            )
        delegate = found["delegate"]
        if delegate is not None and not delegate["exists"]:
            raise BoardError(
                f"board {self.board.name}: no delegate {config.delegate} ({delegate['reason']}): "
                "mend `delegate` in boards.toml, or install the BSP's package"
            )
        if delegate is not None and not delegate["sha256"].startswith(config.delegate_sha256):
            raise BoardFault(
                f"board {self.board.name}: {config.delegate} is another build (sha256 {delegate['sha256'][:12]}, asked "
                f"for {config.delegate_sha256[:12]}): install the right one, or mend `delegate_sha256` in boards.toml"
            )
        return Conditions(
            board=config.fleet or config.name,
            unit=config.name,
            kind=config.kind,
            machine=found["machine"],
            soc=found["soc"],
            kernel=found["kernel"],
            bsp=found["bsp"],
            npu=found["npu"],
            driver=config.driver,
            runtime=self._runtime_text(found),
            delegate=self._delegate_text(delegate),
            kernels=config.kernels,
            threads=config.threads,
            governor=config.governor or found["governor"],
            temperature_c=found["temperature_c"],
            boot_id=found["boot_id"],
            python=found["python"],
        )

    def _program_in(self, found: dict[str, Any]) -> str:
        if found["program"] is None:
            config = self.board.config
            raise BoardError(
                f"board {config.name}: no program {config.benchmark_model} to run: install the BSP's "
                "tensorflow-lite examples, or mend `benchmark_model` in boards.toml"
            )
        return str(found["program"]["path"])

    def _runtime_text(self, found: dict[str, Any]) -> str:
        if self._program:
            return f"benchmark_model@{found['program']['sha256'][:12]}"
        return f"{found['runtime']} {found['runtime_version']}@{found['runtime_sha256'][:12]}"

    def _delegate_text(self, delegate: dict[str, Any] | None) -> str:
        """File, content, options and environment: all of them decide where the graph runs."""
        config = self.board.config
        words = ["none" if delegate is None else f"{Path(delegate['path']).name}@{delegate['sha256'][:12]}"]
        words += [f"{key}={value}" for key, value in sorted({**config.delegate_options, **config.env}.items())]
        return ";".join(words)

    def _roots(self, **paths: str) -> list[str]:
        """Where our scripts find the board's instruments, if not in their places."""
        root = self.board.config.root
        return [word for name, path in paths.items() for word in (f"--{name}", f"{root}/{path}")] if root else []

    def _start(self) -> None:
        config = self.board.config
        arguments = ["--workdir", self.workdir, "--token", self._token, "--owner", owner()]
        arguments += self._roots(sys="sys", proc="proc", kmsg="dev/kmsg")
        if config.governor:
            arguments += ["--governor", config.governor]
        if self._program:
            arguments += ["--program", self._program]
        self._runner = self.board.start(self._argv(RUNNER, *arguments))
        hello = _parse(self._runner.receive(START_TIMEOUT_S), f"the runner on board {self.board.name}")
        if not hello.get("ready"):
            kind = BoardBusy if hello.get("busy") else BoardTimeout if hello.get("stuck") else BoardError
            raise kind(f"board {self.board.name}: the runner does not start: {hello.get('reason')}")

    def _stop(self) -> None:
        runner, self._runner = self._runner, None
        self._sent.clear()
        if runner is not None:
            runner.close()


def open_session(board: Board) -> Session:
    """A session with any kind of board: with a replay, one that answers from its store."""
    if board.config.kind == "replay":
        from hil.replay import ReplaySession

        return ReplaySession(board)
    return Session(board)


def owner() -> str:
    """Who others on the board are told to ask."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _parse(line: str, who: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BoardError(f"{who} said {line[:200]!r}, which is not JSON: does something print into it?") from error
    if not isinstance(record, dict):
        raise BoardError(f"{who} said {line[:200]!r}, which is no JSON object")
    return record
