"""Names of files inside a dataset's folder, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from iqa_robust.errors import DataError


class FileTree:
    """Looks names up under one root: exact first, then without regard to case where exactly one entry
    matches.

    Official tables and files differ in case here and there, and file systems differ in whether they care.
    Every folder is listed once, so a table of ten thousand names costs a few listings. Safe to use from
    several threads.

    Args:
        root: an existing folder.

    Raises:
        DataError: `root` is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: expected the dataset's folder, found none; check root.")
        self.root = root.resolve()
        self._listings: dict[Path, _Listing] = {}

    def find(self, name: str) -> Path | None:
        """The file that `name` (relative, forward slashes) means, or None where there is none.

        Raises:
            DataError: the name leaves the root, or matches several files that differ in case only.
        """
        folder = self.root
        *parents, last = self._parts(name)
        for part in parents:
            found = self._listing(folder, name).folder(part, name)
            if found is None:
                return None
            folder = folder / found
        listing = self._listing(folder, name)
        found = listing.file(last, name)
        if found is None:
            return None
        return self._inside(folder / found, name) if found in listing.links else folder / found

    def relative(self, path: Path) -> str:
        """The name of a path that `find` gave."""
        return path.relative_to(self.root).as_posix()

    def _parts(self, name: str) -> tuple[str, ...]:
        pure = PurePosixPath(name)
        windows = PureWindowsPath(name)
        if not pure.parts or pure.is_absolute() or windows.drive or "\\" in name or "\0" in name or ".." in pure.parts:
            raise DataError(
                f"{name!r} in {self.root}: expected a name inside this folder with forward slashes,"
                " got one that is empty, absolute, or leaves it."
            )
        return pure.parts

    def _listing(self, folder: Path, name: str) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _Listing(self._inside(folder, name))
        return self._listings[folder]

    def _inside(self, path: Path, name: str) -> Path:
        if not path.resolve().is_relative_to(self.root):
            raise DataError(
                f"{name!r} in {self.root}: a link leads outside this folder, to {path.resolve()};"
                " give the folder that holds the files as root."
            )
        return path


class _Listing:
    """The names in one folder, exact and folded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._folded: dict[str, list[str]] = {}
        self.links: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        self._folders.add(entry.name)
                    elif entry.is_file():  # neither a dangling link nor a pipe, which would block its reader
                        self._files.add(entry.name)
                    if entry.is_symlink():
                        self.links.add(entry.name)
                    self._folded.setdefault(entry.name.casefold(), []).append(entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions.") from error

    def file(self, part: str, name: str) -> str | None:
        return self._match(part, name, self._files)

    def folder(self, part: str, name: str) -> str | None:
        return self._match(part, name, self._folders)

    def _match(self, part: str, name: str, among: set[str]) -> str | None:
        if part in among:
            return part
        close = sorted(other for other in self._folded.get(part.casefold(), ()) if other in among)
        if len(close) > 1:
            raise DataError(
                f"{name!r} in {self._folder}: matches {', '.join(map(repr, close))}, which differ in case"
                " only; keep one of them or correct the name."
            )
        return close[0] if close else None
