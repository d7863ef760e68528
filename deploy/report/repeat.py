"""The commands that make the run again, and its configuration."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from deploy.formats.files import read_json, write_json
from deploy.report.material import EXPERIMENT, Material
from deploy.run.config import Experiment
from deploy.run.records.base import plain
from nas.space import SearchSpace


def write_experiment(folder: Path, experiment: Experiment, space: SearchSpace) -> None:
    """The configuration as it was run, with the command line's changes and the defaults, and its space."""
    write_json(folder / EXPERIMENT, {**plain(experiment), "space": plain(space)})


def repeat(material: Material) -> str:
    path = material.folder / EXPERIMENT
    settings: dict[str, Any] = read_json(path) if path.exists() else {}
    board, name = material.summary.conditions.board, material.summary.name
    model, bundle = material.bundled.name, material.summary.bundle.path
    lines = [
        f"hilnas bundle verify {bundle} --board {board}",
        f"hilnas evaluate {material.folder} --board {board} --model {model}",
        f"hilnas report {material.folder}",
    ]
    if settings:
        data, seed = settings["data"]["spec"], settings["seed"]
        runs = material.folder.parent
        lines.insert(0, f"hilnas loop --config CONFIG --data {data} --seed {seed} --runs-dir {runs} --name {name}")
    commands = f'<pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
    if not settings:
        return commands
    shown = escape(json.dumps(settings, indent=1))
    summary = "<summary>Configuration, with every default</summary>"
    return f'{commands}<details>{summary}<pre tabindex="0">{shown}</pre></details>'
