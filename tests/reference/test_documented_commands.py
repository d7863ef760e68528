"""Every command of the documentation: there is one of that name with those options, and it runs as it stands.

Each page's commands run in order, in a folder in which what they name exists: a small run called `demo`, models, and
`imx8mp`, a loopback board in the place of a real one. What does not run is in `not_run.toml`, with the reason.
"""

from __future__ import annotations

import argparse
import glob
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cli import main, parser
from tests.conftest import REPOSITORY
from tests.deploy.camvid_files import write_camvid
from tests.deploy.tiny_experiment import EXPERIMENT
from tests.reference.documented import PAGES, blocks, commands, mentioned

NOT_RUN: dict[str, str] = {
    command: reason
    for reason, listed in tomllib.loads((REPOSITORY / "tests/reference/not_run.toml").read_text(encoding="utf8")).items()
    for command in listed
}
EXIT_CODES = {"hilnas lint runs/demo/bundle/model.tflite --target imx8mp-vx": 1, "hilnas lint MODEL.tflite --target imx8mp-vx": 1}
BOARD = """
[{name}]
kind = "loopback"
fleet = "{fleet}"
target = "cpu-xnnpack"
"""
