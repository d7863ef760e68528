"""An emulated board: a Cortex-A53 machine in QEMU that can be hung, reset, unplugged and switched off.

Its results equal a real core's, its times mean nothing: `Conditions.kind` is "qemu", and none is ever published. A
board that is opened joins the machine that `hilnas board qemu start` left running, else it starts a private one on an
overlay of the image; that one dies with us, by a guard as on the loopback board.

`python -m hil.boards.qemu FOLDER on|off|cycle` is a machine's power switch, for `power` in boards.toml.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.boards.config import BoardConfig
from hil.boards.loopback import free_port
from hil.boards.power import ACTIONS
from hil.boards.qemu_image import Image, default_folder, find_image
from hil.boards.ssh import SSHBoard
from hil.errors import BoardError, BoardTimeout, HilError, Unreachable, UsageError
from hil.user import expanded

PROGRAM = "qemu-system-aarch64"
MEMORY_MB = 1024
START_TIMEOUT_S = 60.0
BOOT_TIMEOUT_S = 180.0  # 6 s on an idle host
QMP_TIMEOUT_S = 20.0
ATTEMPTS = 3  # a free port can be taken between our look and QEMU's bind
POLL_S = 0.1

# QEMU detaches itself and leaves its process id in `pid`; if that is missing, we were killed while it started.
GUARD = """
cat >/dev/null
[ -d "$1" ] || exit 0
[ -s "$1/pid" ] || sleep 2
kill -9 "$(cat "$1/pid")" 2>/dev/null
rm -rf -- "$1"
"""


@dataclass(frozen=True)
class Machine:
    """An emulated computer. Its folder has the disk's overlay, the QMP socket, the console's log and the pinned key.

    Attributes:
        image: the folder of its kernel and disk.
        port: of its SSH server on 127.0.0.1.
    """

    folder: Path
    image: Path
    port: int

    @classmethod
    def load(cls, folder: Path) -> Machine:
        """The machine that `create` made there. Raises UsageError where none is."""
        try:
            raw = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
            return cls(folder, Path(raw["image"]), raw["port"])
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{folder}: no emulated board there: run `hilnas board qemu start`") from error

    @classmethod
    def create(cls, folder: Path, image: Image) -> Machine:
        """A machine on a fresh overlay, switched on. Raises BoardError where QEMU does not start."""
        overlay = ["-f", "qcow2", "-F", "raw", "-b", str(image.folder / "root.ext4"), str(folder / "disk.qcow2")]
        subprocess.run(["qemu-img", "create", "-q", *overlay], check=True, stdin=subprocess.DEVNULL)
        for attempt in range(ATTEMPTS):
            machine = cls(folder, image.folder, free_port())
            host_key = (image.folder / "keys" / "host_key.pub").read_text()
            machine.known_hosts.write_text(f"[127.0.0.1]:{machine.port} {host_key}")
            (folder / "machine.json").write_text(json.dumps({"image": str(image.folder), "port": machine.port}))
            try:
                machine.on()
                break
            except BoardError as error:
                if "forwarding" not in str(error) or attempt == ATTEMPTS - 1:
                    raise
        return machine

    @property
    def key(self) -> Path:
        return self.image / "keys" / "client_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def on(self) -> None:
        """Power. Its disk is as it was when the power went. Raises BoardError where QEMU does not start."""
        argv = [PROGRAM, "-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", str(MEMORY_MB), "-nodefaults"]
        argv += ["-display", "none", "-daemonize", "-pidfile", str(self.folder / "pid")]
        argv += ["-kernel", str(self.image / "kernel/vmlinuz"), "-initrd", str(self.image / "initrd")]
        argv += ["-append", "console=ttyAMA0 panic=1", "-serial", f"file:{self.folder}/console.log"]
        argv += ["-drive", f"if=none,id=disk,format=qcow2,cache=unsafe,file={self.folder}/disk.qcow2"]
        argv += ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-net-device,netdev=net,id=cable"]
        argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        argv += ["-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
            )
        except FileNotFoundError as error:
            raise UsageError(f"no program {PROGRAM} here: apt-get install qemu-system-arm") from error
        except subprocess.TimeoutExpired as error:
            raise BoardTimeout(f"{PROGRAM} did not start in {START_TIMEOUT_S:g} s: is this machine busy?") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise BoardError(f"{PROGRAM} does not start: {said}")

    def off(self) -> None:
        """Power loss: nothing is flushed. Nothing happens to a machine that is off."""
        try:
            self.qmp("quit")
        except Unreachable:
            return
        deadline = time.monotonic() + QMP_TIMEOUT_S
        while (self.folder / "pid").exists():  # QEMU removes it in the end
            if time.monotonic() > deadline:
                raise BoardTimeout(f"{PROGRAM} in {self.folder} does not end within {QMP_TIMEOUT_S:g} s: kill it")
            time.sleep(POLL_S)

    def is_on(self) -> bool:
        try:
            self.qmp("query-status")
        except Unreachable:
            return False
        return True

    def hang(self) -> None:
        """Stops every core until `wake`; its network still accepts connections, as a hung board's does not always."""
        self.qmp("stop")

    def wake(self) -> None:
        self.qmp("cont")

    def reset(self) -> None:
        """The reset button."""
        self.qmp("system_reset")

    def cable(self, *, plugged: bool) -> None:
        self.qmp("set_link", name="cable", up=plugged)

    def qmp(self, command: str, **arguments: object) -> Any:
        """What QEMU's monitor answers. Raises Unreachable where the machine is off, BoardError where it refuses."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(QMP_TIMEOUT_S)
            try:
                link.connect(str(self.folder / "qmp"))
                with link.makefile("rw", encoding="utf-8") as lines:
                    lines.readline()  # its greeting
                    answer: dict[str, Any] = {}
                    for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                        lines.write(json.dumps(request) + "\n")
                        lines.flush()
                        answer = json.loads(lines.readline())
                        while not {"return", "error"} & set(answer):  # an event
                            answer = json.loads(lines.readline())
            except (OSError, ValueError) as error:
                raise Unreachable(f"the emulated board in {self.folder} is off ({error}): switch it on") from error
        if "error" in answer:
            raise BoardError(f"{PROGRAM} refuses {command}: {answer['error'].get('desc')}")
        return answer["return"]


class QemuBoard(SSHBoard):
    """Answers SSH when made. Raises UsageError where no image was built, BoardError where QEMU does not start.

    Attributes:
        machine: for tests that hang, reset or unplug it.
    """

    machine: Machine

    def __init__(self, config: BoardConfig) -> None:
        folder = expanded(config.image) if config.image else default_folder()
        self._guard: subprocess.Popen[bytes] | None = None
        started = _started(folder)
        self.machine = started if started is not None and started.is_on() else self._private(find_image(folder))
        super().__init__(
            dataclasses.replace(
                config,
                host="127.0.0.1",
                port=self.machine.port,
                user="root",
                key=str(self.machine.key),
                known_hosts=str(self.machine.known_hosts),
                power=config.power or (sys.executable, "-m", "hil.boards.qemu", str(self.machine.folder)),
            )
        )
        try:
            wait_for_ssh(self.machine)
        except BaseException:
            self.close()
            raise

    def _private(self, image: Image) -> Machine:
        folder = Path(tempfile.mkdtemp(prefix="hilnas-qemu-"))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "hilnas-qemu", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", start_new_session=True,  # Ctrl-C is for us, who then close in order
        )  # fmt: skip
        try:
            return Machine.create(folder, image)
        except BaseException:
            self._release(folder)
            raise

    def close(self) -> None:
        super().close()
        if self._guard is not None:
            self.machine.off()
            self._release(self.machine.folder)

    def _release(self, folder: Path) -> None:
        guard, self._guard = self._guard, None
        shutil.rmtree(folder, ignore_errors=True)
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            guard.wait()


def start(folder: Path) -> Machine:
    """The machine that boards of kind qemu join, running until `stop`. Raises UsageError, BoardError."""
    machine = _started(folder)
    if machine is None or not machine.is_on():
        image = find_image(folder)
        shutil.rmtree(folder / "machine", ignore_errors=True)
        (folder / "machine").mkdir(mode=0o700)
        machine = Machine.create(folder / "machine", image)
    wait_for_ssh(machine)
    return machine


def stop(folder: Path) -> None:
    """Ends it, and forgets its disk. Raises UsageError where none was started."""
    Machine.load(folder / "machine").off()
    shutil.rmtree(folder / "machine")


def _started(folder: Path) -> Machine | None:
    with suppress(UsageError):
        return Machine.load(folder / "machine")
    return None


def wait_for_ssh(machine: Machine) -> None:
    """Returns when its SSH server greets. Raises BoardTimeout, Unreachable where the machine ended."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline:
        # QEMU accepts at once; a greeting comes from the machine itself
        with suppress(OSError), socket.create_connection(("127.0.0.1", machine.port), timeout=2.0) as greeted:
            if greeted.recv(4) == b"SSH-":
                return
        machine.qmp("query-status")
        time.sleep(POLL_S)
    raise BoardTimeout(
        f"the emulated board does not answer SSH within {BOOT_TIMEOUT_S:g} s: see {machine.folder}/console.log"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hil.boards.qemu", description="an emulated board's power switch")
    parser.add_argument("folder", type=Path)
    parser.add_argument("action", choices=ACTIONS)
    options = parser.parse_args(arguments)
    try:
        machine = Machine.load(options.folder)
        if options.action != "on":
            machine.off()
        if options.action != "off" and not machine.is_on():
            machine.on()
    except HilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
