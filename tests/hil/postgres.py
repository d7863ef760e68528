"""A real PostgreSQL server of the tests' own: in a temporary folder, on a private socket, gone with the process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psycopg

START_TIMEOUT_S = 30.0
PASSWORD = "a secret: 100% /?&"  # what has to be quoted in a URL
RULES = "local all guest scram-sha-256\nlocal all all trust\n"  # only the folder's owner and root reach the socket


def find_binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class PostgresServer:
    """Use as a context manager. Superuser `postgres` without a password; `guest` needs PASSWORD."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="hilnas-pg-"))  # short: a socket's path holds 107 bytes
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # initdb refuses to be root
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def __enter__(self) -> PostgresServer:
        data = self.folder / "data"
        self._run("initdb", "--pgdata", str(data), "--username=postgres", "--auth=trust", "--encoding=UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip
        (data / "pg_hba.conf").write_text(RULES)
        options = {"unix_socket_directories": self.folder, "listen_addresses": "", "max_connections": 60}
        settings = [f"--{name}={value}" for name, value in options.items()]
        self._log = (self.folder / "log").open("w")
        # --pdeathsig: a test run that is killed takes its server along
        argv = ["setpriv", *self._as_user, "--pdeathsig=INT", str(self._binaries / "postgres"), "-D", str(data)]
        self._server = subprocess.Popen([*argv, *settings], stdout=self._log, stderr=self._log, cwd="/")
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.execute(f"CREATE ROLE guest LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
                return self
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    raise
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.send_signal(signal.SIGQUIT)  # at once: nothing there is needed any more
        self._server.wait()
        self._log.close()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """The name of an empty one."""
        name = f"test_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True, connect_timeout=5
        ) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *arguments: str) -> None:
        argv = ["setpriv", *self._as_user, str(self._binaries / program), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr
