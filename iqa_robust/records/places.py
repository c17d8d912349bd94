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
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from iqa_robust.errors import IqaRobustError, RequestError, StorageError

_made: set[str] = set()
"""Remote folders that this process has made; asking for each again would be one request per file written."""


class Remote:
    """A place at a URL; immutable, and equal where the URL is.

    All but `FileNotFoundError` that the package of a store raises, which is often no `OSError`, is raised as
    `StorageError`; its `strerror` is the bare reason.
    """

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
        with self._asked():
            return bool(self._fs.isfile(str(self)))

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        with self._asked():
            return bool(self._fs.isdir(str(self)))

    def read_bytes(self) -> bytes:
        """The object. Raises `OSError`."""
        with self._asked():
            return bytes(self._fs.cat_file(str(self)))

    def read_text(self) -> str:
        """The object as UTF-8. Raises `OSError`."""
        return self.read_bytes().decode("utf-8")

    def write_bytes(self, content: bytes) -> None:
        """Put the whole object at once. Raises `OSError`."""
        with self._asked():
            self._make_folder()
            self._fs.pipe_file(str(self), content)

    def put(self, file: Path) -> None:
        """Put a file of this machine as the object. Raises `OSError`."""
        with self._asked():
            self._make_folder()
            self._fs.put_file(str(file), str(self))

    def get(self, file: Path) -> None:
        """Copy the object to a file of this machine. Raises `OSError`."""
        with self._asked():
            self._fs.get_file(str(self), str(file))

    # Not with the patterns of fsspec, which would take `[` in the name of a folder for one.

    def glob(self, pattern: str) -> Iterator[Remote]:
        """Objects directly below whose name matches."""
        with self._asked():
            try:
                found = self._fs.ls(str(self), detail=True)
            except FileNotFoundError:
                return
            start = self._start()
            names = [said["name"].removeprefix(start) for said in found if said["type"] == "file"]
        yield from (self / name for name in names if name and "/" not in name and fnmatchcase(name, pattern))

    def rglob(self, pattern: str) -> Iterator[Remote]:
        """Objects anywhere below whose name matches."""
        return (self / name for name in self.below() if fnmatchcase(PurePosixPath(name).name, pattern))

    def below(self) -> dict[str, int]:
        """The size of every object anywhere below, by its name from here."""
        with self._asked():
            start = self._start()
            # Consoles of S3 make folders by empty objects whose names end in a slash.
            return {
                name.removeprefix(start): said["size"] for name, said in self._found().items() if not name.endswith("/")
            }

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object. Raises `FileNotFoundError` unless `missing_ok`."""
        try:
            with self._asked():
                self._fs.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove(self) -> None:
        """Remove all that is below, as far as it is there."""
        _made.difference_update([url for url in _made if f"{url}/".startswith(f"{self}/")])
        with self._asked(), contextlib.suppress(FileNotFoundError):
            if set("*?[").isdisjoint(str(self)):
                self._fs.rm(str(self), recursive=True)
            else:  # `rm` takes these for a pattern, and would remove the folders that match
                for name in self._found():
                    self._fs.rm_file(name)

    @property
    def _fs(self) -> Any:
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

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IqaRobustError):
            raise
        except Exception as error:
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
            failed = StorageError(
                f"{self}: the store does not answer as it should ({reason}); see that the address is right and that"
                " the credentials are where its package looks for them."
            )
            failed.strerror = reason
            raise failed from error

    def _found(self) -> dict[str, Any]:
        found: dict[str, Any] = self._fs.find(str(self), detail=True)
        return found

    def _start(self) -> str:
        """What the file system's own names of the objects below begin with."""
        return str(self._fs._strip_protocol(str(self))).rstrip("/") + "/"

    def _make_folder(self) -> None:
        folder = str(self._at(self._path.parent))
        if folder not in _made:
            with contextlib.suppress(PermissionError):  # who may only write below may still do so: the put will tell
                self._fs.makedirs(folder, exist_ok=True)
            _made.add(folder)

    def _at(self, path: PurePosixPath) -> Remote:
        return Remote(f"{self.protocol}://{path}")


Place = Path | Remote
"""A folder or file of this machine, or what a URL names."""


def place(text: str | Path, option: str = "path") -> Place:
    """A path, or a URL with `://` in it; `file://` is a path.

    Raises:
        RequestError: the text is empty; the sentence names `option`, which it was given for.
    """
    if text in ("", "file://"):
        raise RequestError(f"{option}: expected a path or a URL, got an empty text.")
    if isinstance(text, str) and "://" in text:
        return Path(text.removeprefix("file://")) if text.startswith("file://") else Remote(text)
    return Path(text)


def target_file(text: str | Path, option: str) -> Place:
    """The place of a file that will be written; the folder it goes into is made.

    Raises:
        RequestError: it has no name, is a folder, or lies where nothing can be written; `option` is what to change.
    """
    path = place(text, option)
    if not path.name:
        raise RequestError(f"{option}: expected the name of a file, got {str(text)!r}.")
    if isinstance(path, Path):  # a store at a URL shows by itself what it takes
        if path.is_dir():
            raise RequestError(f"{path}: cannot be written (Is a directory); give another {option}.")
        make_writable(path.parent, path, option)
    return path


def make_writable(folder: Place, asked: Place, option: str) -> None:
    """Make a folder and see that it can be written. Raises `RequestError`, which names what was asked for."""
    try:
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process may do the same at this moment
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"{asked}: cannot be written ({reason}); give another {option}.") from error


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
        folder.remove()
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
            with _named(path, Path.replace) as file:
                file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def write_first(path: Place, content: bytes) -> None:
    """Write a file whole unless there is one: of several writers at the same moment one wins, and what it wrote stays.

    At a URL, and on file systems without hard links, looking and writing are two steps: of several writers that all
    looked before one wrote, the last one wins.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        if path.is_file():
            return
        if isinstance(path, Remote):
            path.write_bytes(content)
        else:
            with _named(path, _link) as file:
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
            with _named(path, Path.replace) as file:
                yield file
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Place, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); what was finished is kept:"
        " free some space or choose another place, and give the same command again."
    )


@contextlib.contextmanager
def _named(path: Path, name: Callable[[Path, Path], object]) -> Iterator[IO[bytes]]:
    """A file under a temporary name beside `path`; `name` gives it that of `path` once it is whole and on the disk."""
    # On storage that several machines share a process id is no name.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        name(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, this fails where the name is taken
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.replace(path)
