"""Targets, spaces and configurations are found by name: the user's file first, then the one that ships."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from hil.boards.catalog import configuration_folder
from hil.errors import UsageError


@dataclass(frozen=True)
class NamedFiles:
    """TOML files of one kind.

    Attributes:
        kind: what one of them is called in messages.
        folder: the name of their folder, in the working directory and in the user's configuration folder.
        package: the folder of those that ship.
    """

    kind: str
    folder: str
    package: Path

    def find(self, wanted: str | Path, base: Path = Path(), first: Path | None = None) -> Path:
        """The file of a name (no folder, no suffix), or of a path relative to `base`.

        A name is looked for in `first`, in `base`'s folder of this kind, in the working directory's, in the user's, and
        in the package. Raises UsageError that names the near miss, or what there is.
        """
        path, places = Path(wanted), self._places(base, first)
        names = sorted({found.stem for place in places for found in place.glob("*.toml")})
        if path.suffix == ".toml" or path.name != str(wanted):
            if not (base / path).is_file():
                raise UsageError(f"{base / path}: no such file; give another {self.kind}: a file or {', '.join(names)}")
            return base / path
        for place in places:
            if (found := place / f"{wanted}.toml").is_file():
                return found
        close = difflib.get_close_matches(str(wanted), names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
        looked = ", ".join(map(str, places[:-1]))
        raise UsageError(f"{self.kind} '{wanted}': not in {looked} or the package; {hint}")

    def _places(self, base: Path, first: Path | None) -> list[Path]:
        user = [base / self.folder, Path(self.folder), configuration_folder() / self.folder]
        return list(dict.fromkeys([*([first] if first else []), *user, self.package]))
