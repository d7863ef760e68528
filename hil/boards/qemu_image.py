"""The emulated board's image, made from Debian's arm64 packages without root: kernel, initramfs, root filesystem.

apt, with a package state of its own, fetches and verifies packages by the machine's own sources and proxy; they are
unpacked here, never installed: no maintainer script runs. The root filesystem resembles a small BSP: BusyBox, an SSH
server, Python, numpy and the TFLite runtime in the versions that this very environment has.

Every step leaves its result under its final name only when whole, so a build that was killed goes on where it was.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import py_compile
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.boards.arm64_packages import fetch, members, opened, run, which
from hil.boards.loopback import make_keys
from hil.errors import UsageError
from hil.user import home

PROGRAMS = {  # program: Debian's package of it
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm",
}
KERNEL = "linux-image-arm64"
PACKAGES = (
    "usr-is-merged",  # in place of usrmerge, which would bring Perl
    "base-files",
    "busybox-static",
    "libpython3-stdlib",
    "libstdc++6",  # the TFLite runtime's
    "openssh-server",
    "openssh-sftp-server",
    "python3-minimal",
)
MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "ext4", "crc32c_generic")
WHEELS = ("ai-edge-litert", "numpy")
ROOT_SIZE = "1G"  # sparse
SCAFFOLDING = ("packages", "root")  # what a finished image does without

# No udev, no systemd: what the kernel lacks to find its root is loaded by name.
INITRAMFS_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev && mount -t proc none /proc && mount -t sysfs none /sys
for module in {modules}; do insmod /modules/$module.ko; done
until [ -b /dev/vda ]; do usleep 10000; done
mount -t ext4 /dev/vda /root
for folder in dev proc sys; do mount --move /$folder /root/$folder; done
exec switch_root /root /sbin/init
"""
FILES = {
    "etc/inittab": "::sysinit:/etc/rcS\n::respawn:/usr/sbin/sshd -D -e\n::ctrlaltdel:/sbin/reboot\n",
    "etc/rcS": """\
#!/bin/sh
mount -t tmpfs none /run && mkdir -p /run/sshd /dev/pts /dev/shm
mount -t devpts none /dev/pts && mount -t tmpfs none /dev/shm
hostname board
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up
""",
    "etc/ssh/sshd_config": """\
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
# the image was made by an ordinary user, whose files these are
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
""",
    "etc/passwd": "root:*:0:0:root:/root:/bin/sh\nsshd:*:101:65534::/run/sshd:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost board\n",
}


@dataclass(frozen=True)
class Image:
    """A finished image: `initrd`, `root.ext4` and the folders `kernel` and `keys`; image.json is its last file."""

    folder: Path

    def record(self) -> dict[str, Any]:
        """What it was made of. Raises UsageError where it is not finished."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "image.json").read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.folder}: no image of an emulated board by this version: run `hilnas board qemu build`"
            ) from error

    def size_bytes(self) -> int:
        """What it takes on the disk."""
        return sum(path.lstat().st_blocks * 512 for path in self.folder.rglob("*"))


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "hilnas" / "qemu"


def find_image(folder: Path) -> Image:
    """The image in a folder. Raises UsageError where none is, or one of another recipe only."""
    image = Image(folder / recipe())
    image.record()
    return image


def recipe() -> str:
    """16 hex digits over what decides the image, apart from Debian's package versions."""
    wanted = [KERNEL, PACKAGES, MODULES, ROOT_SIZE, INITRAMFS_INIT, FILES, _wheels()]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]


def build(folder: Path) -> Iterator[str]:
    """Makes the image; yields what it does next. Done steps are kept, all of them where the recipe is the same.

    Raises UsageError for a missing program or package, naming it.
    """
    for program, package in PROGRAMS.items():
        if which(program) is None:
            raise UsageError(f"no program {program} here: apt-get install {package}")
    work = folder / recipe()
    work.mkdir(parents=True, exist_ok=True)
    for other in folder.glob("[0-9a-f]" * 16):
        if other != work:
            shutil.rmtree(other)
    for name, text, step in STEPS:
        if not (work / name).exists() and not (work / "image.json").exists():
            yield text
            part = work / f"{name}.part"
            _remove(part)
            step(work, part)
            part.replace(work / name)
    for name in SCAFFOLDING:
        _remove(work / name)


def _fetch_packages(work: Path, part: Path) -> None:
    fetch(KERNEL, PACKAGES, _wheels(), part, work / "apt")


def _unpack_kernel(work: Path, part: Path) -> None:
    """vmlinuz, and modules/ with those that are wanted and those they need; `order` lists them, needed ones first."""
    part.mkdir()
    (part / "modules").mkdir()
    (package,) = (work / "packages" / "kernel").iterdir()
    found: dict[str, bytes] = {}
    for member, content in members(package):
        path = Path(member.name)
        if path.name.startswith("vmlinuz-"):
            (part / "vmlinuz").write_bytes(content)
        elif path.suffix == ".ko":
            found[path.stem.replace("-", "_")] = content
    order: list[str] = []

    def add(name: str) -> None:
        if name not in found:
            raise UsageError(f"{package.name} has no module {name}: another kernel, or compressed modules?")
        needs = re.search(rb"\0depends=([^\0]*)\0", found[name])
        for needed in filter(None, needs[1].decode().split(",") if needs else ()):
            add(needed.replace("-", "_"))
        if name not in order:
            order.append(name)

    for name in MODULES:
        add(name)
    for name in order:
        (part / "modules" / f"{name}.ko").write_bytes(found[name])
    (part / "order").write_text(" ".join(order))


def _pack_initramfs(work: Path, part: Path) -> None:
    """BusyBox, the modules and `init` in a cpio archive of the kind newc, gzipped."""
    (package,) = (work / "packages" / "debian").glob("busybox-static_*.deb")
    busybox = next(content for member, content in members(package) if member.name.endswith("bin/busybox"))
    init = INITRAMFS_INIT.format(modules=(work / "kernel" / "order").read_text())
    entries: list[tuple[str, bytes | None]] = [
        (name, None) for name in ("bin", "dev", "proc", "sys", "root", "modules")
    ]
    entries += [("bin/busybox", busybox), ("init", init.encode())]
    entries += [(f"modules/{path.name}", path.read_bytes()) for path in sorted((work / "kernel/modules").iterdir())]
    archive = io.BytesIO()
    for number, (name, content) in enumerate([*entries, ("TRAILER!!!", b"")], 1):
        mode = 0o40755 if content is None else 0o100755
        data = content or b""
        # inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum
        header = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive.write(b"070701" + b"".join(b"%08X" % value for value in header) + name.encode() + b"\0")
        archive.write(bytes(-archive.tell() % 4) + data)
        archive.write(bytes(-archive.tell() % 4))
    part.write_bytes(gzip.compress(archive.getvalue(), 6))


def _make_keys(_: Path, part: Path) -> None:
    part.mkdir(mode=0o700)
    make_keys(part)


def _unpack_root(work: Path, part: Path) -> None:
    for name in ("bin", "sbin", "lib"):
        (part / "usr" / name).mkdir(parents=True)
        (part / name).symlink_to(f"usr/{name}")
    for package in sorted((work / "packages" / "debian").iterdir()):
        with opened(package) as archive:
            if hasattr(tarfile, "tar_filter"):  # from Python 3.11.4 on
                archive.extraction_filter = tarfile.tar_filter
            archive.extractall(part)  # noqa: S202 - apt has verified its signature
    for name in ("dev", "proc", "sys", "run", "root", "tmp"):
        (part / name).mkdir(exist_ok=True)
    for name, text in FILES.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_text(text)
    (part / "etc/rcS").chmod(0o755)
    (part / "tmp").chmod(0o1777)
    for name in ("host_key", "authorized_keys"):
        shutil.copy(work / "keys" / name, part / "etc/ssh" / name)
    (python,) = (part / "usr/lib").glob("python3.*")
    packages = part / "usr/local/lib" / python.name / "dist-packages"
    for wheel in (work / "packages" / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)  # noqa: S202 - pip has verified where it came from
    if python.name == f"python{sys.version_info[0]}.{sys.version_info[1]}":  # it would take the emulated board a while
        for source in (*python.rglob("*.py"), *packages.rglob("*.py")):
            with suppress(py_compile.PyCompileError, UnicodeDecodeError):
                where = "/" + str(source.relative_to(part))
                py_compile.compile(
                    str(source), dfile=where, doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )  # fmt: skip
    held = {path.name for folder in ("bin", "sbin") for path in (part / "usr" / folder).iterdir()}
    for applet in _applets((part / "usr/bin/busybox").read_bytes()):
        if applet not in held:
            (part / "usr/bin" / applet).symlink_to("busybox")
    (part / "usr/sbin/init").symlink_to("../bin/busybox")


def _applets(busybox: bytes) -> list[str]:
    """The names that it answers to, from the table in it: we cannot run it here."""
    table = re.search(rb"\[\0\[\[\0(?:[a-z0-9_.-]+\0)+", busybox)
    if table is None:
        raise UsageError("busybox-static has no table of applets: another version than this recipe knows")
    return table[0].decode().rstrip("\0").split("\0")


def _make_filesystem(work: Path, part: Path) -> None:
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(work / "root"), "-E", "root_owner=0:0", str(part), ROOT_SIZE])


def _write_record(work: Path, part: Path) -> None:
    packages = sorted(path.name for path in (work / "packages").rglob("*") if path.is_file())
    part.write_text(json.dumps({"recipe": recipe(), "packages": packages}, indent=1) + "\n")


STEPS: Sequence[tuple[str, str, Callable[[Path, Path], None]]] = (
    ("packages", "fetching packages (Debian's for arm64, 85 MB; wheels, 30 MB)", _fetch_packages),
    ("kernel", "taking the kernel and its modules out of their package", _unpack_kernel),
    ("initrd", "packing the initramfs", _pack_initramfs),
    ("keys", "making SSH keys", _make_keys),
    ("root", "unpacking the root filesystem, with numpy and the TFLite runtime", _unpack_root),
    ("root.ext4", "writing the root filesystem's image", _make_filesystem),
    ("image.json", "writing the list of its parts", _write_record),
)


def _wheels() -> list[str]:
    """The versions of this environment: host and board should compute alike."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
