"""A ProxyCommand of ~/.ssh/config: a program whose input and output are the link to a server."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from contextlib import suppress

from hil.errors import Unreachable

END_TIMEOUT_S = 2.0


class ProxyCommand:
    """Runs until closed. Raises Unreachable where it does not start.

    Attributes:
        link: our end; paramiko's own class for this spins when the program ends.
    """

    def __init__(self, who: str, command: str) -> None:
        self.command = command
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self.link, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"], stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said
            )
        except OSError as error:
            self._said.close()
            self.link.close()
            raise Unreachable(f"{who}: its ProxyCommand does not start ({error.strerror}): {command}") from error
        finally:
            theirs.close()

    def fault(self) -> str:
        """Its last line on stderr, or that it left none."""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed no reason"

    def close(self) -> None:
        self.link.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()
