"""Checks of the constructors' parameters; each raises `ContractError` with one sentence."""

from __future__ import annotations

import math

from iqa_robust.errors import ContractError


def check_whole(who: object, name: str, value: object, *, least: int) -> None:
    """Raise unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _error(who, name, f"a whole number >= {least}", value)


def check_number(
    who: object, name: str, value: object, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> None:
    """Raise unless `value` is a finite number > `above`, >= `least` and <= `most`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not (above < value and least <= value <= most):  # type: ignore[arg-type, operator]
        bounds = [f"> {above:g}"] if above > -math.inf else []
        bounds += [f">= {least:g}"] if least > -math.inf else []
        bounds += [f"<= {most:g}"] if most < math.inf else []
        raise _error(who, name, f"a finite number {' and '.join(bounds)}", value)


def check_flag(who: object, name: str, value: object) -> None:
    """Raise unless `value` is true or false."""
    if not isinstance(value, bool):
        raise _error(who, name, "true or false", value)


def _error(who: object, name: str, expected: str, value: object) -> ContractError:
    return ContractError(f"{type(who).__name__}: expected {name} to be {expected}, got {value!r}.")
