"""NIQE, the natural image quality evaluator, with statistics of our own fit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gamma
from torch.nn import functional as F

BLOCK = 96
"""Side of a block in pixels, at the first of the two scales."""
SHARPEST = 0.75
"""Blocks of a pristine picture count whose sharpness is more than this share of its sharpest block's."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbors (down, right) whose products of coefficients are described."""

Array = NDArray[np.float64]

_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def niqe(x: torch.Tensor) -> torch.Tensor:
    """NIQE (N,) of images (N, 3, H, W) in [0, 1]: 3 for good photographs, about 10 for poor ones.

    Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3), 2013: the
    distance sqrt((m - n)' ((C + D) / 2)^-1 (m - n)) of the means m, n and covariances C, D of 36 features of the
    blocks of this image and of pristine photographs. The authors' statistics are not ours to ship. Ours, in
    `niqe_statistics.npz`, are fitted by `fit` on crops of the photographs that ship in our dependencies, so values
    differ from those of the authors' release: on 40 photographs of BIQ2021 they are 1.3 times as large on average, and
    the two correlate by 0.92 (0.86 by rank). An image smaller than a block is one block.
    """
    mean, covariance = _statistics()
    values = []
    for image in x.detach():
        features, _ = block_features(luma(image))
        features = features[np.isfinite(features).all(axis=1)]
        if len(features) == 0:  # a flat image has no statistics to compare
            values.append(np.inf)
            continue
        difference = mean - features.mean(axis=0)
        spread = np.cov(features, rowvar=False) if len(features) > 1 else np.zeros_like(covariance)
        values.append(float(np.sqrt(difference @ np.linalg.pinv((covariance + spread) / 2) @ difference)))
    return torch.tensor(values, dtype=torch.float32, device=x.device)


def fit(images: Iterable[torch.Tensor]) -> tuple[Array, Array]:
    """Mean (36,) and covariance (36, 36) of the features of the sharp blocks of pristine images (3, H, W).

    The images are few, so each counts four times: as it is, mirrored, and both transposed.
    """
    kept = []
    for image in images:
        for version in (image, image.flip(2), image.transpose(1, 2), image.flip(2).transpose(1, 2)):
            features, sharpness = block_features(luma(version))
            kept.append(features[sharpness > SHARPEST * sharpness.max()])
    rows = np.concatenate(kept)
    rows = rows[np.isfinite(rows).all(axis=1)]
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


def luma(image: torch.Tensor) -> Array:
    """(H, W) in 0..255 of an image (3, H, W) in [0, 1], in whole levels."""
    weights = image.new_tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
    gray = (255 * image.double() * weights.view(3, 1, 1)).sum(dim=0)
    return torch.round(gray).cpu().numpy()


def block_features(gray: Array) -> tuple[Array, Array]:
    """Features (B, 36), 18 per scale, and sharpness (B,) of the blocks of a gray image (H, W) in 0..255."""
    height, width = (min(BLOCK, side - side % 2) for side in gray.shape)
    down, right = gray.shape[0] // height, gray.shape[1] // width
    gray = gray[: down * height, : right * width]
    features: list[Array] = []
    sharpness = np.zeros(0)
    for scale in (1, 2):
        normalized, deviation = normalize(gray)
        blocks = _blocks(normalized, height // scale, width // scale)
        features.append(np.stack([describe(block) for block in blocks]))
        if scale == 1:
            sharpness = _blocks(deviation, height, width).mean(axis=(1, 2))
            gray = _halve(gray)
    return np.concatenate(features, axis=1), sharpness


def normalize(gray: Array) -> tuple[Array, Array]:
    """Mean-subtracted, contrast-normalized coefficients (equation 1) and local deviations, under a Gaussian window.

    The window has 7 x 7 pixels and a standard deviation of 7/6.
    """
    line = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    line /= line.sum()

    def blur(values: Array) -> Array:
        return correlate1d(correlate1d(values, line, axis=0, mode="nearest"), line, axis=1, mode="nearest")

    mean = blur(gray)
    deviation = np.sqrt(np.abs(blur(gray**2) - mean**2))
    return (gray - mean) / (deviation + 1), deviation


def describe(block: Array) -> Array:
    """The 18 features of a block of coefficients at one scale; not a number where the block is flat.

    Shape and mean scale of its distribution, then shape, mean and both scales of that of the products with each of
    four neighbors; all by asymmetric generalized Gaussians (equations 4 to 8). Neighbors wrap around at the edges.
    """
    shape, left, right = asymmetric_gaussian(block)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.array(features)


def asymmetric_gaussian(values: Array) -> tuple[float, float, float]:
    """Shape, left and right scale by matching moments (Lasmar, Stitou and Berthoumieu, ICIP 2009)."""
    negative, positive = values[values < 0], values[values > 0]
    if negative.size == 0 or positive.size == 0:
        return np.nan, np.nan, np.nan
    left, right = np.sqrt((negative**2).mean()), np.sqrt((positive**2).mean())
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / (values**2).mean()
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[np.argmin((_RATIOS - ratio) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * scale), float(right * scale)


def _blocks(values: Array, height: int, width: int) -> Array:
    """(B, height, width) of an image that they fill."""
    down, right = values.shape[0] // height, values.shape[1] // width
    return values.reshape(down, height, right, width).swapaxes(1, 2).reshape(-1, height, width)


def _halve(gray: Array) -> Array:
    """Half the height and width, by bicubic interpolation with antialiasing."""
    image = torch.from_numpy(gray)[None, None]
    return F.interpolate(image, scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)[0, 0].numpy()


@lru_cache(maxsize=1)
def _statistics() -> tuple[Array, Array]:
    with files(__package__).joinpath("niqe_statistics.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return stored["mean"], stored["covariance"]
