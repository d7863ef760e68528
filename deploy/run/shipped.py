"""The spaces and configurations that ship, and the user's, by name."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.named_files import NamedFiles
from nas.space import SPACES_FOLDER, SearchSpace

CONFIGURATIONS = NamedFiles("configuration", "configs", Path(__file__).parents[1] / "configs")
SPACES = NamedFiles("space", "spaces", SPACES_FOLDER)


def load_space(wanted: str | Path, base: Path = Path()) -> SearchSpace:
    """The space of a name, or of a path relative to `base`. Raises UsageError, ConfigError."""
    return SearchSpace.load(SPACES.find(wanted, base))
