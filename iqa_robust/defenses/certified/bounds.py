"""The statistics behind the certificates: binomial tails, and how far a share of noisy copies can move.

Noise of standard deviation sigma is added to an image. If a share p of the noisy copies lies in some set, then for
every image within an L2 distance e the share lies between Phi(Phi^-1(p) - e / sigma) and Phi(Phi^-1(p) + e / sigma)
(Cohen, Rosenfeld & Kolter, ICML 2019, lemma 4). Everything else is the price of finitely many copies.
"""

from __future__ import annotations

import math

from scipy.stats import beta, binom, norm


def moved_share(share: float, steps: float) -> float:
    """The share of copies after a move of `steps` sigmas, at most (`steps` > 0) or at least (`steps` < 0)."""
    return float(norm.cdf(norm.ppf(share) + steps))


def share_at_least(hits: int, copies: int, failure: float) -> float:
    """Clopper and Pearson's one-sided lower bound of a share, seen `hits` times in `copies`, wrong with `failure`."""
    return 0.0 if hits == 0 else float(beta.ppf(failure, hits, copies - hits + 1))


def share_for_majority(copies: int, failure: float) -> float:
    """The share above which more than half of `copies` are hits, except with probability `failure`."""
    half = copies // 2
    return float(beta.ppf(1 - failure, half + 1, copies - half))


def share_below_median(copies: int, failure: float) -> float:
    """The largest p such that the median of `copies` draws is below their p-quantile with probability `failure`.

    The median of an even number is the mean of the middle two, so it is not below the lower one of them. By symmetry it
    is above the (1 - p)-quantile as rarely.
    """
    lower = (copies + 1) // 2
    return float(beta.ppf(failure, lower, copies - lower + 1))


def rank_below(share: float, copies: int, failure: float) -> int:
    """The largest k whose k-th smallest of `copies` draws exceeds the quantile at `share` with at most `failure`.

    0 where there is none. By symmetry the k-th largest is below the quantile at 1 - `share` as rarely.
    """
    k = int(binom.ppf(failure, copies, share))
    while k > 0 and binom.cdf(k - 1, copies, share) > failure:
        k -= 1
    while k < copies and binom.cdf(k, copies, share) <= failure:
        k += 1
    return k


def share_with_rank(copies: int, failure: float) -> float:
    """The smallest share at which `rank_below` finds a rank."""
    return -math.expm1(math.log(failure) / copies)


def radius(share: float, needed: float, sigma: float) -> float:
    """The L2 distance within which a share stays above what is needed; 0 where it is not above it to begin with.

    With `needed` one half it is sigma Phi^-1(share), the radius of Cohen et al., theorem 1 with two classes.
    """
    return max(0.0, sigma * float(norm.ppf(share) - norm.ppf(needed)))
