"""Names of files and folders as other systems write them, and what these leave behind beside the data.

macOS stores an umlaut as two characters, Windows and macOS hold `Cat` and `cat` for one name, and a zip file made by
old Windows programs unpacks to files whose names hold backslashes. Where the exact name is there, it is taken.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.data.images import SUFFIXES
from nas.errors import DataError

LITTER = frozenset(
    {
        "__macosx",  # macOS's resource forks, in zip files
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "@eadir",  # Synology's thumbnails
        "lost+found",
        "icon\r",  # macOS's folder icon
    }
)
UNPRINTABLE = frozenset({"Cc", "Zl", "Zp"})  # Unicode's categories of control characters and line ends


def is_litter(name: str) -> bool:
    """Whether a file system or a viewer left it, not whoever made the data set: dot files, Thumbs.db, __MACOSX."""
    return name.startswith(".") or name.casefold() in LITTER


def same_name(name: str) -> str:
    """Equal for names that another system holds for one: of any case, composed (NFC) or decomposed (NFD)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def base_name(path: str) -> str:
    """The last part of a path as a text file has it, with slashes or Windows' backslashes."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def printable(name: str) -> str:
    """The name as text that every file and terminal takes: bytes that are no UTF-8, and control characters, escaped."""
    text = name.encode("utf8", "surrogateescape").decode("utf8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in UNPRINTABLE else c for c in text)


@dataclass(frozen=True)
class Folder:
    """The entries of a folder without litter, sorted by name.

    Raises:
        DataError: it cannot be listed.
    """

    path: Path
    folders: tuple[Path, ...]
    files: tuple[Path, ...]

    @classmethod
    def of(cls, path: Path) -> Folder:
        folders: list[Path] = []
        files: list[Path] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not is_litter(entry.name):
                        (folders if entry.is_dir() else files).append(path / entry.name)
        except OSError as error:
            raise DataError(f"{path}: cannot be listed ({error.strerror}); fix the folder or its rights") from None
        return cls(path, tuple(sorted(folders)), tuple(sorted(files)))

    def images(self) -> Images:
        """What Pillow reads, and what is left out."""
        found = tuple(file for file in self.files if file.suffix.lower() in SUFFIXES)
        known = set(found)
        return Images(found, (*self.folders, *(file for file in self.files if file not in known)))


@dataclass(frozen=True)
class Images:
    """The image files of a folder; `left_out`: its other files and its folders, litter apart."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...]


class Names:
    """Paths by their names, found under the name that another system gives them too."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._exact: dict[str, Path] = {}
        self._alike: dict[str, list[Path]] = {}
        for path in paths:
            self._exact[path.name] = path
            self._alike.setdefault(same_name(path.name), []).append(path)

    def exact(self, name: str) -> Path | None:
        """The path with that name."""
        return self._exact.get(name)

    def find(self, name: str) -> Path | None:
        """The path with that name, or the only one with a name that another system holds for the same.

        Raises:
            DataError: there are several such, and none has the name itself.
        """
        if exact := self._exact.get(name):
            return exact
        alike = self._alike.get(same_name(name), [])
        if len(alike) > 1:
            raise DataError(
                f"{alike[0]}: as well as '{printable(alike[1].name)}' it may be the '{printable(name)}' that is looked"
                " for; rename one of them"
            )
        return alike[0] if alike else None


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first of these folders that is there."""
    return _first(Names(Folder.of(folder).folders), names) if folder.is_dir() else None


def text_file(folder: Path, *names: str) -> Path | None:
    """The first of these files that is there."""
    return _first(Names(Folder.of(folder).files), names)


def _first(inside: Names, names: Sequence[str]) -> Path | None:
    for find in (inside.exact, inside.find):
        if found := next(filter(None, map(find, names)), None):
            return found
    return None


def why_missing(root: Path, names: Sequence[str]) -> str:
    """What to do where none of the folders `names` is in `root`, to follow what is expected; "" if nothing is known."""
    if not root.is_dir():
        return f" ({root} is not there: fix the path)" if not root.exists() else f" ({root} is a file: unpack it)"
    inside = Folder.of(root)
    above = [root.parent] if same_name(root.name) in map(same_name, names) else []
    for folder in (*inside.folders, *above):
        with suppress(DataError):  # of a folder that may be quite another
            if subfolder(folder, *names):
                return f" ({folder} is such a folder: give that)"
    if flat := next((file for file in inside.files if "\\" in file.name), None):
        return (
            f" (it holds files as '{printable(flat.name)}': the archive was packed on Windows; unpack it with 7z, or"
            " move each file into the folders of its name)"
        )
    return ""


def counted(paths: Sequence[Path]) -> str:
    """What is left out, most frequent kind first: "50 .heic, 3 .txt, 1 folder"."""
    kinds = Counter("folder" if path.is_dir() else path.suffix.lower() or "without extension" for path in paths)
    plural = {"folder": "folders"}
    return ", ".join(f"{n} {plural.get(kind, kind) if n > 1 else kind}" for kind, n in kinds.most_common())
