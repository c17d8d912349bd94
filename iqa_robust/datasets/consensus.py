"""Pseudo-MOS: what a frozen consensus of full-reference measures says about a distorted picture.

No person rated anything here. Five full-reference measures of piq, all close to human opinion in the
literature, are computed; each is mapped to the share of a fixed bank of distorted pictures that it finds
worse; the five shares are averaged. 0 is the worst of that bank, 100 is the reference itself.

    MS-SSIM  Wang, Simoncelli and Bovik, 2003
    VSI      Zhang, Shen and Li, 2014
    MDSI     Ziaei Nafchi et al., 2016 (lower is better)
    HaarPSI  Reisenhofer et al., 2018
    VIF      Sheikh and Bovik, 2006, in the pixel domain

The maps are frozen: piecewise-linear tables (`consensus_knots.csv`), fitted once on the training split of
`photos`. A new picture is therefore labeled on its own, without ranking anything again. VIF exceeds 1 when
contrast grows; it is capped at 1, the value of the reference: a change is never an improvement here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from piq import haarpsi, mdsi, multi_scale_ssim, vif_p, vsi

from iqa_robust.errors import ContractError
from iqa_robust.images import check_images, check_pair

MIN_SIDE = 161
"""The smallest height and width MS-SSIM with five scales can handle."""

KNOTS_FILE = Path(__file__).with_name("consensus_knots.csv")
SHARES = np.linspace(0, 1, 21)
"""Where the maps have their knots: shares of the bank that are worse."""


def pseudo_mos(ref: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Pseudo-MOS of `x` against `ref`, 0 to 100, higher is better.

    Args:
        ref: references, float32 (N, 3, H, W) in [0, 1], with H and W at least 161.
        x: distorted images of the same shape.

    Returns:
        float32 (N,) on the CPU; 100 for identical pairs. No gradient flows.

    Raises:
        ContractError: the batches are not images, differ in shape, or are too small.
    """
    return torch.from_numpy(100 * shares(measure(ref, x)).mean(axis=1)).float()


def measure(ref: torch.Tensor, x: torch.Tensor) -> NDArray[np.float64]:
    """The raw measures, (N, 5), in the order of `MEASURES`, each turned so that higher is better.

    Raises:
        ContractError: the batches are not images, differ in shape, or are too small.
    """
    check_images(x)
    check_pair(x, ref)
    if min(x.shape[-2:]) < MIN_SIDE:
        raise ContractError(f"pseudo-MOS: expected height and width of at least {MIN_SIDE}, got {tuple(x.shape[-2:])}.")
    with torch.no_grad():
        columns = [function(x, ref).double().cpu().numpy() for function in MEASURES.values()]
    return np.stack(columns, axis=1)


def shares(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map raw measures (N, 5) to the share of the frozen bank each measure finds worse, (N, 5) in [0, 1]."""
    knots = _knots()
    return np.stack([np.interp(raw[:, i], knots[name], SHARES) for i, name in enumerate(MEASURES)], axis=1)


def fit_knots(raw: NDArray[np.float64]) -> dict[str, list[float]]:
    """Fit the maps to a bank's raw measures (N, 5): its quantiles, with the reference itself on top."""
    table = {}
    for i, name in enumerate(MEASURES):
        values = np.quantile(raw[:, i], SHARES)
        values[-1] = IDENTITY[name]
        table[name] = [float(f"{value:.6g}") for value in values]
    return table


def write_knots(table: dict[str, list[float]]) -> None:
    """Store fitted maps in `KNOTS_FILE`. This changes every pseudo-MOS: for maintainers only."""
    with KNOTS_FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["share", *table])
        writer.writerows(zip([f"{share:.2f}" for share in SHARES], *table.values(), strict=True))
    _knots.cache_clear()


@cache
def _knots() -> dict[str, list[float]]:
    with KNOTS_FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in MEASURES}


def _ms_ssim(x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return multi_scale_ssim(x, ref, data_range=1.0, reduction="none")


def _vsi(x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return vsi(x, ref, data_range=1.0, reduction="none")


def _mdsi(x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return -mdsi(x, ref, data_range=1.0, reduction="none")


def _haarpsi(x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return haarpsi(x, ref, data_range=1.0, reduction="none")


def _vif(x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return vif_p(x, ref, data_range=1.0, reduction="none").clamp(max=1.0)


MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ms-ssim": _ms_ssim,
    "vsi": _vsi,
    "mdsi": _mdsi,
    "haarpsi": _haarpsi,
    "vif": _vif,
}
"""The measures of the consensus, each as `(x, ref) -> (N,)`, higher is better."""

IDENTITY = {"ms-ssim": 1 - 1e-5, "vsi": 1 - 1e-5, "mdsi": -1e-4, "haarpsi": 1 - 1e-5, "vif": 1 - 1e-5}
"""From which value a pair counts as identical: float32 keeps identical pairs a little off the ideal."""
