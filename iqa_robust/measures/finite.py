"""What a measure is computed from: the images where every value it needs is finite. A failed image is NaN."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_robust.errors import ContractError

Floats = NDArray[np.float64]


class FiniteRows(NamedTuple):
    """The rows left after leaving out every image with a missing value, and how many were left out."""

    columns: tuple[Floats, ...]
    kept: NDArray[np.bool_]
    """(n,) over the rows that were given."""
    dropped: int


def vector(values: ArrayLike, what: str = "values") -> Floats:
    """Return `values` as float64 (n,). Raises `ContractError` for another number of dimensions."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ContractError(f"{what}: expected one value per image, shape (n,), got shape {array.shape}.")
    return array


def finite_rows(*columns: ArrayLike) -> FiniteRows:
    """Keep the images where every column is finite.

    Args:
        columns: one or more arrays (n,) in the same order of images.

    Raises:
        ContractError: the columns are not one-dimensional or differ in length.
    """
    arrays = [vector(column) for column in columns]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ContractError(f"columns: expected the same images in each, got lengths {lengths}.")
    kept = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    return FiniteRows(tuple(array[kept] for array in arrays), kept, int(np.count_nonzero(~kept)))


def mean_or_nan(values: Floats) -> float:
    """Mean of `values`, NaN where there is none to average."""
    return float(np.mean(values)) if values.size else float("nan")


def check_range(value_range: Any, what: str = "score_range") -> tuple[float, float]:
    """Return `(low, high)` as floats. Raises `ContractError` unless both are finite and low < high."""
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError):
        raise ContractError(f"{what}: expected a pair (low, high), got {value_range!r}.") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ContractError(f"{what}: expected finite low < high, got ({low}, {high}).")
    return low, high
