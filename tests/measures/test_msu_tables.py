"""Figures derived from the per-image MANIQA scores that MSU's robustness benchmark published.

Source: msu-video-group/MSU_Metrics_Robustness_Benchmark at 375969e, `res/*_maniqa_test.csv`; 1,000 images of
NIPS2017, 2,001 of Vimeo, 217 of DERF; eps 10/255. Scores are scaled, as there, by the clean ones of the slice.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from iqa_robust.measures import (
    mean_psnr,
    r_score,
    relative_gain,
    shift_abs_scaled,
    shift_mean,
    srocc,
    wasserstein,
)

pytestmark = pytest.mark.data
Table = dict[str, np.ndarray]

# attack, attacked mean, R, normalized absolute gain, PSNR, SSIM: the NIPS2017 images.
NIPS = [
    ("std-fgsm", 0.693, 0.379, 0.300, 28.29, 0.716),
    ("ifgsm", 1.335, -0.312, 1.356, 34.32, 0.920),
    ("mifgsm", 1.092, -0.175, 0.956, 30.05, 0.791),
    ("madc", None, 0.256, 0.355, 55.11, 0.999),
]
# attack, set, raw gain, PSNR, SROCC of clean and attacked scores.
SETS = [
    ("ifgsm", "NIPS", 0.825, 34.3, 0.143),
    ("ifgsm", "VIMEO", 1.018, 35.1, 0.149),
    ("ifgsm", "DERF", 0.613, 44.8, -0.194),
    ("mifgsm", "NIPS", 0.582, 30.1, 0.431),
    ("mifgsm", "VIMEO", 0.689, 30.2, 0.403),
    ("mifgsm", "DERF", 0.465, 40.2, -0.113),
    ("madc", "NIPS", 0.216, 55.1, 0.845),
    ("madc", "VIMEO", 0.280, 55.1, 0.855),
    ("madc", "DERF", 0.180, 66.4, 0.645),
    ("std-fgsm", "NIPS", 0.183, 28.3, 0.606),
    ("std-fgsm", "VIMEO", 0.184, 28.3, 0.690),
    ("std-fgsm", "DERF", 0.057, 38.5, 0.190),
]


@pytest.fixture
def table(data_root: Path):
    def read(attack: str, dataset: str) -> Table:
        path = data_root / "reference" / "msu_maniqa" / f"{attack}_maniqa_test.csv.gz"
        with gzip.open(path, "rt", newline="") as file:
            # One set goes by two names in these files.
            rows = [r for r in csv.DictReader(file) if r["test_dataset"].replace("NIPS2017", "NIPS") == dataset]
        return {c: np.array([float(r[c]) for r in rows]) for c in ("clear", "attacked", "psnr", "ssim")}

    return read


def slice_range(scores: Table) -> tuple[float, float]:
    return float(scores["clear"].min()), float(scores["clear"].max())


@pytest.mark.parametrize(("attack", "attacked", "robustness", "gain", "psnr", "similarity"), NIPS)
def test_nips(table, attack, attacked, robustness, gain, psnr, similarity) -> None:
    scores = table(attack, "NIPS")
    own_range = slice_range(scores)
    clear, adv = scores["clear"], scores["attacked"]
    assert len(clear) == 1000
    # Half a unit of the last digit given, and a little for its rounding.
    if attacked is not None:
        assert adv.mean() == pytest.approx(attacked, abs=6e-4)
    assert r_score(clear, adv, own_range) == pytest.approx(robustness, abs=6e-4)
    assert shift_mean(clear, adv) / np.subtract(*own_range[::-1]) == pytest.approx(gain, abs=6e-4)
    assert mean_psnr(scores["psnr"]).mean == pytest.approx(psnr, abs=6e-3)
    assert scores["ssim"].mean() == pytest.approx(similarity, abs=6e-4)


@pytest.mark.parametrize(("attack", "dataset", "gain", "psnr", "correlation"), SETS)
def test_all_sets(table, attack: str, dataset: str, gain: float, psnr: float, correlation: float) -> None:
    scores = table(attack, dataset)
    # As above: half a unit of the last digit and a little.
    assert shift_mean(scores["clear"], scores["attacked"]) == pytest.approx(gain, abs=6e-4)
    assert mean_psnr(scores["psnr"]).mean == pytest.approx(psnr, abs=6e-2)
    assert srocc(scores["clear"], scores["attacked"]) == pytest.approx(correlation, abs=6e-4)


@pytest.mark.parametrize("attack", ["ifgsm", "mifgsm", "madc"])
@pytest.mark.parametrize("dataset", ["NIPS", "VIMEO", "DERF"])
def test_where_every_score_rises_three_measures_are_one(table, attack: str, dataset: str) -> None:
    scores = table(attack, dataset)
    clear, adv, own_range = scores["clear"], scores["attacked"], slice_range(scores)
    # 1e-10: SciPy integrates the distance over thousands of steps.
    assert wasserstein(clear, adv, own_range) == pytest.approx(shift_abs_scaled(clear, adv, own_range), rel=1e-10)


def test_the_slice_must_not_set_the_scale(table) -> None:
    """Why ranges are frozen: the same shifts are 4.56 on the scale of their slice, 0.885 on that of all."""
    derf = table("ifgsm", "DERF")
    clear = np.concatenate([table("ifgsm", name)["clear"] for name in ("NIPS", "VIMEO", "DERF")])
    own = shift_abs_scaled(derf["clear"], derf["attacked"], slice_range(derf))
    common = shift_abs_scaled(derf["clear"], derf["attacked"], (float(clear.min()), float(clear.max())))
    assert own == pytest.approx(4.56, abs=6e-3)
    assert common == pytest.approx(0.885, abs=6e-4)


def test_relative_gain_of_fgsm(table) -> None:
    scores = table("std-fgsm", "NIPS")
    low, high = slice_range(scores)
    scaled, moved = (scores["clear"] - low) / (high - low), (scores["attacked"] - low) / (high - low)
    # 1e-12: the definition, written out; MSU's own value after its domain map is 0.200.
    expected = np.mean((moved - scaled) / (scaled + 1))
    assert relative_gain(scores["clear"], scores["attacked"], (low, high)) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(0.200, abs=5e-3)


def test_the_published_shifts_stay_above_the_floor_of_r(table) -> None:
    smallest = min(
        np.min(np.abs(s["attacked"] - s["clear"])) / np.subtract(*slice_range(s)[::-1])
        for s in (table(attack, name) for attack, name, *_ in SETS)
    )
    assert smallest == pytest.approx(2.8e-4, abs=1e-5)


def test_srocc_against_scipy_on_real_scores(table) -> None:
    scores = table("std-fgsm", "VIMEO")
    expected = stats.spearmanr(scores["clear"], scores["attacked"]).statistic
    # 1e-12: float64 sums of two thousand ranks.
    assert srocc(scores["clear"], scores["attacked"]) == pytest.approx(expected, abs=1e-12)
