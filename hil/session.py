"""A working session on a board: a folder there, what the board is, and one runner that stays."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

from hil.boards import Board, Process
from hil.errors import BoardError, BoardTimeout, LinkLost, UsageError
from hil.measurement import Conditions
from hil.stage import Stage

PROBE_TIMEOUT_S = 120.0  # importing the runtime from a slow SD card, once
START_TIMEOUT_S = 120.0
FOLDER_TIMEOUT_S = 30.0
DEFAULT_WORKDIR = "/tmp/hilnas"  # noqa: S108 - on the board, and what BSPs leave writable


class Session:
    """Use as a context manager. The board stays the caller's to close.

    Attributes:
        board: the board.
        conditions: what the board was when the session began, or reconnected.
        stage: files under their content.
    """

    board: Board
    conditions: Conditions
    stage: Stage

    def __init__(self, board: Board) -> None:
        self.board = board
        self._workdir = board.config.workdir or DEFAULT_WORKDIR
        self.stage = Stage(board, self._workdir)
        self._runner: Process | None = None

    def __enter__(self) -> Session:
        self._prepare()
        self.conditions = self._probe()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def run(self, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The runner's answer to a job (see board_scripts/runner.py), within seconds.

        A runner lost between jobs is started anew, once and silently: the job had not begun. One lost during
        a job is a LinkLost, one that says nothing a BoardTimeout: `reconnect` and decide.
        """
        if self._runner is None or not self._runner.alive():
            self.reconnect()
        try:
            self._send(job)
        except LinkLost:
            self.reconnect()
            self._send(job)
        try:
            return self._answer(job["id"], timeout_s)
        except (LinkLost, BoardTimeout):
            self._stop()  # whatever it may still say belongs to a job that was given up
            raise

    def reconnect(self) -> None:
        """A fresh runner on a fresh link. Raises BoardError when the board came back in another state."""
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

    def _send(self, job: dict[str, Any]) -> None:
        if self._runner is None:
            raise LinkLost(f"board {self.board.name}: no runner")
        self._runner.send(json.dumps(job))

    def _answer(self, job_id: str, timeout_s: float) -> dict[str, Any]:
        if self._runner is None:
            raise LinkLost(f"board {self.board.name}: no runner")
        answer = _parse(self._runner.receive(timeout_s), f"the runner on board {self.board.name}")
        if answer.get("id") != job_id:
            failure = answer.get("failure") or {}
            raise UsageError(f"the runner on board {self.board.name} refuses a job: {failure.get('reason', answer)}")
        return answer

    def _argv(self, script: str, *arguments: str) -> list[str]:
        config = self.board.config
        environment = [f"{key}={value}" for key, value in config.env.items()]
        remote = self.stage.stage(script_path(script))
        return ["env", *environment, config.python or "python3", remote, *arguments]

    def _prepare(self) -> None:
        """Our scripts, the workdir, and what the environment names in it: a graph cache makes no folder."""
        inside = [value for value in self.board.config.env.values() if value.startswith(f"{self._workdir}/")]
        made = self.board.run(["mkdir", "-p", self._workdir, *inside], FOLDER_TIMEOUT_S)
        if made.exit_code:
            raise BoardError(
                f"board {self.board.name}: cannot make {self._workdir}: {made.stderr}: "
                "give it another workdir in boards.toml, or free space there"
            )
        self.stage.stage_many([script_path("probe.py"), script_path("runner.py")])  # one upload for both

    def _probe(self) -> Conditions:
        config = self.board.config
        arguments = ["--delegate", config.delegate] if config.delegate else []
        probed = self.board.run(self._argv("probe.py", *arguments), PROBE_TIMEOUT_S)
        if probed.exit_code:
            said = (probed.stderr.strip().splitlines() or ["no message"])[-1]
            raise BoardError(
                f"board {self.board.name}: {config.python or 'python3'} cannot run the probe "
                f"(exit {probed.exit_code}): {said}: set `python` in boards.toml to one from 3.9 on"
            )
        found = _parse(probed.stdout, f"the probe on board {self.board.name}")
        if found["runtime"] is None:
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
        return Conditions(
            board=config.name,
            kind=config.kind,
            machine=found["machine"],
            soc=found["soc"],
            kernel=found["kernel"],
            runtime=f"{found['runtime']} {found['runtime_version']}",
            delegate=self._delegate_text(delegate),
            kernels=config.kernels,
            threads=config.threads,
            governor=found["governor"],
            temperature_c=found["temperature_c"],
            boot_id=found["boot_id"],
            python=found["python"],
        )

    def _delegate_text(self, delegate: dict[str, Any] | None) -> str:
        """File, content, options and environment: all of them decide where the graph runs."""
        config = self.board.config
        words = ["none" if delegate is None else f"{Path(delegate['path']).name}@{delegate['sha256'][:12]}"]
        words += [f"{key}={value}" for key, value in sorted({**config.delegate_options, **config.env}.items())]
        return ";".join(words)

    def _start(self) -> None:
        self._runner = self.board.start(self._argv("runner.py"))
        hello = _parse(self._runner.receive(START_TIMEOUT_S), f"the runner on board {self.board.name}")
        if not hello.get("ready"):
            raise BoardError(f"board {self.board.name}: the runner does not start: {hello.get('reason')}")

    def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


def script_path(name: str) -> Path:
    """One of the files that run on boards."""
    return Path(str(resources.files("board_scripts") / name))


def _parse(line: str, who: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise BoardError(f"{who} said {line[:200]!r}, which is not JSON: does something print into it?") from error
    if not isinstance(record, dict):
        raise BoardError(f"{who} said {line[:200]!r}, which is no JSON object")
    return record
