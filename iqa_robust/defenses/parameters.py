"""Checks of the constructors' parameters; each raises `ContractError` with one sentence."""

from __future__ import annotations

import math

from iqa_robust.errors import ContractError


def check_whole(who: object, name: str, value: object, *, least: int, most: int | None = None) -> None:
    """Raise unless `value` is a whole number from `least` to `most`, or of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        raise _error(
            who, name, f"a whole number >= {least}" if most is None else f"a whole number from {least} to {most}", value
        )


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


def _error(who: object, name: str, expected: str, value: object) -> ContractError:
    return ContractError(f"{type(who).__name__}: expected {name} to be {expected}, got {value!r}.")
