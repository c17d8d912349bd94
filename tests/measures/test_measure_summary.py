from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from iqa_robust.errors import ContractError
from iqa_robust.measures import BOARD_MEASURES, FURTHER_MEASURES, fit_logistic, summarize

N = 60
SIGNED_TOWARD_BETTER = ("relative_gain", "wasserstein", "energy_distance")


@pytest.fixture
def columns() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mos = rng.uniform(10, 90, N)
    clean = mos / 20 + rng.normal(0, 0.5, N)
    return {
        "mos": mos,
        "score_clean": clean,
        "score_adv": clean + rng.uniform(0.1, 2, N),
        "score_def_clean": clean + rng.normal(0, 0.1, N),
        "linf": np.full(N, 4 / 255),
        "l2": rng.uniform(0.5, 1.5, N),
        "psnr": rng.uniform(35, 45, N),
        "ssim": rng.uniform(0.9, 1, N),
        "queries": np.arange(N),
        "reference_ids": [f"r{i // 5}" for i in range(N)],
        "higher_is_better": True,
        "mos_higher_is_better": True,
        "score_range": (0.0, 5.0),
        "mos_range": (0.0, 100.0),
        "resamples": 500,
    }


def test_names_and_order(columns: dict[str, Any]) -> None:
    measures = summarize(**columns)
    assert tuple(measures) == BOARD_MEASURES + FURTHER_MEASURES
    board = (
        "srocc_clean,srocc_adv,srocc_adv_lo,srocc_adv_hi,plcc_clean,plcc_adv,krocc_clean,krocc_adv,rmse_adv,"
        "shift_mean,shift_abs_mean,shift_abs_scaled,shift_abs_sd,shift_abs_mos,shift_p95,r_score,linf_max_255,"
        "psnr_mean,ssim_mean,queries_mean"
    )
    assert ",".join(BOARD_MEASURES) == board
    assert all(type(value) is float and np.isfinite(value) for value in measures.values())


def test_values_against_scipy(columns: dict[str, Any]) -> None:
    measures = summarize(**columns)
    mos, clean, adv = columns["mos"], columns["score_clean"], columns["score_adv"]
    logistic = fit_logistic(clean, mos, (0, 100))
    expected = {
        "srocc_clean": stats.spearmanr(clean, mos).statistic,
        "srocc_adv": stats.spearmanr(adv, mos).statistic,
        "krocc_clean": stats.kendalltau(clean, mos).statistic,
        "krocc_adv": stats.kendalltau(adv, mos).statistic,
        "plcc_clean": stats.pearsonr(logistic(clean), mos).statistic,
        "plcc_adv": stats.pearsonr(logistic(adv), mos).statistic,
        "rmse_clean": np.sqrt(np.mean((logistic(clean) - mos) ** 2)),
        "rmse_adv": np.sqrt(np.mean((logistic(adv) - mos) ** 2)),
        "shift_mean": np.mean(adv - clean),
        "shift_abs_mean": np.mean(np.abs(adv - clean)),
        "shift_abs_scaled": np.mean(np.abs(adv - clean)) / 5,
        "shift_abs_sd": np.mean(np.abs(adv - clean)) / np.std(clean, ddof=1),
        "shift_abs_mos": np.mean(np.abs(logistic(adv) - logistic(clean))),
        "shift_p95": np.percentile(np.abs(adv - clean), 95),
        "r_score": np.mean(np.log10(np.maximum(5 - clean, clean) / np.abs(adv - clean))),
        "linf_max_255": 4,
        "psnr_mean": np.mean(columns["psnr"]),
        "ssim_mean": np.mean(columns["ssim"]),
        "queries_mean": (N - 1) / 2,
        "l2_mean": np.mean(columns["l2"]),
        "srocc_def_clean": stats.spearmanr(columns["score_def_clean"], mos).statistic,
        "drift_abs_mean": np.mean(np.abs(columns["score_def_clean"] - clean)),
        # Every score rises, so the distance of the crowds is the mean shift.
        "wasserstein": np.mean(adv - clean) / 5,
        "energy_distance": stats.energy_distance(clean / 5, adv / 5),
        "out_of_range_share": np.mean((adv < 0) | (adv > 5)),
        "psnr_infinite": 0,
    }
    # 1e-12: float64 sums in another order.
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
    assert measures["srocc_adv_lo"] < measures["srocc_adv"] < measures["srocc_adv_hi"]


def test_a_model_that_counts_the_other_way_is_the_same_model(columns: dict[str, Any]) -> None:
    plain = summarize(**columns)
    turned = dict(columns, higher_is_better=False, score_range=(-5.0, 0.0))
    for name in ("score_clean", "score_adv", "score_def_clean"):
        turned[name] = -columns[name]
    other = summarize(**turned)
    assert other.pop("shift_mean") == -plain.pop("shift_mean")
    # 1e-4 relative: the logistic is fitted anew on negated scores and may stop a little apart.
    assert other == pytest.approx(plain, rel=1e-4)
    assert other["srocc_clean"] > 0 and all(other[name] > 0 for name in SIGNED_TOWARD_BETTER)


def test_dmos_turns_the_correlations_but_not_the_shifts(columns: dict[str, Any]) -> None:
    plain = summarize(**columns)
    turned = dict(columns, mos=100 - columns["mos"], mos_higher_is_better=False)
    # 1e-4 relative: as above.
    assert summarize(**turned) == pytest.approx(plain, rel=1e-4)


def test_contents_are_resampled_together(columns: dict[str, Any]) -> None:
    by_content, by_image = summarize(**columns), summarize(**dict(columns, reference_ids=None))
    for name in ("srocc_adv_lo", "srocc_adv_hi"):
        assert by_content.pop(name) != by_image.pop(name)
    assert by_content == by_image


def test_failed_images(columns: dict[str, Any]) -> None:
    failing = {
        name: np.append(values, [np.nan, np.nan])
        for name, values in columns.items()
        if isinstance(values, np.ndarray) and name not in ("mos", "score_clean")
    }
    failing["mos"] = np.append(columns["mos"], [50, 60])
    failing["score_clean"] = np.append(columns["score_clean"], [2.0, np.nan])
    failing["reference_ids"] = [*columns["reference_ids"], "r1", "r2"]
    measures, without = summarize(**(columns | failing)), summarize(**columns)
    for name in ("srocc_adv", "srocc_adv_lo", "srocc_adv_hi", "shift_mean", "r_score", "psnr_mean"):
        assert measures[name] == without[name], name
    # One clean score more.
    clean, mos = failing["score_clean"][:-1], failing["mos"][:-1]
    assert measures["srocc_clean"] == pytest.approx(stats.spearmanr(clean, mos).statistic, abs=1e-12)


def test_what_is_not_given_is_nan(columns: dict[str, Any]) -> None:
    bare = dict(columns, score_range=None, mos=np.full(N, np.nan), score_def_clean=None, reference_ids=None)
    measures = summarize(**bare)
    undefined = {name for name, value in measures.items() if np.isnan(value)}
    of_mos = {name for name in measures if name.startswith(("srocc", "plcc", "krocc", "rmse"))}
    on_scale = {"shift_abs_scaled", "r_score", "out_of_range_share", *SIGNED_TOWARD_BETTER}
    assert undefined == of_mos | on_scale | {"shift_abs_mos", "drift_abs_mean"}


def test_nothing_succeeded(columns: dict[str, Any]) -> None:
    empty = {name: np.full(N, np.nan) for name, v in columns.items() if isinstance(v, np.ndarray)}
    measures = summarize(**(columns | empty))
    assert measures.pop("psnr_infinite") == 0
    assert all(np.isnan(value) for value in measures.values())


def test_unchanged_images_do_not_make_the_mean_infinite(columns: dict[str, Any]) -> None:
    psnr = columns["psnr"].copy()
    psnr[:3] = np.inf
    measures = summarize(**(columns | {"psnr": psnr}))
    assert measures["psnr_infinite"] == 3
    assert measures["psnr_mean"] == pytest.approx(psnr[3:].mean(), rel=1e-14)


def test_columns_of_other_lengths_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="psnr"):
        summarize(**(columns | {"psnr": [1.0]}))
    with pytest.raises(ContractError, match="clusters"):
        summarize(**(columns | {"reference_ids": ["a"]}))
