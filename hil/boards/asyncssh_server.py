"""The loopback's server where no sshd is installed: `python -m hil.boards.asyncssh_server`.

Speaks the real protocol with real commands and SFTP, as the user that started it, to the one key in
authorized_keys. A command's process group is killed when its channel closes, so that nothing stays on the board.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import asyncssh

from hil.user import account, home, user_name

BLOCK_BYTES = 65536


def login_environment() -> dict[str, str]:
    """As sshd gives it: nothing of ours leaks into a command."""
    name, folder = account() or user_name(), str(home())
    with suppress(KeyError):  # a bare user id has no entry
        folder = pwd.getpwuid(os.getuid()).pw_dir
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "HOME": folder,
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/sh",
        "PATH": path,
    }


async def pump_in(channel: asyncssh.SSHServerProcess[bytes], stdin: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await channel.stdin.read(BLOCK_BYTES):
            stdin.write(data)
            await stdin.drain()
    with suppress(OSError):
        stdin.close()


async def pump_out(stream: asyncio.StreamReader, writer: asyncssh.SSHWriter[bytes]) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await stream.read(BLOCK_BYTES):
            writer.write(data)
            await writer.drain()


async def finish(child: asyncio.subprocess.Process, *outputs: Coroutine[None, None, None]) -> None:
    await asyncio.gather(*outputs)
    await child.wait()


async def serve_command(channel: asyncssh.SSHServerProcess[bytes]) -> None:
    if channel.command is None:
        channel.stderr.write(b"this server runs commands, it has no shell\n")
        channel.exit(1)
        return
    environment = login_environment()
    home = environment["HOME"] if Path(environment["HOME"]).is_dir() else "/"
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", channel.command,
        stdin=pipe, stdout=pipe, stderr=pipe, cwd=home, env=environment, start_new_session=True,
    )  # fmt: skip
    assert child.stdin and child.stdout and child.stderr  # noqa: S101 - they were asked for as pipes
    reading = asyncio.create_task(pump_in(channel, child.stdin))
    outputs = (pump_out(child.stdout, channel.stdout), pump_out(child.stderr, channel.stderr))
    ended = asyncio.create_task(finish(child, *outputs))
    gone = asyncio.create_task(channel.wait_closed())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and child.returncode is not None:
            if child.returncode < 0:
                channel.exit_with_signal(signal.Signals(-child.returncode).name.removeprefix("SIG"))
            else:
                channel.exit(child.returncode)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        for task in (reading, gone, ended):
            task.cancel()
        await child.wait()


async def serve(folder: Path, port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=serve_command,
        sftp_factory=True,
        encoding=None,
        keepalive_interval=15,
    )
    await stop.wait()
    server.close()
    # cancelling what still runs kills its process group: see serve_command
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others, timeout=2) if others else None


def main() -> int:
    parser = argparse.ArgumentParser(description="a private SSH server on 127.0.0.1")
    parser.add_argument("--folder", type=Path, required=True, help="holds host_key and authorized_keys")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.port))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
