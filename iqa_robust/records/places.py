"""Where records lie: a folder of this machine, or a URL that fsspec knows (`s3://...`, `gs://...`, `memory://...`).

A URL behaves like the little of `pathlib.Path` that this package uses. Writing is whole or not at all in both: a file
is written beside its place and renamed; an object of an object store is put at once, and is not there before it is
whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from iqa_robust.errors import RequestError, StorageError


class Remote:
    """A place at a URL; immutable, and equal where the URL is."""

    def __init__(self, url: str) -> None:
        """Nothing is read, and no connection made, before the first use."""
        self.protocol, _, path = url.partition("://")
        self._path = PurePosixPath(path)

    def __str__(self) -> str:
        return f"{self.protocol}://{self._path}"

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> Remote:
        return self._at(self._path / name)

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._path.stem

    def with_suffix(self, suffix: str) -> Remote:
        """The place with another suffix."""
        return self._at(self._path.with_suffix(suffix))

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(self.fs.isfile(str(self)))

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return bool(self.fs.isdir(str(self)))

    def read_bytes(self) -> bytes:
        """The object. Raises `OSError`."""
        return bytes(self.fs.cat_file(str(self)))

    def read_text(self) -> str:
        """The object as UTF-8. Raises `OSError`."""
        return self.read_bytes().decode("utf-8")

    def write_bytes(self, content: bytes) -> None:
        """Put the whole object at once. Raises `OSError`."""
        self.fs.makedirs(str(self._at(self._path.parent)), exist_ok=True)
        self.fs.pipe_file(str(self), content)

    def put(self, file: Path) -> None:
        """Put a file of this machine as the object. Raises `OSError`."""
        self.fs.makedirs(str(self._at(self._path.parent)), exist_ok=True)
        self.fs.put_file(str(file), str(self))

    def glob(self, pattern: str) -> Iterator[Remote]:
        """Objects directly below whose name matches."""
        return self._listed(f"{self}/{pattern}")

    def rglob(self, pattern: str) -> Iterator[Remote]:
        """Objects anywhere below whose name matches."""
        return self._listed(f"{self}/**/{pattern}")

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object. Raises `FileNotFoundError` unless `missing_ok`."""
        try:
            self.fs.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    @property
    def fs(self) -> Any:
        """The file system of fsspec; credentials and endpoint come from its own configuration and environment.

        Raises:
            RequestError: the protocol is not known, or its package is not installed.
        """
        import fsspec

        try:
            # Other machines write below the same URL, so a listing must not be remembered.
            return fsspec.filesystem(self.protocol, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise RequestError(f"{self}: fsspec cannot open such a URL ({error}).") from error

    def _at(self, path: PurePosixPath) -> Remote:
        return Remote(f"{self.protocol}://{path}")

    def _listed(self, pattern: str) -> Iterator[Remote]:
        for found, said in self.fs.glob(pattern, detail=True).items():
            if said["type"] == "file":
                yield Remote(f"{self.protocol}://{self.fs._strip_protocol(found)}")


Place = Path | Remote
"""A folder or file of this machine, or what a URL names."""


def place(text: str | Path) -> Place:
    """A path, or a URL with `://` in it; `file://` is a path."""
    if isinstance(text, str) and "://" in text:
        return Path(text.removeprefix("file://")) if text.startswith("file://") else Remote(text)
    return Path(text)


def listed(folder: Place, pattern: str, *, below: bool = False) -> list[Place]:
    """Files in a folder, or anywhere below it, whose name matches; by name."""
    found: Iterator[Place] = folder.rglob(pattern) if below else folder.glob(pattern)
    return sorted((path for path in found if isinstance(path, Remote) or path.is_file()), key=str)


@contextlib.contextmanager
def local_copy(path: Place) -> Iterator[Path]:
    """The file on this machine, for libraries that read nothing else; the copy of an object goes with the context."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / path.name
        local.write_bytes(path.read_bytes())
        yield local


def remove_folder(folder: Place) -> None:
    """Remove a folder and all below it, as far as it is there."""
    if isinstance(folder, Remote):
        with contextlib.suppress(FileNotFoundError):
            folder.fs.rm(str(folder), recursive=True)
        return
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Place, content: bytes) -> None:
    """Write a file whole or not at all; a full disk leaves the old file or none.

    On this machine: to a temporary name beside `path`, flushed to disk, renamed.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        if isinstance(path, Remote):
            path.write_bytes(content)
        else:
            with _renamed(path) as file:
                file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def atomic_writer(path: Place) -> Iterator[IO[bytes]]:
    """A file to write to piece by piece, which is there whole when the context ends, and not at all if it fails.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        if isinstance(path, Remote):
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / path.name
                with local.open("wb") as file:
                    yield file
                path.put(local)
        else:
            with _renamed(path) as file:
                yield file
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Place, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); what was finished is kept:"
        " free some space or choose another place, and give the same command again."
    )


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[IO[bytes]]:
    # On storage that several machines share a process id is no name.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
