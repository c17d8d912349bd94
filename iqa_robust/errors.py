"""The errors a user can meet. Each is one sentence: what, where, expected, got, what to do.

`exit_status` is what the command line leaves with: 2 means the request was wrong and nothing was run.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IqaRobustError(Exception):
    """Base of every error this package raises on purpose."""

    exit_status = 2


class RequestError(IqaRobustError, ValueError):
    """A wrong request: an unknown option, an impossible combination, a track that does not validate."""


class ContractError(IqaRobustError, ValueError):
    """A value breaks a contract: a shape, a range, a dtype, a budget."""


class UnknownNameError(IqaRobustError, LookupError):
    """A name is not in a registry. The sentence suggests the nearest one."""


class DuplicateNameError(IqaRobustError, ValueError):
    """A name is taken already; nothing is ever shadowed."""


class PluginError(IqaRobustError, ImportError):
    """An entry of a registry cannot be loaded. The sentence names distribution, version and cause."""


class DataError(IqaRobustError, OSError):
    """A file of a dataset is missing, broken or not what was expected."""


class CheckpointError(IqaRobustError, OSError):
    """A weight file is missing, broken, or wants to run code."""


class RecordError(IqaRobustError, ValueError):
    """A stored record is broken, was edited, or belongs to another version."""


class StorageError(IqaRobustError, OSError):
    """Results cannot be written, or their store does not answer. What is finished is kept; the same command resumes."""

    exit_status = 1


class WorkerError(IqaRobustError, RuntimeError):
    """Workers could not be started or kept up. What was finished is kept and the same command resumes."""

    exit_status = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that gives the nearest of the known names, with a blank before it; empty where none is near."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
