"""`hilnas doctor`: one line per check; what every run needs decides the exit code."""

from __future__ import annotations

import json

import pytest

from deploy.cli import doctor, main
from tests.deploy.tiny_experiment import one_line


@pytest.fixture
def missing(monkeypatch):
    """Makes packages look as if they were not installed."""

    def hide(*names: str) -> None:
        real = doctor._version
        monkeypatch.setattr(doctor, "_version", lambda name: None if name in names else real(name))

    return hide


def test_what_is_optional_may_be_missing(missing, capsys):
    missing(*doctor.OPTIONAL)
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert "MISS tensorflow is not installed" in said.out and "ok   torch 2." in said.out and said.err == ""


def test_what_every_run_needs_may_not(missing, capsys):
    missing("torch", "numpy")
    assert main(["doctor"]) == 1
    one_line(capsys.readouterr().err, "torch is missing", "(and 1 more)")


def test_for_other_programs(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(set(check) == {"holds", "optional", "text"} for check in found)
    assert len(found) == len(doctor.PACKAGES) + len(doctor.OPTIONAL) + 2
