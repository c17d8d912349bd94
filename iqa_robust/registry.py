"""One route to every named thing: built-ins from a dict of strings, third parties from entry points.

Nothing is imported until it is used. A plugin's name carries its distribution (`acme-iqa/wavelet`), so nothing can be
shadowed; a plugin that cannot be loaded stays listed and says why when it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from inspect import Signature, formatannotation, signature
from typing import Any, Generic, TypeVar

from iqa_robust.errors import (
    ContractError,
    DuplicateNameError,
    IqaRobustError,
    PluginError,
    RequestError,
    UnknownNameError,
    did_you_mean,
)

T = TypeVar("T")
OWN_DISTRIBUTION = "iqa-robust"

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, os.PathLike), "text"),
    "Mapping[str, Any]": ((Mapping,), "a table of names and values"),
}
"""Annotations that are checked here, because such parameters are often used long after the constructor. Others, such
as numbers, are left to the constructors, which know their ranges, too."""


@dataclass(frozen=True)
class Entry:
    """Where a name comes from. `target` is `"module:attribute"`."""

    name: str
    target: str
    distribution: str
    version: str
    requires: str | None = None
    """Top-level module of an optional dependency the entry needs, if any."""

    @property
    def origin(self) -> str:
        """The name and whose it is, as sentences say it."""
        return f"{self.name!r} from {self.distribution} {self.version}".rstrip()


class Registry(Generic[T]):
    """Names of one kind (`model`, `defense`, `attack`, `dataset`) and the classes behind them."""

    def __init__(
        self,
        kind: str,
        base: str,
        builtins: Mapping[str, str],
        requires: Mapping[str, str] | None = None,
    ) -> None:
        """`base` is the `"module:Class"` every entry must derive from; `requires` names optional modules."""
        self.kind = kind
        self.group = f"iqa_robust.{kind}s"
        self._base = base
        self._builtins = dict(builtins)
        self._requires = dict(requires or {})
        self._added: dict[str, type[T]] = {}

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        own = package_version()
        entries = {
            name: Entry(name, target, OWN_DISTRIBUTION, own, self._requires.get(name))
            for name, target in self._builtins.items()
        }
        for point, distribution, release in _entry_points(self.group):
            name = f"{distribution}/{point.name}"
            if name not in entries:
                entries[name] = Entry(name, point.value, distribution, release)
        return entries

    def names(self) -> list[str]:
        """All names, own ones first, sorted. Imports nothing."""
        own: list[str] = []
        others: list[str] = []
        for name in [*self._entries, *self._added]:
            (others if "/" in name else own).append(name)
        return sorted(own) + sorted(others)

    def entry(self, name: str) -> Entry:
        """Where `name` comes from. Raises `UnknownNameError` with the nearest names."""
        if name in self._added:
            cls = self._added[name]
            return Entry(name, f"{cls.__module__}:{cls.__qualname__}", "(this session)", "")
        if name not in self._entries:
            hint = did_you_mean(name, self.names())
            raise UnknownNameError(f"no {self.kind} named {name!r}.{hint} See `iqa-robust list {self.kind}s`.")
        return self._entries[name]

    def get(self, name: str) -> type[T]:
        """The class behind `name`.

        Raises:
            UnknownNameError: the name is not registered.
            PluginError: the entry cannot be imported or is not of the right kind.
        """
        if name in self._added:
            return self._added[name]
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        where = f"{self.kind} {entry.origin}"
        try:
            found: Any = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; the user needs to know whose it is
            advice = f" Install it with `pip install {entry.requires}`." if entry.requires else ""
            raise PluginError(
                f"{where} could not be loaded ({entry.target}): {type(error).__name__}: {error}.{advice}"
            ) from error
        base_module, _, base_name = self._base.partition(":")
        base = getattr(import_module(base_module), base_name)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(f"{where} could not be loaded ({entry.target}): it is not a subclass of {base_name}.")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise PluginError(f"{where} could not be loaded ({entry.target}): it does not define {missing[0]}.")
        return found

    def filled(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """`params` and every default of the constructor.

        Raises:
            RequestError: it does not take the parameters, or text or a table is something else.
        """
        expected = signature(self.get(name))
        try:
            bound = expected.bind(**params)
        except TypeError as error:
            accepted = ", ".join(expected.parameters) or "none"
            raise RequestError(f"{self.kind} {name!r}: {error}; it takes: {accepted}.") from error
        self._check_kinds(name, expected, params)
        bound.apply_defaults()
        filled = dict(bound.arguments)
        for parameter in expected.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                filled.update(filled.pop(parameter.name, {}))
        return filled

    def _check_kinds(self, name: str, expected: Signature, params: Mapping[str, Any]) -> None:
        for parameter in expected.parameters.values():
            annotation = parameter.annotation
            written = annotation if isinstance(annotation, str) else formatannotation(annotation)
            if parameter.name not in params or written.removesuffix(" | None") not in _KINDS:
                continue
            types, what = _KINDS[written.removesuffix(" | None")]
            value = params[parameter.name]
            if not (isinstance(value, types) or (value is None and written.endswith(" | None"))):
                raise RequestError(f"{self.kind} {name!r}: expected {parameter.name} to be {what}, got {value!r}.")

    def name_of(self, cls: type) -> str | None:
        """The name of a registered class, or None. Imports nothing."""
        target = f"{cls.__module__}:{cls.__qualname__}"
        return next((name for name in self.names() if self.entry(name).target == target), None)

    def create(self, name: str, **params: Any) -> T:
        """An instance of `name` with keyword parameters.

        Raises:
            UnknownNameError, PluginError: as `get`; `PluginError` also when the constructor fails.
            RequestError: it does not take the parameters.
        """
        self.filled(name, params)
        try:
            return self.get(name)(**params)
        except IqaRobustError:
            raise
        except (TypeError, ValueError) as error:
            raise RequestError(f"{self.kind} {name!r} does not accept {params}: {error}.") from error
        except (Exception, SystemExit) as error:  # as in `get`
            origin = self.entry(name).origin
            raise PluginError(f"{self.kind} {origin} could not be made: {type(error).__name__}: {error}.") from error

    def add(self, name: str, cls: type[T]) -> None:
        """Register a class for this session (notebooks). Raises `DuplicateNameError` rather than shadow a name."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ContractError(f"{self.kind} name: expected lower-case words joined by hyphens, got {name!r}.")
        if name in self._entries or name in self._added:
            raise DuplicateNameError(f"the {self.kind} name {name!r} is taken; choose another one.")
        self._added[name] = cls

    def status(self, name: str) -> tuple[str, str]:
        """`("ok", "")`, `("not-installed", module)` for a missing extra, or `("broken", cause)`.

        Own entries are looked up without importing them; a plugin can only be judged by importing it.
        """
        if name in self._added:
            return "ok", ""
        entry = self.entry(name)
        if entry.requires is not None and not _importable(entry.requires):
            return "not-installed", entry.requires
        if entry.distribution == OWN_DISTRIBUTION:
            return "ok", ""
        try:
            self.get(name)
        except PluginError as error:
            return "broken", str(error)
        return "ok", ""


def _importable(module: str) -> bool:
    return find_spec(module) is not None


def package_version() -> str:
    """The installed version of this package."""
    return version(OWN_DISTRIBUTION)


def _entry_points(group: str) -> list[tuple[EntryPoint, str, str]]:
    """Entry points of `group` with the normalized distribution and version they come from, in a stable order."""
    found = [
        (point, re.sub(r"[-_.]+", "-", point.dist.name).lower(), point.dist.version)
        for point in entry_points(group=group)
        if point.dist is not None
    ]
    return sorted(found, key=lambda item: (item[1], item[0].name))
