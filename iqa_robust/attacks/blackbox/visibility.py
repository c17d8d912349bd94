"""Where changes of an image are hard to see: just noticeable differences, edges, and what draws the eye."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

LUMA = (0.299, 0.587, 0.114)

CANNY = (50 / 255, 150 / 255)
"""Thresholds of the edges' gradients, as fractions of full scale."""


def just_noticeable(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) just noticeable differences of images (N, 3, H, W), as fractions of full scale.

    Liu, Lin, Zhang, Zhang, TCSVT 2010, as released code simplifies it: luminance adaptation L and contrast masking C,
    L + C - 0.3 min(L, C), of the gray image. C is the range of gray levels in 5 x 5 pixels, 0.117 times that of the
    edge image and 0.351 times that of the image itself.
    """
    maps = []
    for image in x:
        gray, edges = _gray_and_edges(image)
        dark = 17 * (1 - np.sqrt(gray / 127)) + 3
        luminance = np.where(gray <= 127, dark, 3 * (gray - 127) / 128 + 3)
        contrast = 0.117 * _local_range(255.0 * edges) + 0.351 * _local_range(gray)
        maps.append(luminance + contrast - 0.3 * np.minimum(luminance, contrast))
    return _as_maps(maps, x) / 255


def busy_or_salient(x: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) bool: pixels next to edges, and salient ones; all of them where an image has neither.

    Salient is where the spectral residual (Hou, Zhang, CVPR 2007) of the gray image, at a width of 64, reaches 0.225
    of its largest value.
    """
    masks = []
    for image in x:
        gray, edges = _gray_and_edges(image)
        mask = ndimage.binary_dilation(edges, np.ones((3, 3))) | (_spectral_residual(gray) > 0.225)
        masks.append(mask if mask.any() else np.ones_like(mask))
    return _as_maps(masks, x) > 0


def _gray_and_edges(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) gray levels and edges (bool) of an image (3, H, W)."""
    from skimage.feature import canny

    red, green, blue = image.detach().double().cpu().numpy()
    gray = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    edges = canny(gray, sigma=0.5, low_threshold=CANNY[0], high_threshold=CANNY[1])
    return np.round(255 * gray), edges


def _local_range(values: np.ndarray) -> np.ndarray:
    return ndimage.maximum_filter(values, 5, mode="nearest") - ndimage.minimum_filter(values, 5, mode="nearest")


def _spectral_residual(gray: np.ndarray) -> np.ndarray:
    """(H, W) saliency in [0, 1]."""
    shape = [max(round(64 * side / gray.shape[1]), 1) for side in gray.shape]
    small = _resized(gray, shape)
    spectrum = np.fft.fft2(small)
    amplitude = np.log1p(np.abs(spectrum))  # a frequency that is not there must not count
    residual = amplitude - ndimage.uniform_filter(amplitude, 3, mode="wrap")
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    saliency = _resized(ndimage.gaussian_filter(saliency, 2.5), gray.shape)
    return saliency / max(saliency.max(), 1e-12)


def _resized(values: np.ndarray, shape: tuple[int, ...] | list[int]) -> np.ndarray:
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=tuple(shape), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0, 0].numpy()


def _as_maps(maps: list[np.ndarray], x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack(maps)).to(x).unsqueeze(1)
