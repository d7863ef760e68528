"""What all tests share: where a skipped test is a failure, and small spaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parent.parent
FORBID_SKIPS = os.environ.get("HILNAS_FORBID_SKIPS") == "1"
INSTALLABLE = ("system", "tensorflow", "ray", "docs")
"""Marks of tests that CI installs everything for."""
NO_NAMESPACES = "no mount namespaces here"  # what a container's host forbids, no package brings
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("patient", deadline=None)  # a busy machine makes no example wrong
settings.register_profile("repeatable", settings.get_profile("patient"), derandomize=True)  # a check is of its commit
settings.load_profile("repeatable" if FORBID_SKIPS else "patient")


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads of torch on two busy cores wait for each other: seconds become a minute."""
    from nas.training import threads

    with threads.one_thread():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where HILNAS_FORBID_SKIPS=1 (CI), a test that needs an installable part may not be skipped."""
    report = yield
    installable = any(map(item.get_closest_marker, INSTALLABLE)) and NO_NAMESPACES not in str(report.longrepr)
    if FORBID_SKIPS and report.skipped and installable:
        report.outcome = "failed"
        report.longrepr = f"skipped where skips are forbidden: {report.longrepr}"
    return report
