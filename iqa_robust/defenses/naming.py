"""The registry of defenses, which also knows `a+b`: one defense behind another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from iqa_robust.errors import RequestError, UnknownNameError
from iqa_robust.registry import Entry, Registry

if TYPE_CHECKING:
    from iqa_robust.defenses.base import Defense
    from iqa_robust.defenses.composition import Composed

JOINT = "+"
RESERVED = frozenset(
    {
        "check_params",
        "deterministic",
        "form",
        "keeps_geometry",
        "name",
        "note",
        "parts",
        "purify",
        "source",
        "surrogate",
        "wrap",
    }
)
"""What a composition has itself, so that no parameter can be called so."""


MOST_PARTS = 32
"""Defenses in a composition: far more than anyone puts behind each other, and few enough for Python's stack."""


class DefenseRegistry(Registry["Defense"]):
    """Names of defenses, and compositions of them: `a+b` is `a` before `b`, so the image meets `a` first.

    A composition takes one parameter for each part, the parameters of that part: `jpeg+random-crop` takes
    `jpeg={"quality": 50}` and `random_crop={...}`. A second part of the same name is `jpeg_2`.
    """

    def __init__(self, kind: str, base: str, builtins: Mapping[str, str], requires: Mapping[str, str] | None = None):
        """See `Registry`."""
        super().__init__(kind, base, builtins, requires)
        self._compositions: dict[str, type[Composed]] = {}

    def entry(self, name: str) -> Entry:
        """Where `name` comes from; of a composition, the distributions of its parts, other than this one."""
        if name == "none" and name not in self.names():
            raise UnknownNameError("no defense named 'none': it is the bare model, which defense=None asks for.")
        if not self._is_composition(name):
            return super().entry(name)
        entries = [self.entry(part) for part in _parts(name)]
        own = {entry.distribution: entry.version for entry in entries if "/" not in entry.name}
        others = {entry.distribution: entry.version for entry in entries if "/" in entry.name}
        origin = others or own
        return Entry(
            name,
            "iqa_robust.defenses.composition:composed",
            JOINT.join(origin),
            JOINT.join(origin.values()),
            next((entry.requires for entry in entries if entry.requires), None),
        )

    def get(self, name: str) -> type[Defense]:
        """The class behind `name`; that of a composition is made when it is first asked for.

        Raises:
            RequestError: a part of a composition is empty, or it has too many.
            UnknownNameError, PluginError: of the name, or of the part that cannot be used.
        """
        if not self._is_composition(name):
            return super().get(name)
        if name not in self._compositions:
            from iqa_robust.defenses.composition import composed

            parts = _parameters(name)
            classes = {parameter: self.get(part) for parameter, part in parts.items()}
            defaults = {parameter: _defaults(cls) for parameter, cls in classes.items()}
            self._compositions[name] = composed(name, classes, defaults)
        return self._compositions[name]

    def filled(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """`params` and every default; those of a part may stand under its name as well as under its parameter's.

        Raises:
            RequestError: a part does not take its parameters.
        """
        if not self._is_composition(name):
            return super().filled(name, params)
        parts = _parameters(name)
        spelled = {part: parameter for parameter, part in reversed(parts.items())}
        given = super().filled(name, {spelled.get(key, key): value for key, value in params.items()})
        for parameter, part in parts.items():
            if not isinstance(given[parameter], Mapping):
                raise RequestError(
                    f"{self.kind} {name!r}: expected {parameter} to be the parameters of {part!r} by name,"
                    f" got {given[parameter]!r}."
                )
            given[parameter] = self.filled(part, given[parameter])
        return given

    def create(self, name: str, **params: Any) -> Defense:
        """An instance of `name` with keyword parameters. Raises `RequestError` for parameters it does not take."""
        return super().create(name, **(self.filled(name, params) if self._is_composition(name) else params))

    def name_of(self, cls: type) -> str | None:
        """The name of a registered class or of a composition, or None."""
        made = next((name for name, composition in self._compositions.items() if composition is cls), None)
        return made or super().name_of(cls)

    def _is_composition(self, name: str) -> bool:
        return JOINT in name and name not in self.names()


def _parts(name: str) -> list[str]:
    parts = name.split(JOINT)
    if not all(parts):
        raise RequestError(f"defense {name!r}: a part is empty; write the names of defenses, joined by {JOINT!r}.")
    if len(parts) > MOST_PARTS:
        raise RequestError(f"defense {name[:40]!r}...: expected at most {MOST_PARTS} parts, got {len(parts)}.")
    return parts


def _parameters(name: str) -> dict[str, str]:
    """The parts by the parameter that configures them, in order."""
    found: dict[str, str] = {}
    for part in _parts(name):
        word = re.sub(r"\W|^(?=\d)", "_", part)
        choices = [word, *(f"{word}_{count}" for count in range(2, len(found) + 3))]
        free = next(w for w in choices if w not in found and w not in RESERVED and not iskeyword(w))
        found[free] = part
    return found


def _defaults(cls: type) -> dict[str, Any]:
    """The parameters of a class that have a default."""
    from inspect import signature

    return {p.name: p.default for p in signature(cls).parameters.values() if p.default is not p.empty}
