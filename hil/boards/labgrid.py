"""A place of a labgrid coordinator: acquired when opened, released when closed, reached by SSH like any board.

labgrid's own client speaks with the coordinator (extra `labgrid`); we connect to the NetworkService that the place
shows, with our pinned host keys, and cycle the power through the client where the place has a power resource.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hil.boards.config import BoardConfig
from hil.boards.ssh import SSHBoard
from hil.errors import BoardBusy, BoardError, BoardTimeout, UsageError

CLIENT_TIMEOUT_S = 60.0
RESOURCE = re.compile(r"^Acquired resource '[^']*' \(\S*/NetworkService/[^)]*\):\n((?:  .*\n?)+)", re.MULTILINE)


class LabgridBoard(SSHBoard):
    """Raises UsageError without labgrid or a coordinator, BoardBusy where the place is somebody else's."""

    def __init__(self, config: BoardConfig) -> None:
        self._client_argv = client_argv(config)
        self._acquired = False
        super().__init__(config)
        self._ask("acquire")
        self._acquired = True
        try:
            super().__init__(self._located())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        if self._acquired:
            self._acquired = False
            self._ask("release")

    def _located(self) -> BoardConfig:
        service = network_service(self.name, self._ask("show"))
        return dataclasses.replace(
            self.config,
            host=str(service["address"]),
            port=int(service.get("port") or 22),
            user=self.config.user or str(service["username"]),
            power=self.config.power or (*self._client_argv, "power"),
        )

    def _ask(self, action: str) -> str:
        """What labgrid-client prints. Raises BoardBusy, BoardError, BoardTimeout."""
        argv = [*self._client_argv, action]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=CLIENT_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BoardTimeout(
                f"board {self.name}: labgrid-client {action} did not end within {CLIENT_TIMEOUT_S:g} s: "
                "is the coordinator well?"
            ) from error
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        busy = "already acquired" in said
        hint = "wait, or ask them" if busy else "see `labgrid-client places` and `resources`"
        kind = BoardBusy if busy else BoardError
        raise kind(f"board {self.name}: labgrid place {self.config.place}: {said}: {hint}")


def client_argv(config: BoardConfig) -> tuple[str, ...]:
    """labgrid-client for the board's place. Raises UsageError."""
    beside = str(Path(sys.executable).parent)  # where pip puts it, be the environment active or not
    program = shutil.which("labgrid-client", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise UsageError(f"board {config.name}: no labgrid-client here: pip install 'hilnas[labgrid]'")
    coordinator = config.coordinator or os.environ.get("LG_COORDINATOR", "")
    if not coordinator:
        raise UsageError(f"board {config.name}: no coordinator: set `coordinator` in boards.toml, or LG_COORDINATOR")
    return (program, "-x", coordinator, "-p", config.place)


def network_service(name: str, shown: str) -> dict[str, Any]:
    """The address, port and username in what `labgrid-client show` prints of an acquired place. Raises BoardError."""
    found = [ast.literal_eval(text) for text in RESOURCE.findall(shown)]
    usable = [resource["params"] for resource in found if resource.get("avail")]
    if len(usable) != 1:
        raise BoardError(
            f"board {name}: its labgrid place has {len(usable)} available NetworkService resources, one is needed: "
            "add a match to the place, or see its exporter"
        )
    params: dict[str, Any] = usable[0]
    if params.get("extra", {}).get("proxy_required"):
        raise BoardError(f"board {name}: its labgrid exporter is isolated and asks for a proxy, which we do not use")
    return params
