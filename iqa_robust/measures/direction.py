"""The one place where it matters which way a model counts: lower-is-better becomes higher-is-better."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import Floats, check_range


def toward_better(values: ArrayLike, higher_is_better: bool) -> Floats:
    """Negate `values` where lower is better, so that more is better in what comes back.

    Raises:
        ContractError: `higher_is_better` is not a bool; an unknown direction must not pass for a known one.
    """
    array = np.asarray(values, dtype=np.float64)
    return array.copy() if _checked(higher_is_better) else -array


def toward_better_range(value_range: tuple[float, float], higher_is_better: bool) -> tuple[float, float]:
    """Return the range `(low, high)` of values that went through `toward_better`."""
    low, high = check_range(value_range)
    return (low, high) if _checked(higher_is_better) else (-high, -low)


def _checked(higher_is_better: bool) -> bool:
    if not isinstance(higher_is_better, (bool, np.bool_)):
        raise ContractError(
            f"higher_is_better: expected True or False, got {higher_is_better!r}; state which way the values count."
        )
    return bool(higher_is_better)
