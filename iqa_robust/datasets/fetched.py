"""A data root at a URL: the folder of a dataset is copied to this machine once, and read from there.

Datasets read thousands of small files several times over (headers, hashes, pixels), which object stores are slow at.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from iqa_robust.errors import DataError
from iqa_robust.records import Place, Remote

COPIES = 8
"""Files that are copied at a time."""


def local_root(data_root: Place, folders: Sequence[str]) -> Path:
    """The data root itself, or the folder of this machine that holds a copy of the first of `folders` it has.

    Copies are kept in the folder that `IQA_ROBUST_CACHE` names, by default in that of the user's caches, under the hash
    of the URL; a file is copied again when its size differs. Without any of the folders there the copy is empty.

    Raises:
        DataError: the URL cannot be read, or the copy not written.
    """
    return _copied(data_root, tuple(folders)) if isinstance(data_root, Remote) else data_root


def cache_folder() -> Path:
    """Where copies are kept."""
    named = os.environ.get("IQA_ROBUST_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "iqa_robust"


@lru_cache(maxsize=64)
def _copied(data_root: Remote, folders: tuple[str, ...]) -> Path:
    root = cache_folder() / "data" / hashlib.sha256(str(data_root).encode()).hexdigest()[:16]
    try:
        for folder in folders:
            if (data_root / folder).is_dir():
                _copy(data_root / folder, root / folder)
                break
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{data_root}: cannot be copied to {root} ({error.strerror or error}).") from error
    return root


def _copy(source: Remote, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    found = source.below()

    def fetch(name: str) -> None:
        if ".." in name.split("/"):
            raise DataError(f"{source}: expected names inside it, got {name!r}.")
        file = target / name
        if file.is_file() and file.stat().st_size == found[name]:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
        try:
            (source / name).get(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    with ThreadPoolExecutor(COPIES, thread_name_prefix="iqa-robust-copy") as pool:
        list(pool.map(fetch, found))
