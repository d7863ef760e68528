"""Who vouches for a bundle: OpenSSH's own signatures of its manifest, which holds every file's hash.

    manifest.json.sig        ssh-keygen -Y sign, namespace hilnas-bundle

A signature is checked against an allowed-signers file (ssh-keygen(1), ALLOWED SIGNERS), never against a key that came
with the bundle.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.ship.manifest import Manifest
from hil.errors import CheckFailed, UsageError

NAMESPACE = "hilnas-bundle"
SIGNATURE = f"{Manifest.FILE}.sig"
DEADLINE_S = 60.0


def sign(bundle: Path, key: Path) -> Path:
    """Sign a bundle's manifest with an SSH key, or with its public half if an agent holds it; the signature's file.

    Raises `UsageError` where there is no bundle, no key, or no ssh-keygen.
    """
    manifest = bundle / Manifest.FILE
    if not manifest.is_file():
        raise UsageError(f"{bundle}: no bundle there (no {Manifest.FILE})")
    if not key.is_file():
        raise UsageError(f"{key}: no such key; give a private SSH key, or a public one that an agent holds")
    (bundle / SIGNATURE).unlink(missing_ok=True)  # ssh-keygen asks before it overwrites one
    done = _ssh_keygen("-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest))
    if done.returncode:
        raise UsageError(f"{key}: cannot sign with it: {_last_line(done.stderr)}")
    return bundle / SIGNATURE


def signer(bundle: Path, allowed: Path, shown: Path | None = None) -> str:
    """The principal of `allowed` whose key signed the bundle's manifest; `shown`: what errors call the bundle.

    Raises `UsageError` where the file of allowed signers is missing, and `CheckFailed` for a bundle that is not signed,
    was changed since, or is signed by nobody in that file.
    """
    manifest, signature, shown = bundle / Manifest.FILE, bundle / SIGNATURE, shown or bundle
    if not allowed.is_file():
        raise UsageError(f"{allowed}: no such file; it lists who may sign: NAME ssh-ed25519 AAAA...")
    if not signature.is_file():
        raise CheckFailed(f"{shown}: not signed (no {SIGNATURE}); ask for a signed one, or leave out --allowed-signers")
    given = ("-n", NAMESPACE, "-s", str(signature))
    found = _ssh_keygen("-Y", "find-principals", "-f", str(allowed), "-s", str(signature))
    names = found.stdout.split()
    if found.returncode or not names:
        raise CheckFailed(f"{shown}: signed by nobody in {allowed}")
    for name in names:
        done = _ssh_keygen("-Y", "verify", "-f", str(allowed), "-I", name, *given, stdin=manifest.read_bytes())
        if done.returncode == 0:
            return name
    raise CheckFailed(f"{shown}: its signature is not of this {Manifest.FILE}: it was changed after it was signed")


def _ssh_keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError("ssh-keygen is not installed: apt-get install openssh-client")
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, timeout=DEADLINE_S, check=False)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
