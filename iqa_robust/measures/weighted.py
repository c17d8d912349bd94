"""Statistics of resamples given as counts: how often each image was drawn. Nothing is sorted per resample.

A class is made once for the columns it works on, then called with counts (B, n), whole numbers of any type, and
returns (B,), NaN where undefined. An image drawn k times counts as k tied images, exactly as if the resample
were written out and handed to SciPy. The sums behind SROCC and KROCC are whole numbers below 2^53 for up to
100,000 drawn images, so these are exact up to the last division.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from iqa_robust.measures.correlation import MIN_IMAGES
from iqa_robust.measures.finite import Floats

LARGEST_WHOLE = 1_000_000
"""Drawn images up to which the sums behind SROCC fit in 64-bit whole numbers, which are summed up in a sixth of the
time; above, float64 takes over."""


class Statistic(Protocol):
    """Counts (B, n) -> one value per resample (B,)."""

    def __call__(self, counts: np.ndarray) -> Floats:
        """Evaluate every resample."""
        ...


class Mean:
    """Mean of x (n,)."""

    def __init__(self, x: Floats) -> None:
        self._x = x

    def __call__(self, counts: np.ndarray) -> Floats:
        """Mean of each resample."""
        counts = counts.astype(np.float64)
        return (counts * self._x).sum(axis=1) / counts.sum(axis=1)


class Plcc:
    """Pearson's correlation of x and y (n,)."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self._x, self._y = _largest_is_one(x), _largest_is_one(y)

    def __call__(self, counts: np.ndarray) -> Floats:
        """PLCC of each resample."""
        counts = counts.astype(np.float64)
        drawn = counts.sum(axis=1)
        dx, dy = _centered(counts, self._x, drawn), _centered(counts, self._y, drawn)
        weighted = counts * dx
        sxy = (weighted * dy).sum(axis=1)
        sxx = (weighted * dx).sum(axis=1)
        syy = (counts * dy * dy).sum(axis=1)
        # A resample of one image only has no spread but for the rounding of its mean (values are at most 1).
        rounding = drawn * (8 * np.finfo(np.float64).eps) ** 2
        return _ratio(sxy, sxx, syy, (sxx > rounding) & (syy > rounding) & (drawn >= MIN_IMAGES))


class Srocc:
    """Spearman's correlation of x and y (n,): Pearson's of the midranks within the resample."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self._x, self._y = _Groups(x), _Groups(y)
        self._y_in_order_of_x = self._y.of_image[self._x.order]

    def __call__(self, counts: np.ndarray) -> Floats:
        """SROCC of each resample."""
        if counts.shape[1] > LARGEST_WHOLE:
            counts = counts.astype(np.float64)
        n = counts.sum(axis=1)
        in_order_of_x = np.take(counts, self._x.order, axis=1)
        tx, ty = self._x.summed(in_order_of_x), self._y.totals(counts)
        # Doubled midranks are whole: a group of t after c others has midrank c + (t + 1) / 2.
        products = np.take(_doubled_midranks(ty), self._y_in_order_of_x, axis=1)
        products *= in_order_of_x
        # Four times the sums of products about the mean rank (n + 1) / 2; ties lower those of squares.
        sxy = np.einsum("bg,bg->b", self._x.summed(products), _doubled_midranks(tx)) - n * (n + 1) ** 2
        cubes_x = _cubes(tx)
        cubes_y = cubes_x if not (self._x.ties or self._y.ties) else _cubes(ty)  # the same counts in another order
        sxx, syy = (n**3 - cubes_x) / 3, (n**3 - cubes_y) / 3
        return _ratio(sxy, sxx, syy, (sxx > 0) & (syy > 0) & (n >= MIN_IMAGES))


class Krocc:
    """Kendall's tau-b of x and y (n,), by a merge sort made once and shared by all resamples.

    The order of the images never changes, only their counts do, so each of the log2(n) merges becomes fixed
    positions into one running sum. Discordant pairs are counted as in Knight (JASA 1966).
    """

    def __init__(self, x: Floats, y: Floats) -> None:
        self._x, self._y = _Groups(x), _Groups(y)
        joint = self._x.of_image * (self._y.of_image.max(initial=0) + 1) + self._y.of_image
        self._xy = _Groups(joint)
        order = np.lexsort((self._y.of_image, self._x.of_image))
        self._merges = _merges(order, self._y.of_image[order])

    def __call__(self, counts: np.ndarray) -> Floats:
        """KROCC of each resample."""
        counts = counts.astype(np.float64)
        n = counts.sum(axis=1)
        discordant = np.zeros(len(counts))
        for left, right, below, before in self._merges:
            running = np.zeros((len(counts), len(right) + 1))
            np.cumsum(np.take(counts, right, axis=1), axis=1, out=running[:, 1:])
            smaller = np.take(running, below, axis=1) - np.take(running, before, axis=1)
            discordant += np.einsum("bi,bi->b", np.take(counts, left, axis=1), smaller)
        pairs = n * (n - 1) / 2
        tied_x, tied_y, tied_xy = (groups.tied_pairs(counts) for groups in (self._x, self._y, self._xy))
        balance = pairs - tied_x - tied_y + tied_xy - 2 * discordant
        untied_x, untied_y = pairs - tied_x, pairs - tied_y
        return _ratio(balance, untied_x, untied_y, (untied_x > 0) & (untied_y > 0) & (n >= MIN_IMAGES))


class _Groups:
    """Images of equal value, the groups in ascending order."""

    def __init__(self, values: np.ndarray) -> None:
        _, self.of_image = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.of_image, kind="stable")
        """Images in the order of their groups."""
        self._last = np.flatnonzero(np.diff(self.of_image[self.order], append=-1))
        self.ties = len(self._last) < len(values)
        """Whether any group has several images."""

    def totals(self, counts: np.ndarray) -> Floats:
        """How often each group was drawn, (B, groups)."""
        return self.summed(np.take(counts, self.order, axis=1))

    def summed(self, ordered: Floats) -> Floats:
        """Sums over each group, (B, groups), of values (B, n) that are in `order`."""
        if not self.ties:
            return ordered
        # Differences of a running sum, which is exact for whole numbers and fast for groups of one.
        up_to = np.take(np.cumsum(ordered, axis=1), self._last, axis=1)
        return np.diff(up_to, axis=1, prepend=0)

    def tied_pairs(self, counts: np.ndarray) -> Floats:
        """Pairs within one group, (B,)."""
        totals = self.totals(counts) if self.ties else counts
        return (np.einsum("bg,bg->b", totals, totals) - counts.sum(axis=1)) / 2


def _cubes(totals: Floats) -> Floats:
    return np.einsum("bg,bg->b", totals * totals, totals)


def _doubled_midranks(totals: Floats) -> Floats:
    ranks = np.cumsum(totals, axis=1)
    ranks *= 2
    ranks -= totals
    ranks += 1
    return ranks


def _merges(order: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The merges of a bottom-up merge sort by y of images in `order`, all blocks of a level at once.

    Each is (left, right, below, before): the images of all left halves, those of all right halves in merged
    order, and per left image how many of the latter precede it, and how many precede its block. Their
    difference is the images of its own right half with a smaller y.
    """
    position = np.arange(len(order))
    merges = []
    size = 1
    while size < len(order):
        from_right = (position // size) % 2
        merged = np.lexsort((from_right, y, position // (2 * size)))  # equal y: left first, so not counted
        is_right = from_right[merged].astype(bool)
        preceding = np.cumsum(is_right)[~is_right]
        left = merged[~is_right]
        rights_before_block = (left // (2 * size)) * size  # every earlier block is complete
        merges.append((order[left], order[merged[is_right]], preceding, rights_before_block))
        size *= 2
    return merges


def _largest_is_one(values: Floats) -> Floats:
    """Center and scale; correlation does not change and nothing overflows."""
    centered = values - values.mean()
    largest = np.abs(centered).max()
    return centered / largest if largest > 0 else centered


def _centered(counts: Floats, values: Floats, drawn: Floats) -> Floats:
    mean = (counts * values).sum(axis=1) / drawn
    return values[None, :] - mean[:, None]


def _ratio(sxy: Floats, sxx: Floats, syy: Floats, defined: np.ndarray) -> Floats:
    result = np.full(len(sxy), np.nan)
    np.divide(sxy, np.sqrt(sxx * syy), out=result, where=defined)
    return np.clip(result, -1.0, 1.0)
