from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from iqa_robust.errors import ContractError
from iqa_robust.measures import bootstrap_interval, paired_interval, resampling, srocc


def normals(n: int, rho: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n).T


@pytest.mark.parametrize(
    ("statistic", "scipy"),
    [
        ("srocc", lambda a, b: stats.spearmanr(a, b).statistic),
        ("krocc", lambda a, b: stats.kendalltau(a, b).statistic),
        ("plcc", lambda a, b: stats.pearsonr(a, b).statistic),
    ],
)
def test_agrees_with_scipy_on_each_resample_written_out(statistic: str, scipy) -> None:
    x, y = normals(40, 0.6, 1)
    y = np.round(y, 1)
    draws = np.concatenate(list(resampling._draws(np.arange(40), 200, seed=5))).astype(int)
    values = [scipy(np.repeat(x, counts), np.repeat(y, counts)) for counts in draws]
    own = bootstrap_interval(statistic, x, y, resamples=200, seed=5)
    # 1e-12: SciPy sums ranks in another order.
    np.testing.assert_allclose(own, np.percentile(values, [2.5, 97.5]), rtol=0, atol=1e-12)


def test_the_mean_has_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=400)
    interval = bootstrap_interval("mean", x)
    half = 1.96 * x.std() / 20
    # 5 percent of the width: sampling error of the quantiles and a little skew.
    np.testing.assert_allclose(interval, [x.mean() - half, x.mean() + half], atol=0.1 * half)


@pytest.mark.parametrize("statistic", ["srocc", "krocc", "plcc", "mean"])
def test_independent_of_the_chunk_size_and_seeded(statistic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normals(37, 0.5, 0)
    y = None if statistic == "mean" else y
    clusters = np.arange(37) // 3

    def interval(seed: int = 0) -> list[resampling.Interval]:
        return [bootstrap_interval(statistic, x, y, clusters=c, resamples=501, seed=seed) for c in (None, clusters)]

    whole = interval()
    for chunk in (1, 37 * 7, 37 * 500):
        monkeypatch.setattr(resampling, "_CHUNK", chunk)
        assert interval() == whole
    assert interval(seed=1) != whole


def test_draws_are_uniform_and_complete() -> None:
    codes = np.repeat(np.arange(5), [1, 2, 3, 4, 5])
    counts = np.concatenate(list(resampling._draws(codes, 20_000, seed=0)))
    assert counts.shape == (20_000, 15)
    first_of_cluster = counts[:, [0, 1, 3, 6, 10]]
    np.testing.assert_array_equal(first_of_cluster.sum(axis=1), 5)
    np.testing.assert_array_equal(counts, first_of_cluster[:, codes])
    observed = first_of_cluster.sum(axis=0)
    # A fair generator fails this once in ten thousand seeds; the seed is fixed.
    assert stats.chisquare(observed).pvalue > 1e-4


@pytest.mark.parametrize("statistic", ["srocc", "plcc", "krocc"])
def test_covers_the_truth(statistic: str) -> None:
    rho = 0.7
    closed_forms = {"srocc": 6 / np.pi * np.arcsin(rho / 2), "plcc": rho, "krocc": 2 / np.pi * np.arcsin(rho)}
    truth = closed_forms[statistic]
    hits = 0
    for seed in range(200):
        x, y = normals(80, rho, seed)
        lo, hi = bootstrap_interval(statistic, x, y, resamples=400, seed=seed)
        hits += lo <= truth <= hi
    # 95 percent nominal; percentile intervals undercover a little at n = 80, and 200 trials have an error of 1.5.
    assert 0.88 <= hits / 200 <= 0.995


def test_shared_contents_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    contents = np.repeat(np.arange(30), 20)
    x = rng.normal(size=30)[contents] + 0.1 * rng.normal(size=600)
    y = x + rng.normal(size=30)[contents] + 0.1 * rng.normal(size=600)
    for statistic, other in (("srocc", y), ("plcc", y), ("krocc", y), ("mean", None)):
        images = bootstrap_interval(statistic, x, other, resamples=1000)
        clustered = bootstrap_interval(statistic, x, other, clusters=contents, resamples=1000)
        # 20 images of a content are worth about one: about sqrt(20) = 4.5 times as wide. 2 leaves room for noise.
        assert clustered.hi - clustered.lo > 2 * (images.hi - images.lo)


def test_clusters_of_one_are_no_clusters() -> None:
    x, y = normals(50, 0.5, 0)
    plain = bootstrap_interval("srocc", x, y, resamples=300)
    names = [f"image {i}" for i in range(50)]
    assert bootstrap_interval("srocc", x, y, clusters=names, resamples=300) == plain
    assert bootstrap_interval("srocc", x, y, clusters=[None] * 50, resamples=300) == plain
    assert bootstrap_interval("srocc", x, y, clusters=[float("nan")] * 25 + [""] * 25, resamples=300) == plain


def test_failed_images_are_left_out_with_their_clusters() -> None:
    x, y = normals(30, 0.5, 0)
    clusters = np.arange(30) // 2
    clean = bootstrap_interval("srocc", x, y, clusters=clusters, resamples=300)
    failed = bootstrap_interval(
        "srocc",
        np.append(np.nan, x),
        np.append(1.0, y),
        clusters=np.append(99, clusters),
        resamples=300,
    )
    assert failed == clean


@pytest.mark.parametrize(
    ("x", "y", "clusters"),
    [
        ([], [], None),
        ([1, 2], [1, 2], None),
        ([1.0] * 10, range(10), None),
        (range(10), range(10), ["one"] * 10),
        ([np.nan] * 10, range(10), None),
    ],
)
def test_undefined_is_nan(x: list[float], y: list[float], clusters: list[str] | None) -> None:
    assert np.isnan(bootstrap_interval("srocc", x, y, clusters=clusters, resamples=50)).all()


def test_resamples_without_a_value_do_not_spoil_the_rest() -> None:
    # Three images: every ninth resample holds one image only.
    assert not np.isnan(bootstrap_interval("srocc", [1, 2, 3], [1, 3, 2], resamples=500)).any()


def test_pairing_cancels_what_the_images_do_to_both() -> None:
    rng = np.random.default_rng(0)
    mos = rng.normal(size=400)
    shared = mos + rng.normal(size=400)
    better, worse = shared + 0.1 * rng.normal(size=400), shared + 0.8 * rng.normal(size=400)
    paired = paired_interval("srocc", better, worse, mos, resamples=2000)
    assert paired.lo < srocc(better, mos) - srocc(worse, mos) < paired.hi
    alone = [bootstrap_interval("srocc", system, mos, resamples=2000) for system in (better, worse)]
    assert paired.lo > 0
    assert alone[0].lo < alone[1].hi
    swapped = paired_interval("srocc", worse, better, mos, resamples=2000)
    # 1e-12: the same resamples with the sign turned; percentiles interpolate from the other side.
    np.testing.assert_allclose(swapped, [-paired.hi, -paired.lo], atol=1e-12)


def test_a_system_against_itself() -> None:
    x, y = normals(30, 0.5, 0)
    assert paired_interval("plcc", x, x, y, resamples=200) == (0, 0)
    # 1e-12: rounding of two means that differ by one.
    np.testing.assert_allclose(paired_interval("mean", x + 1, x, resamples=200), [1, 1], atol=1e-12)


def test_more_confidence_is_wider() -> None:
    x, y = normals(60, 0.5, 0)
    narrow, wide = (bootstrap_interval("srocc", x, y, resamples=500, confidence=c) for c in (0.5, 0.99))
    assert wide.lo < narrow.lo < narrow.hi < wide.hi


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("median", [1, 2, 3], [1, 2, 3]), {}, "expected one of srocc"),
        (("srocc", [1, 2, 3]), {}, "expected x and y as well"),
        (("mean", [1, 2, 3], [1, 2, 3]), {}, "expected x and no y"),
        (("srocc", [1, 2, 3], [1, 2]), {}, "lengths"),
        (("srocc", [1, 2, 3], [1, 2, 3]), {"resamples": 0}, "resamples"),
        (("srocc", [1, 2, 3], [1, 2, 3]), {"confidence": 95}, "confidence"),
        (("srocc", [1, 2, 3], [1, 2, 3]), {"clusters": ["a", "b"]}, "clusters"),
    ],
)
def test_wrong_requests(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        bootstrap_interval(*arguments, **options)
