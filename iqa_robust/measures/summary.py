"""All measures of one record: per-image columns in, one number per board column out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures import shift
from iqa_robust.measures.correlation import krocc, rmse, srocc
from iqa_robust.measures.direction import toward_better, toward_better_range
from iqa_robust.measures.finite import Floats, mean_or_nan, vector
from iqa_robust.measures.logistic import fit_logistic, plcc
from iqa_robust.measures.perturbation import mean_psnr
from iqa_robust.measures.resampling import bootstrap_interval, resamples_for

BOARD_MEASURES = (
    "srocc_clean",
    "srocc_adv",
    "srocc_adv_lo",
    "srocc_adv_hi",
    "plcc_clean",
    "plcc_adv",
    "krocc_clean",
    "krocc_adv",
    "rmse_adv",
    "shift_mean",
    "shift_abs_mean",
    "shift_abs_scaled",
    "shift_abs_sd",
    "shift_abs_mos",
    "shift_p95",
    "r_score",
    "linf_max_255",
    "psnr_mean",
    "ssim_mean",
    "queries_mean",
)
"""The measures a board shows, in its order."""

FURTHER_MEASURES = (
    "rmse_clean",
    "srocc_def_clean",
    "drift_abs_mean",
    "relative_gain",
    "wasserstein",
    "energy_distance",
    "out_of_range_share",
    "l2_mean",
    "psnr_infinite",
)
"""What `summarize` returns beyond those."""


def summarize(
    *,
    mos: ArrayLike,
    score_clean: ArrayLike,
    score_adv: ArrayLike,
    linf: ArrayLike,
    l2: ArrayLike,
    psnr: ArrayLike,
    ssim: ArrayLike,
    queries: ArrayLike,
    higher_is_better: bool,
    mos_higher_is_better: bool,
    score_range: tuple[float, float] | None,
    mos_range: tuple[float, float] | None,
    score_def_clean: ArrayLike | None = None,
    reference_ids: Sequence[Any] | np.ndarray | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compute every measure of one record.

    Each measure uses the images where all the values it needs are finite; a failed image is NaN. Correlations
    are positive where model and MOS agree, whichever way either counts. `shift_mean` keeps the sign of the
    native scores; `relative_gain`, `wasserstein` and `energy_distance` are positive where the attack made
    images look better. RMSE and `shift_abs_mos` are in MOS units; the logistic behind them and behind PLCC is
    fitted on `score_clean` and reused. `psnr_mean` averages finite values, `psnr_infinite` counts the images
    that the attack left unchanged.

    Args:
        mos: mean opinion scores (n,), NaN where a dataset has none.
        score_clean: the bare model on the clean image (n,), native units.
        score_adv: what is finally scored on the attacked image (n,): the defended model's score where there
            is one.
        linf: measured distance (n,), fraction of full scale.
        l2: measured distance (n,), full scale = 1.
        psnr: (n,), dB; infinite for an unchanged image.
        ssim: (n,).
        queries: forward passes spent per image (n,).
        higher_is_better: which way the scores count.
        mos_higher_is_better: which way the MOS counts (False for a DMOS).
        score_range: the frozen range of the track, native units; None where it has none, which leaves the
            measures on that scale undefined.
        mos_range: the ends of the MOS scale, None if unknown.
        score_def_clean: the defended model on the clean image (n,); None without a defense.
        reference_ids: what the images show, (n,); images of one content are resampled together.
        resamples: bootstrap resamples behind `srocc_adv_lo` and `srocc_adv_hi` (95 percent); None is `resamples_for`.
        seed: of the resamples.

    Returns:
        One float per name in `BOARD_MEASURES` and `FURTHER_MEASURES`, in that order; NaN where undefined.

    Raises:
        ContractError: columns of different length, or a range without low < high.
    """
    clean, adv, opinion = (
        vector(score_clean, "score_clean"),
        vector(score_adv, "score_adv"),
        vector(mos, "mos"),
    )
    defended = np.full(len(clean), np.nan) if score_def_clean is None else vector(score_def_clean, "score_def_clean")
    distances = {"linf": linf, "l2": l2, "psnr": psnr, "ssim": ssim, "queries": queries}
    costs = {name: vector(values, name) for name, values in distances.items()}
    _check_lengths(clean, score_adv=adv, mos=opinion, score_def_clean=defended, **costs)

    better_mos = toward_better(opinion, mos_higher_is_better)
    better_clean, better_adv, better_defended = (
        toward_better(scores, higher_is_better) for scores in (clean, adv, defended)
    )
    logistic = fit_logistic(clean, opinion, mos_range)
    resamples = resamples_for(len(clean)) if resamples is None else resamples
    interval = bootstrap_interval(
        "srocc", better_adv, better_mos, clusters=reference_ids, resamples=resamples, seed=seed
    )
    psnr_of_changed = mean_psnr(costs["psnr"])

    measures = {
        "srocc_clean": srocc(better_clean, better_mos),
        "srocc_adv": srocc(better_adv, better_mos),
        "srocc_adv_lo": interval.lo,
        "srocc_adv_hi": interval.hi,
        "plcc_clean": plcc(clean, opinion, logistic),
        "plcc_adv": plcc(adv, opinion, logistic),
        "krocc_clean": krocc(better_clean, better_mos),
        "krocc_adv": krocc(better_adv, better_mos),
        "rmse_clean": rmse(logistic(clean), opinion),
        "rmse_adv": rmse(logistic(adv), opinion),
        "shift_mean": shift.shift_mean(clean, adv),
        "shift_abs_mean": shift.shift_abs_mean(clean, adv),
        "shift_abs_sd": shift.shift_abs_sd(clean, adv),
        "shift_abs_mos": shift.shift_abs_mos(clean, adv, logistic),
        "shift_p95": shift.shift_p95(clean, adv),
        "linf_max_255": _max_finite(costs["linf"]) * 255,
        "psnr_mean": psnr_of_changed.mean,
        "ssim_mean": _mean_finite(costs["ssim"]),
        "queries_mean": _mean_finite(costs["queries"]),
        "srocc_def_clean": srocc(better_defended, better_mos),
        "drift_abs_mean": shift.shift_abs_mean(clean, defended),
        "l2_mean": _mean_finite(costs["l2"]),
        "psnr_infinite": float(psnr_of_changed.n_infinite),
    }
    if score_range is not None:
        frozen = toward_better_range(score_range, higher_is_better)
        measures["shift_abs_scaled"] = shift.shift_abs_scaled(better_clean, better_adv, frozen)
        measures["r_score"] = shift.r_score(better_clean, better_adv, frozen)
        measures["relative_gain"] = shift.relative_gain(better_clean, better_adv, frozen)
        measures["wasserstein"] = shift.wasserstein(better_clean, better_adv, frozen)
        measures["energy_distance"] = shift.energy_distance(better_clean, better_adv, frozen)
        measures["out_of_range_share"] = shift.out_of_range_share(better_adv, frozen)
    return {name: measures.get(name, float("nan")) for name in BOARD_MEASURES + FURTHER_MEASURES}


def _check_lengths(clean: Floats, **columns: Floats) -> None:
    for name, column in columns.items():
        if len(column) != len(clean):
            raise ContractError(
                f"{name}: expected one value per image ({len(clean)}, as in score_clean), got {len(column)}."
            )


def _mean_finite(values: Floats) -> float:
    return mean_or_nan(values[np.isfinite(values)])


def _max_finite(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else float("nan")
