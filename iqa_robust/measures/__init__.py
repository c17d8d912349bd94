"""Measures: pure functions on per-image arrays, NumPy and SciPy only. Undefined is NaN, never 0."""

from __future__ import annotations

from iqa_robust.measures.correlation import krocc, plcc_raw, rmse, srocc
from iqa_robust.measures.direction import toward_better, toward_better_range
from iqa_robust.measures.finite import FiniteRows, finite_rows
from iqa_robust.measures.logistic import Logistic, fit_logistic, plcc
from iqa_robust.measures.perturbation import MeanPsnr, l2, linf, mean_psnr, psnr, ssim
from iqa_robust.measures.resampling import Interval, bootstrap_interval, paired_interval
from iqa_robust.measures.shift import (
    energy_distance,
    out_of_range_share,
    r_score,
    relative_gain,
    shift_abs_mean,
    shift_abs_mos,
    shift_abs_scaled,
    shift_abs_sd,
    shift_mean,
    shift_p95,
    wasserstein,
)
from iqa_robust.measures.summary import BOARD_MEASURES, FURTHER_MEASURES, summarize

__all__ = [
    "BOARD_MEASURES",
    "FURTHER_MEASURES",
    "FiniteRows",
    "Interval",
    "Logistic",
    "MeanPsnr",
    "bootstrap_interval",
    "energy_distance",
    "finite_rows",
    "fit_logistic",
    "krocc",
    "l2",
    "linf",
    "mean_psnr",
    "out_of_range_share",
    "paired_interval",
    "plcc",
    "plcc_raw",
    "psnr",
    "r_score",
    "relative_gain",
    "rmse",
    "shift_abs_mean",
    "shift_abs_mos",
    "shift_abs_scaled",
    "shift_abs_sd",
    "shift_mean",
    "shift_p95",
    "srocc",
    "ssim",
    "summarize",
    "toward_better",
    "toward_better_range",
    "wasserstein",
]
