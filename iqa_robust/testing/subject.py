"""What is checked: an instance or a registry name, and whether its constructor is its configuration."""

from __future__ import annotations

import inspect
import json
from typing import Any, TypeVar

from iqa_robust.errors import ContractError
from iqa_robust.registry import Registry
from iqa_robust.testing.report import expect

T = TypeVar("T")


def resolve(subject: T | str, registry: Registry[T], base: type[T]) -> tuple[str, T]:
    """A title for the report, and the instance. Raises as the registry does, or `ContractError` for neither kind."""
    if isinstance(subject, str):
        return f"{registry.kind} {subject!r}", registry.create(subject)
    if not isinstance(subject, base):
        raise ContractError(
            f"check_{registry.kind}: expected a registry name or an instance of {base.__name__},"
            f" got {type(subject).__name__}{' (a class: make an instance of it)' * isinstance(subject, type)}."
        )
    return f"{registry.kind} {type(subject).__name__}", subject


def parameters(thing: object) -> dict[str, Any]:
    """The constructor's parameters as the instance stores them. Raises `ViolationError` where it does not."""
    stored = {}
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        expect(
            parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            f"expected keyword-only parameters, so that a track can name them; `{parameter}` is not one.",
        )
        expect(hasattr(thing, name), f"expected the parameter {name!r} as an attribute of that name, found none.")
        stored[name] = getattr(thing, name)
    return stored


def check_constructor(thing: object) -> str:
    """Keyword-only JSON-able parameters, stored unchanged: what was stored makes the same thing again."""
    stored = parameters(thing)
    try:
        text = json.dumps(stored, sort_keys=True)
    except TypeError as error:
        expect(False, f"expected parameters that JSON can hold, so that records can store them: {error}.")
    cls = type(thing)
    again = parameters(cls(**json.loads(text)))
    for name, value in json.loads(text).items():
        expect(
            json.dumps(again[name]) == json.dumps(value),
            f"expected {name}={value!r} to be stored unchanged, the instance made with it holds {again[name]!r}.",
        )
    if all(p.default is not p.empty for p in inspect.signature(cls).parameters.values()):
        plain = parameters(cls())
        for name, parameter in inspect.signature(cls).parameters.items():
            expect(
                json.dumps(plain[name]) == json.dumps(parameter.default),
                f"expected the default {name}={parameter.default!r} to be stored unchanged,"
                f" the instance holds {plain[name]!r}.",
            )
    return ", ".join(f"{name}={value!r}" for name, value in stored.items()) or "no parameters"
