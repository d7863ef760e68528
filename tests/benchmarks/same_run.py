"""Are two runs equal, bit for bit, in all that no board decides? For a change that should change no number.

    .venv/bin/python -m tests.benchmarks.same_run OLD NEW      # folders of runs, of any two versions of this kit

Compares every weight of the teacher and the supernets, and every entry of the NSR and size tables; exits 1 where one
differs. Sums depend on the number of threads, so both runs need the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from nas.table import Table
from nas.training.train import load

CHECKPOINTS, TABLES = ("teacher", "supernets"), ("nsr", "size")


def differences(old: Path, new: Path) -> Iterator[tuple[str, int, list[str]]]:
    """By artefact: its name, how many weights' tensors or entries were compared, and which differ."""
    for name in CHECKPOINTS:
        ours, theirs = (load(run / f"{name}.pt")["model"] for run in (new, old))
        changed = [key for key in ours if key not in theirs or not torch.equal(ours[key], theirs[key])]
        yield name, len(ours), changed + sorted(theirs.keys() - ours.keys())
    for name in TABLES:
        entries, others = (Table.load(run / "tables" / f"{name}.parquet").entries for run in (new, old))
        values = {subnet: entry.value for subnet, entry in others.items()}
        yield name, len(entries), [str(s) for s, entry in entries.items() if values.pop(s, None) != entry.value]


def main(old: Path, new: Path) -> int:
    differ = 0
    for name, count, changed in differences(old, new):
        differ += len(changed)
        print(f"{name}: {count} compared, {len(changed)} differ {', '.join(changed[:3])}".rstrip())
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
