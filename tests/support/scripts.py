"""The scripts of a folder of benchmarks as modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class _Scripts:
    """The modules of the folder, which import one another by their bare names."""

    def __getattr__(self, name: str) -> ModuleType:
        return import_module(name)


@contextmanager
def scripts_of(folder: Path) -> Iterator[Any]:
    """The scripts by their names, as attributes; afterwards nothing of them is left in the interpreter."""
    names = {path.stem for path in folder.glob("*.py")}
    assert not (taken := names & sys.modules.keys()), taken
    sys.path.insert(0, str(folder))
    try:
        yield _Scripts()
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
