"""A working session on a board: a folder there, what the board is, and one runner that stays."""

from __future__ import annotations

import json
import socket
import tempfile
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from hil.answer import Answer, Beat, Hello, read_line
from hil.boards.board import Board, Process
from hil.boards.power import answering
from hil.boards.refusal import ENGLISH, refusal
from hil.checks import json_object
from hil.errors import BoardBusy, BoardError, BoardFault, BoardTimeout, LinkLost, UsageError
from hil.facts import PROBE_TIMEOUT_S, Facts, Library, probe_arguments, read_facts, root_arguments
from hil.measurement import Conditions
from hil.request import Acknowledgement, Request
from hil.scripts import RUNNER, run_script, runner_archive
from hil.stage import Stage
from hil.user import user_name

START_TIMEOUT_S = 120.0
FOLDER_TIMEOUT_S = 30.0
SILENCE_S = 30.0  # the runner sends a beat every 2 s
DEFAULT_WORKDIR = "/tmp/hilnas"  # noqa: S108 - on the board, and what BSPs leave writable


class Session:
    """Use as a context manager. The board stays the caller's to close.

    Requests may be sent ahead; answers come in the order of the requests, and stay on the board until acknowledged.

    Attributes:
        conditions: what the board was when the session began, or reconnected.
        stage: files on the board under their content.
        recorded: false: what it answers is measured now.
    """

    board: Board
    conditions: Conditions
    stage: Stage
    recorded: bool = False

    def __init__(self, board: Board, silence_s: float = SILENCE_S) -> None:
        self.board = board
        self.workdir = board.config.workdir or DEFAULT_WORKDIR
        self.stage = Stage(board, self.workdir, board.config.quota_mb << 20)
        self._silence_s = silence_s
        self._token = uuid.uuid4().hex
        self._runner: Process | None = None
        self._program = ""  # benchmark_model's path, where that is the driver
        self._sent: deque[Request] = deque()  # those whose answer is still to come, in order
        self._scripts = tempfile.TemporaryDirectory(prefix="hilnas-scripts-")

    def __enter__(self) -> Session:
        self._archive().write_bytes(runner_archive())
        self.conditions = self._probe()
        self._prepare()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._scripts.cleanup()

    def stage_many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The files' paths on the board, where they are when this returns. Raises UsageError, BoardError."""
        return self.stage.stage_many(paths)

    def send(self, request: Request) -> None:
        """Hands a request to the runner. Raises LinkLost, BoardTimeout."""
        self._runner_or_lost().send(json.dumps(request.to_json()))
        self._sent.append(request)

    def receive(self, job_id: str) -> Answer:
        """The answer to `job_id`; answers to older requests, which nobody waits for any more, are dropped.

        Raises LinkLost when runner or link ended, BoardTimeout when not even a beat of the runner arrives, BoardError
        for a malformed answer.
        """
        who = f"board {self.board.name}: the answer"
        while True:
            line = self._runner_or_lost().receive(self._silence_s)
            answer = read_line(line, f"{who} to {self._sent[0].name}" if self._sent else who)
            if isinstance(answer, Beat):
                continue
            if not self._sent or answer.id != self._sent[0].id:
                reason = answer.failure.reason if answer.failure is not None else f"it answers {answer.id!r}"
                raise UsageError(f"the runner on board {self.board.name} refuses a job: {reason[:300]}")
            if self._sent.popleft().id == job_id:
                return answer

    def acknowledge(self, job_ids: Sequence[str]) -> None:
        """These answers are stored here: the board may delete them."""
        self._runner_or_lost().send(json.dumps(Acknowledgement(job_ids).to_json()))

    def run(self, request: Request) -> Answer:
        """Sends one request and waits for its answer."""
        self.send(request)
        return self.receive(request.id)

    def reconnect(self) -> None:
        """A fresh runner on a fresh link; a board that does not answer is brought back where that is possible.

        Raises BoardError when the board came back in another state.
        """
        answering(self.board, self._begin_again)

    def _begin_again(self) -> None:
        self._stop()
        self.board.disconnect()
        self.stage.forget()
        now = self._probe()
        if now.key() != self.conditions.key():
            raise BoardError(
                f"board {self.board.name} came back different from how the session began (kernel, runtime, "
                "delegate or governor): begin a new session, its numbers do not compare with the old ones"
            )
        self.conditions = now
        self._prepare()
        self._start()

    def _runner_or_lost(self) -> Process:
        if self._runner is None:
            raise LinkLost(f"board {self.board.name}: no runner")
        return self._runner

    def _argv(self, *arguments: str) -> list[str]:
        """The runner's command."""
        config = self.board.config
        environment = [f"{key}={value}" for key, value in config.env.items()]
        return ["env", *environment, config.python or "python3", self.stage.stage(self._archive()), *arguments]

    def _archive(self) -> Path:
        return Path(self._scripts.name) / RUNNER

    def _prepare(self) -> None:
        """The workdir, and what the environment names in it: a graph cache makes no folder."""
        inside = [value for value in self.board.config.env.values() if value.startswith(f"{self.workdir}/")]
        made = self.board.run([*ENGLISH, "mkdir", "-p", self.workdir, *inside], FOLDER_TIMEOUT_S)
        if made.exit_code:
            raise refusal(self.board.name, f"cannot make {self.workdir}", made.stderr)

    def _probe(self) -> Conditions:
        config = self.board.config
        arguments = probe_arguments(config, "sys", "proc", "etc")
        found = read_facts(run_script(self.board, "probe.py", *arguments, timeout_s=PROBE_TIMEOUT_S), config)
        runtime = self._require_runtime(found)
        if found.delegate is not None:
            self._require_delegate(found.delegate)
        return Conditions(
            board=config.fleet or config.name,
            unit=config.name,
            kind=config.kind,
            machine=found.machine,
            soc=found.soc,
            kernel=found.kernel,
            bsp=found.bsp,
            npu=found.npu,
            driver=config.driver,
            runtime=runtime,
            delegate=self._delegate_text(found.delegate),
            kernels=config.kernels,
            threads=config.threads,
            governor=config.governor or found.governor,
            temperature_c=found.temperature_c,
            boot_id=found.boot_id,
            python=found.python,
        )

    def _require_runtime(self, found: Facts) -> str:
        """Package, version and hash of what runs the models. Raises BoardError without it."""
        config = self.board.config
        if config.driver == "benchmark_model":
            if found.program is None:
                raise BoardError(
                    f"board {config.name}: no program {config.benchmark_model} to run: install the BSP's "
                    "tensorflow-lite examples, or fix `benchmark_model` in boards.toml"
                )
            self._program = found.program.path
            return f"benchmark_model@{found.program.sha256[:12]}"
        if found.runtime is None:
            raise BoardError(
                f"board {config.name}: no TFLite runtime for {config.python or 'python3'} "
                f"({found.runtime_version}): install ai-edge-litert or tflite-runtime there"
            )
        return f"{found.runtime} {found.runtime_version}@{found.runtime_sha256[:12]}"

    def _require_delegate(self, library: Library) -> None:
        config = self.board.config
        if library.sha256 is None:
            raise BoardError(
                f"board {config.name}: no delegate {config.delegate} ({library.reason}): "
                "fix `delegate` in boards.toml, or install the BSP's package"
            )
        if not library.sha256.startswith(config.delegate_sha256):
            raise BoardFault(
                f"board {config.name}: {config.delegate} is another build (sha256 {library.sha256[:12]}, asked "
                f"for {config.delegate_sha256[:12]}): install the right one, or fix `delegate_sha256` in boards.toml"
            )

    def _delegate_text(self, library: Library | None) -> str:
        """File, content, options and environment: all of them decide where the graph runs."""
        config = self.board.config
        words = ["none" if library is None else f"{Path(library.path).name}@{(library.sha256 or '')[:12]}"]
        words += [f"{key}={value}" for key, value in sorted({**config.delegate_options, **config.env}.items())]
        return ";".join(words)

    def _start(self) -> None:
        config = self.board.config
        arguments = ["--workdir", self.workdir, "--token", self._token, "--owner", owner()]
        arguments += root_arguments(config, sys="sys", proc="proc", kmsg="dev/kmsg")
        if config.governor:
            arguments += ["--governor", config.governor]
        if self._program:
            arguments += ["--program", self._program]
        self._runner = self.board.start(self._argv(*arguments))
        who = f"board {config.name}: the runner's first line"
        hello = Hello.from_json(json_object(self._runner.receive(START_TIMEOUT_S), who), who)
        if "[Errno" in hello.reason:  # of its folder
            raise refusal(config.name, f"the runner does not start in {self.workdir}", hello.reason)
        if not hello.ready:
            kind = BoardBusy if hello.busy else BoardTimeout if hello.stuck else BoardError
            raise kind(f"board {config.name}: the runner does not start: {hello.reason}")

    def _stop(self) -> None:
        runner, self._runner = self._runner, None
        self._sent.clear()
        if runner is not None:
            runner.close()


def owner() -> str:
    """Our name in messages to others who want the board."""
    return f"{'_'.join(user_name().split())}@{socket.gethostname()}"
