"""Certified smoothing: the statistics against SciPy and StatsModels' closed forms, the models on a linear function.

For f(x) = w . x, Gaussian noise of standard deviation sigma makes the scores normal: N(w . x, sigma^2 |w|^2). So every
quantile is known, and so is the worst shift within an L2 distance e, which is e |w|.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iqa_robust.defenses.certified import bounds
from iqa_robust.defenses.certified.median_smoothing import DenoisedMedianSmoothing, MedianSmoothing
from iqa_robust.defenses.certified.randomized_smoothing import RandomizedSmoothing
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, score, wrap
from iqa_robust.models.randomness import searching, seeded

GRAY = torch.full((2, 3, 8, 8), 0.5)
SIGMA = 0.02
"""Copies of mid gray then reach 0 or 1 in one of 10^137 cases: the smoothed function is exactly linear."""
COUNTS = st.integers(1, 400)


class Linear(IQAModel):
    """20 + w . x with |w| = 30, float64, and one random image as w."""

    def __init__(self, score_range: tuple[float, float] | None = (0.0, 100.0)) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=score_range)
        w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.w = 30 * w / w.norm()

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return 20 + (self.w * x.double()).sum(dim=(1, 2, 3))


class Counting(IQAModel):
    """Mean brightness; remembers how many images it has seen."""

    info = ModelInfo(score_range=(0.0, 1.0))
    seen = 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.seen += len(x)
        return x.mean(dim=(1, 2, 3))


# --- the statistics


@given(COUNTS, st.data(), st.sampled_from([0.05, 1e-3, 1e-4]))
def test_share_at_least_is_scipys_exact_interval(copies: int, data: st.DataObject, failure: float) -> None:
    hits = data.draw(st.integers(0, copies))
    exact = stats.binomtest(hits, copies).proportion_ci(1 - 2 * failure, "exact").low
    assert bounds.share_at_least(hits, copies, failure) == pytest.approx(exact, abs=1e-9)  # found by its root search


@given(COUNTS, st.sampled_from([0.05, 1e-3, 1e-4]))
def test_share_for_majority_by_its_definition(copies: int, failure: float) -> None:
    share = bounds.share_for_majority(copies, failure)
    assert stats.binom.sf(copies // 2, copies, share) == pytest.approx(1 - failure, abs=1e-9)


@given(COUNTS, st.sampled_from([0.05, 1e-3, 1e-4]))
def test_share_below_median_by_its_definition(copies: int, failure: float) -> None:
    share = bounds.share_below_median(copies, failure)
    # The lower middle draw is below the quantile if so many draws are.
    assert stats.binom.sf(math.ceil(copies / 2) - 1, copies, share) == pytest.approx(failure, rel=1e-6)


@given(COUNTS, st.floats(1e-4, 0.6), st.sampled_from([0.05, 1e-3, 1e-4]))
def test_rank_below_is_the_largest_of_a_plain_search(copies: int, share: float, failure: float) -> None:
    tails = stats.binom.cdf(np.arange(copies), copies, share)  # of 0 ... copies - 1 draws below the quantile
    assert bounds.rank_below(share, copies, failure) == np.searchsorted(tails, failure, side="right")


@given(COUNTS, st.sampled_from([0.05, 1e-3]))
def test_share_with_rank_is_where_ranks_begin(copies: int, failure: float) -> None:
    share = bounds.share_with_rank(copies, failure)
    assert bounds.rank_below(share * (1 - 1e-9), copies, failure) == 0
    assert bounds.rank_below(share * (1 + 1e-9), copies, failure) == 1


def test_the_published_ceiling_of_a_radius() -> None:
    """With 1000 of 1000 votes at confidence 0.999 and sigma 0.12 no radius exceeds 0.2956 (certified-iqa-defenses)."""
    share = bounds.share_at_least(1000, 1000, 1e-3)
    assert bounds.radius(share, 0.5, 0.12) == pytest.approx(0.2956, abs=5e-5)
    assert bounds.radius(0.5, 0.5, 0.12) == bounds.radius(0.4, 0.5, 0.12) == 0


def test_moved_share_of_the_published_setting() -> None:
    assert bounds.moved_share(0.5, 0.05 / 0.12) == pytest.approx(0.662, abs=5e-4)


# --- median smoothing


def test_the_median_of_a_linear_model_is_its_score() -> None:
    model = Linear()
    smoothed = MedianSmoothing(sigma=SIGMA, copies=400).wrap(model)
    found = score(smoothed, GRAY, seeds=[1, 2])
    # Standard error of a median: sqrt(pi / 2) sigma |w| / sqrt(copies); five of them, for the mean of five medians.
    error = 5 * math.sqrt(math.pi / 2 / 400 / 5) * SIGMA * 30
    assert (found - model(GRAY)).abs().max() < error


@pytest.mark.parametrize("copies", [4, 5])
def test_the_median_is_numpys(copies: int) -> None:
    smoothed = MedianSmoothing(copies=copies).wrap(Linear())
    scores = torch.randn(3, copies, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(smoothed.summary(scores), np.median(scores, axis=1), rtol=1e-6)  # type: ignore[operator]


def test_the_interval_of_a_linear_model_holds_the_worst_case_and_is_as_narrow_as_its_ranks() -> None:
    model, copies, certify = Linear(), 100, 20_000
    defense = MedianSmoothing(sigma=SIGMA, copies=copies, certify_copies=certify)
    distances = torch.tensor([0.0, 0.02])
    with seeded([3, 4]):
        promise = defense.wrap(model).certify(GRAY, None, distances)
    assert promise is not None
    middle, spread = model(GRAY).numpy(), SIGMA * 30
    worst = middle + np.array([0, 0.02]) * 30
    assert (promise.high.numpy() > worst).all() and (promise.low.numpy() < 2 * middle - worst).all()
    # The ends are the quantiles of the normal at the ranks; an order statistic strays by few standard errors of it.
    start = stats.beta.ppf(5e-4 / 5 / 2, 50, 51)  # of the median of 100 draws, one of five, on either side
    for i, distance in enumerate(distances.tolist()):
        steps = stats.norm.ppf(start) - distance / SIGMA
        rank = stats.binom.ppf(5e-4 / 2, certify, stats.norm.cdf(steps))
        expected = stats.norm.ppf(rank / certify)
        error = 5 * math.sqrt(rank) / certify / stats.norm.pdf(expected)
        assert (promise.low[i].item() - middle[i]) / spread == pytest.approx(expected, abs=error)
        assert (promise.high[i].item() - middle[i]) / spread == pytest.approx(-expected, abs=error)


def test_beyond_its_radius_an_interval_is_open() -> None:
    defense = MedianSmoothing(sigma=SIGMA, copies=50, certify_copies=200)
    smoothed = defense.wrap(Linear())
    with seeded([3, 4]):
        reach = smoothed.certify(GRAY, None, torch.zeros(2)).radius  # type: ignore[union-attr]
    assert 0 < reach[0] < 5 * SIGMA
    with seeded([3, 4]):
        promise = smoothed.certify(GRAY, None, reach * torch.tensor([1 - 1e-6, 1 + 1e-6]))
    assert promise is not None
    assert promise.low.isfinite().tolist() == promise.high.isfinite().tolist() == [True, False]
    assert promise.low[1] == -torch.inf and promise.high[1] == torch.inf


def test_a_certificate_is_that_of_each_image_alone() -> None:
    smoothed = MedianSmoothing(copies=10, certify_copies=64).wrap(Linear())
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    distances = torch.tensor([0.01, 0.02, 0.03])
    with seeded([1, 2, 3]):
        together = smoothed.certify(x, None, distances)
    with seeded([2]):
        alone = smoothed.certify(x[1:2], None, distances[1:2])
    assert together is not None and alone is not None
    assert (together.low[1], together.high[1]) == (alone.low[0], alone.high[0])


def test_the_denoiser_sees_the_noise_before_the_model() -> None:
    """A wide blur averages the noise away, so that the denoised scores spread far less."""
    model = wrap(lambda x: 100 * x[:, 0, 16, 16], ModelInfo(score_range=(0.0, 100.0)))
    x = torch.full((1, 3, 32, 32), 0.5)
    options: dict[str, Any] = {"sigma": 0.05, "certify_copies": 1000}
    widths = []
    for defense in (
        MedianSmoothing(**options),
        DenoisedMedianSmoothing(**options, copies=100, purifier="gaussian", purifier_params={"sigma": 2.0}),
    ):
        with seeded([1]):
            promise = defense.wrap(model).certify(x, None, torch.zeros(1))
        assert promise is not None
        widths.append((promise.high - promise.low).item())
    # A Gaussian blur of standard deviation s keeps 1 / (2 sqrt(pi) s) of the noise; 20 % for the random ends.
    assert widths[1] / widths[0] == pytest.approx(1 / (2 * math.sqrt(math.pi) * 2.0), rel=0.2)


def test_the_denoiser_must_be_a_purifier() -> None:
    with pytest.raises(ContractError, match="expected the name of a purifier, got 'median-smoothing'"):
        DenoisedMedianSmoothing(purifier="median-smoothing").wrap(Linear())


# --- randomized smoothing


def test_the_score_is_the_mean_of_the_votes_of_the_winning_bin() -> None:
    smoothed = RandomizedSmoothing(bins=10).wrap(Linear())
    scores = torch.tensor([[31.0, 39.0, 40.0, 35.0], [-3.0, -1.0, 0.0, 1.0], [100.0, 100.0, 101.0, 99.0]])
    # 40 belongs to the bin above it; 0 to the first bin, a tie that the lower class wins; 100 to the last bin.
    expected = torch.tensor([35.0, -2.0, 299 / 3])
    torch.testing.assert_close(smoothed.summary(scores), expected)  # type: ignore[operator]


def test_the_radius_of_a_linear_model_is_that_of_its_share() -> None:
    model = Linear()
    center = model(GRAY)[0].item()
    bins = 20  # of five: the winning one is [low, low + 5)
    low = 5 * math.floor(center / 5)
    sigma, copies, certify = 0.1, 101, 40_000
    spread = sigma * 30
    share = stats.norm.cdf((low + 5 - center) / spread) - stats.norm.cdf((low - center) / spread)
    model.info = ModelInfo(score_range=(low - 10 * 5.0, low + 10 * 5.0))
    smoothed = RandomizedSmoothing(sigma=sigma, bins=bins, copies=copies, certify_copies=certify).wrap(model)
    with seeded([5, 6]):
        promise = smoothed.certify(GRAY, None, torch.zeros(2))
    assert promise is not None
    needed = stats.beta.isf(5e-4 / 5, 51, 51)
    assert needed == pytest.approx(bounds.share_for_majority(copies, 5e-4 / 5))
    limit = max(0.0, sigma * (stats.norm.ppf(share) - stats.norm.ppf(needed)))
    # The bound lies 3.3 standard errors below what was seen, and that a few more about the share.
    error = sigma * 7 * math.sqrt(share * (1 - share) / certify) / stats.norm.pdf(stats.norm.ppf(share))
    assert (promise.radius <= limit + error).all() and (promise.radius >= limit - error).all()


def test_a_clear_majority_is_certified_and_an_even_one_is_not() -> None:
    model = Linear()
    center = model(GRAY)[0].item()
    model.info = ModelInfo(score_range=(center - 50, center + 50))  # an edge at the center: two equal bins
    with seeded([1, 2]):
        promise = RandomizedSmoothing(sigma=SIGMA).wrap(model).certify(GRAY, None, torch.zeros(2))
    assert promise is not None and promise.radius.tolist() == [0, 0]
    assert promise.low.tolist() == [-math.inf] * 2 and promise.high.tolist() == [math.inf] * 2
    model.info = ModelInfo(score_range=(center - 55, center + 45))  # the center of a bin of ten
    smoothed = RandomizedSmoothing(sigma=SIGMA).wrap(model)
    with seeded([1, 2]):
        promise = smoothed.certify(GRAY, None, torch.tensor([0.01, 1.0]))
    assert promise is not None and (promise.radius > 0.01).all()
    assert promise.low.tolist() == pytest.approx([center - 5, -math.inf])
    assert promise.high.tolist() == pytest.approx([center + 5, math.inf])
    ceiling = SIGMA * (stats.norm.ppf(5e-4 ** (1 / 1000)) - stats.norm.ppf(stats.beta.isf(1e-4, 51, 50)))
    assert promise.radius.tolist() == pytest.approx([ceiling] * 2)


def test_bins_need_a_range() -> None:
    with pytest.raises(ContractError, match="cuts the score range into bins, which is unknown"):
        RandomizedSmoothing().wrap(Linear(score_range=None))


# --- what all share


@pytest.mark.parametrize("defense", [MedianSmoothing, RandomizedSmoothing])
def test_a_search_and_a_gradient_take_few_copies(defense: Any) -> None:
    model = Counting()
    smoothed = defense(copies=50, certify_copies=70, attack_copies=3).wrap(model)

    def count(call: Any) -> int:
        model.seen = 0
        call()
        return model.seen

    with torch.no_grad():
        assert count(lambda: smoothed(GRAY)) == 100
        with searching():
            assert count(lambda: smoothed(GRAY)) == 6
        assert count(lambda: smoothed.certify(GRAY, None, torch.zeros(2))) in (140, 240)
    assert count(lambda: smoothed(GRAY.clone().requires_grad_(True)).sum().backward()) == 6


def test_the_slope_is_that_of_the_mean_of_the_copies() -> None:
    model = Linear()
    smoothed = MedianSmoothing(sigma=SIGMA).wrap(model)
    x = GRAY.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(smoothed(x).sum(), x)
    torch.testing.assert_close(slope[0].double(), model.w, rtol=1e-4, atol=1e-4)  # float32 images


@pytest.mark.parametrize("value", [0, -0.1, math.nan, True, "0.1"])
def test_refuses_noise_that_is_none(value: Any) -> None:
    with pytest.raises(ContractError, match=r"MedianSmoothing: expected sigma to be a finite number > 0, got"):
        MedianSmoothing(sigma=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("copies", 0), ("certify_copies", 1.5), ("attack_copies", True)),
        *(("confidence", 1.0), ("confidence", 0), ("bins", 0)),
    ],
)
def test_refuses_other_parameters_by_name(name: str, value: Any) -> None:
    with pytest.raises(ContractError, match=rf"RandomizedSmoothing: expected {name} to be a"):
        RandomizedSmoothing(**{name: value})
