"""Bootstrap intervals over images, or over the contents they show where several images share a reference.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images of one
reference content are not independent, so where contents are known whole contents are drawn (cluster
bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import Floats, finite_rows
from iqa_robust.measures.weighted import Krocc, Mean, Plcc, Srocc, Statistic

StatisticName = Literal["srocc", "plcc", "krocc", "mean"]

_CORRELATIONS: dict[str, Callable[[Floats, Floats], Statistic]] = {
    "srocc": Srocc,
    "plcc": Plcc,
    "krocc": Krocc,
}
_CHUNK = 2**15
"""Counts held at a time (256 KiB): a chunk and its ranks stay in the cache of a core. Results do not depend on it."""


MOST_RESAMPLES, LEAST_RESAMPLES = 10_000, 500
"""See `resamples_for`."""


def resamples_for(n: int) -> int:
    """How many resamples a board draws for n images: 10,000 up to 500 images, then five million draws, 500 at least.

    The ends of a 95 percent interval from B resamples are themselves uncertain, by about 2.7 / sqrt(B) standard errors
    of the statistic, and these shrink as 1 / sqrt(n). So B n = const keeps that uncertainty what it is with 500
    images: about 0.0007 for an SROCC near 0.7.
    """
    return min(MOST_RESAMPLES, max(LEAST_RESAMPLES, MOST_RESAMPLES * 500 // max(n, 1)))


class Interval(NamedTuple):
    """A confidence interval; both ends are NaN where it is undefined."""

    lo: float
    hi: float


def bootstrap_interval(
    statistic: StatisticName,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    clusters: Sequence[Any] | np.ndarray | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of one statistic.

    Images with a value that is not finite are left out first. A resample where the statistic is undefined
    (all its images alike) is left out of the percentiles.

    Args:
        statistic: `srocc`, `plcc` (raw: hand in mapped scores for the fitted one) or `krocc` of x and y, or
            the `mean` of x.
        x: values (n,).
        y: values (n,) of the same images; None for `mean`.
        clusters: what must be drawn together, (n,), usually the reference ids; None draws single images. An
            image whose id is None, NaN or "" is on its own.
        resamples: number of resamples.
        confidence: probability mass between the ends.
        seed: the same seed gives the same interval, whatever the machine.

    Returns:
        The interval; NaN where the statistic is undefined on the images themselves, or with fewer than two
        clusters.

    Raises:
        ContractError: an unknown statistic, a missing or superfluous y, different lengths, or a bad number.
    """
    columns = _columns(statistic, {"x": x}, y)
    return _interval(statistic, columns, clusters, resamples, confidence, seed)


def paired_interval(
    statistic: StatisticName,
    a: ArrayLike,
    b: ArrayLike,
    y: ArrayLike | None = None,
    *,
    clusters: Sequence[Any] | np.ndarray | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of statistic(a, y) - statistic(b, y), two systems on the same images.

    Both are evaluated on the same resamples, so what the images do to both cancels. An interval that excludes
    zero separates the systems; two overlapping intervals of `bootstrap_interval` say nothing of the kind.

    Args:
        statistic: as for `bootstrap_interval`.
        a: values (n,) of the first system.
        b: values (n,) of the second, same images.
        y: values (n,), such as the MOS; None for `mean`.
        clusters: as for `bootstrap_interval`.
        resamples: number of resamples.
        confidence: probability mass between the ends.
        seed: the same seed gives the same interval.

    Returns:
        The interval; NaN where either statistic is undefined on the images, or with fewer than two clusters.

    Raises:
        ContractError: as for `bootstrap_interval`.
    """
    columns = _columns(statistic, {"a": a, "b": b}, y)
    return _interval(statistic, columns, clusters, resamples, confidence, seed)


def _columns(statistic: str, systems: dict[str, ArrayLike], y: ArrayLike | None) -> list[ArrayLike]:
    if statistic != "mean" and statistic not in _CORRELATIONS:
        raise ContractError(f"statistic: expected one of {', '.join([*_CORRELATIONS, 'mean'])}, got {statistic!r}.")
    if (y is None) != (statistic == "mean"):
        expected = "no y" if statistic == "mean" else "y as well"
        raise ContractError(f"{statistic}: expected {' and '.join(systems)} and {expected}.")
    return [*systems.values(), *([] if y is None else [y])]


def _interval(
    statistic: str,
    columns: list[ArrayLike],
    clusters: Sequence[Any] | np.ndarray | None,
    resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    if resamples < 1 or not 0 < confidence < 1:
        raise ContractError(
            f"bootstrap: expected resamples >= 1 and 0 < confidence < 1, got {resamples} and {confidence}."
        )
    rows = finite_rows(*columns)
    codes = _cluster_codes(clusters, rows.kept)
    undefined = Interval(float("nan"), float("nan"))
    if codes.size == 0 or codes.max() < 1:
        return undefined
    systems = _statistics(statistic, rows.columns)
    if np.isnan(_difference(systems, np.ones((1, len(codes))))).any():
        return undefined
    values = np.concatenate([_difference(systems, counts) for counts in _draws(codes, resamples, seed)])
    values = values[~np.isnan(values)]
    if not values.size:
        return undefined
    tail = 50 * (1 - confidence)
    lo, hi = np.percentile(values, [tail, 100 - tail])
    return Interval(float(lo), float(hi))


def _statistics(statistic: str, columns: tuple[Floats, ...]) -> list[Statistic]:
    """One statistic per system; of a correlation the last column is what all are compared with."""
    if statistic == "mean":
        return [Mean(column) for column in columns]
    return [_CORRELATIONS[statistic](column, columns[-1]) for column in columns[:-1]]


def _difference(systems: list[Statistic], counts: np.ndarray) -> Floats:
    first, *others = (system(counts) for system in systems)
    return first - others[0] if others else first


def _cluster_codes(clusters: Sequence[Any] | np.ndarray | None, kept: np.ndarray) -> np.ndarray:
    """Number the clusters of the kept images 0, 1, ... in order of appearance."""
    if clusters is None:
        return np.arange(np.count_nonzero(kept))
    if len(clusters) != len(kept):
        raise ContractError(f"clusters: expected one per image ({len(kept)}), got {len(clusters)}.")
    if all(label is None for label in clusters):
        return np.arange(np.count_nonzero(kept))
    seen: dict[Any, int] = {}
    codes = []
    for row, (label, keep) in enumerate(zip(clusters, kept, strict=True)):
        if keep:
            alone = label is None or label != label or label == ""  # NaN is not equal to itself
            codes.append(seen.setdefault(("alone", row) if alone else ("shared", label), len(seen)))
    return np.array(codes, dtype=np.intp)


def _draws(codes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield counts (B, n): how often each image is in each resample, `resamples` rows in all.

    Draws come from the raw words of PCG64, one each, in order: NumPy promises that stream for good, and it
    does not matter how it is cut into chunks. Scaling a 32-bit word to g clusters favors none by more than g
    / 2^32.
    """
    generator = np.random.PCG64(seed)
    g = int(codes.max()) + 1
    single = g == len(codes)
    step = max(1, _CHUNK // len(codes))
    half = np.uint64(32)
    for done in range(0, resamples, step):
        b = min(step, resamples - done)
        words = generator.random_raw((b, g))
        words >>= half
        words *= np.uint64(g)
        words >>= half
        words += (np.arange(b, dtype=np.uint64) * np.uint64(g))[:, None]
        counts = np.bincount(words.ravel().view(np.int64), minlength=b * g).reshape(b, g)
        yield counts if single else np.take(counts, codes, axis=1)
