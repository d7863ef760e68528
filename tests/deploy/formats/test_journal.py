"""The journal: what was appended is read back, and what a kill, a power cut or other settings left is not."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.formats.journal import ForeignJournalError, Journal
from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Scored:
    subnet: str
    score: float
    costs: tuple[int, ...] = ()


ONE, TWO, THREE = Scored("b1_k3e3_w8", 0.1), Scored("ü\n\u2028", 2.0, (1, 2)), Scored("b1", float("inf"))
HEADER = {"library": {"space": "tiny", "bits": [4, 8]}}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "scores.jsonl"


def test_what_was_appended_is_read(path):
    journal = Journal(path, Scored)
    assert journal.read() == []
    journal.append(ONE)
    journal.append(TWO, THREE)
    journal.append()
    assert journal.read() == [ONE, TWO, THREE]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("header", [None, HEADER])
@pytest.mark.parametrize("key", ["", "0123"])
def test_cut_at_every_byte_it_reads_the_whole_records_and_goes_on(path, key, header, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    journal = Journal(path, Scored, key, header)
    ends, records = [], [ONE, TWO, THREE]
    for record in records:
        journal.append(record)
        ends.append(path.stat().st_size)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        kept = records[: sum(end <= length for end in ends)]
        assert journal.read() == kept
        journal.append(TWO)
        assert journal.read() == [*kept, TWO]
        for line in path.read_bytes().splitlines():
            json.loads(line)  # the cut line is gone


def test_damaged_lines_are_left_out(path):
    journal = Journal(path, Scored)
    journal.append(ONE, TWO)
    for damaged in (b"\0" * 40, b"\xff{", b"[]", b"3", b'{"subnet": "b"}', b'{"subnet": "b", "score": "x"}', b""):
        with path.open("ab") as file:
            file.write(damaged + b"\n")
    with path.open("ab") as file:
        file.write(b'{"subnet": "b", "score": 1, "more": 2}\n')
    journal.append(THREE)
    assert journal.read() == [ONE, TWO, THREE]


def test_records_of_other_settings_are_ignored_and_kept(path):
    old, new, without = Journal(path, Scored, "old"), Journal(path, Scored, "new"), Journal(path, Scored)
    old.append(ONE)
    new.append(TWO)
    without.append(THREE)
    assert (old.read(), new.read(), without.read()) == ([ONE], [TWO], [THREE])


def test_a_file_with_another_header_is_refused_and_kept(path):
    Journal(path, Scored, header={"library": 1}).append(ONE)
    before = path.read_bytes()
    with pytest.raises(ForeignJournalError, match=r"scores\.jsonl: not the journal of these settings") as raised:
        Journal(path, Scored, header=HEADER).read()
    assert raised.value.header == {"library": 1}
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"somebody's\n", b"somebody's", b"[1]\n"])
def test_a_file_that_is_no_journal_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ForeignJournalError) as raised:
        Journal(path, Scored, header=HEADER).read()
    assert raised.value.header is None


def test_rewritten_it_holds_these_records_alone(path):
    journal = Journal(path, Scored, header=HEADER)
    journal.append(ONE, TWO)
    with path.open("ab") as file:
        file.write(b"\0\0\n")
    journal.rewrite([TWO])
    assert path.read_text().splitlines() == [
        json.dumps(HEADER),
        json.dumps({"subnet": TWO.subnet, "score": 2.0, "costs": [1, 2]}),
    ]
    assert not list(path.parent.glob("*.part"))


def test_it_is_flushed_to_disk(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(os.fstat(file).st_size), fsync(file)))
    Journal(path, Scored).append(ONE)
    assert synced == [path.stat().st_size]


def test_a_full_disk_names_the_file_and_loses_nothing(path):
    """A file that cannot grow beyond 100 bytes, as on a full disk."""
    journal = Journal(path, Scored)
    journal.append(ONE)
    program = (
        "import sys; from pathlib import Path; from tests.deploy.formats.test_journal import *\n"
        "try: Journal(Path(sys.argv[1]), Scored).append(ONE, ONE, ONE)\n"
        "except OSError as error: print(error.filename)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert ended.stdout.strip() == str(path)
    assert journal.read()[0] == ONE
    journal.append(TWO)
    assert journal.read()[-1] == TWO
