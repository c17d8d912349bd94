"""A seeded bank of distortions: 19 types, 5 levels each, from barely visible to severe.

Every function takes one picture and knows nothing about where it comes from, so the bank serves any pristine
picture. The types follow the families of TID2013 (Ponomarenko et al., 2015) and KADID-10k (Lin et al., 2019):
compression, blur, noise, resolution, tone, color, and spatial loss; the strengths are our own.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal
from skimage import color, draw, morphology, util

from iqa_robust.errors import ContractError, UnknownNameError

BICUBIC, BOX, NEAREST = Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.NEAREST

Picture = NDArray[np.uint8]
"""One 8-bit RGB picture (H, W, 3)."""

Distortion = Callable[[Picture, int, np.random.Generator], Picture]
"""`(image, level, rng) -> image`: same shape, uint8 in and out, level 1 (barely visible) to 5 (severe)."""

LEVELS = (1, 2, 3, 4, 5)
"""The levels every type offers."""

BANK_VERSION = 1
"""Raised whenever a type, a strength or the seeding changes: labels of another version do not apply."""


def stable_seed(*parts: object) -> int:
    """A 64-bit seed from the parts' text: the same on every machine and in every process, unlike `hash`."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def distort(image: Picture, name: str, level: int, seed: int) -> Picture:
    """Distort one picture.

    Args:
        image: uint8 (H, W, 3), RGB.
        name: a key of `DISTORTIONS`.
        level: 1 (barely visible) to 5 (severe).
        seed: identifies the content; type and level are mixed in, so no two distortions share their noise.

    Returns:
        A new uint8 array of the same shape; the same arguments always give the same array.

    Raises:
        UnknownNameError: `name` is not in the bank.
        ContractError: the level or the picture is not as stated.
    """
    if name not in DISTORTIONS:
        raise UnknownNameError(f"no distortion named {name!r}; the bank has {', '.join(DISTORTIONS)}.")
    if level not in LEVELS:
        raise ContractError(f"distortion {name!r}: expected a level from 1 to 5, got {level!r}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ContractError(
            f"distortion {name!r}: expected a uint8 picture (H, W, 3), got {image.dtype} {image.shape}."
        )
    return DISTORTIONS[name](image, level, np.random.default_rng(stable_seed(seed, name, level)))


def jpeg(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """JPEG compression (Pillow's default chroma subsampling)."""
    return _through_codec(image, "JPEG", quality=(70, 35, 18, 10, 5)[level - 1])


def jpeg2000(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """JPEG 2000 compression at a fixed ratio of raw to coded size."""
    rate = (12, 30, 60, 110, 200)[level - 1]
    return _through_codec(image, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[rate])


def gaussian_blur(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Gaussian blur, sigma in pixels."""
    sigma = (0.6, 1.1, 1.8, 3.0, 5.0)[level - 1]
    return _to_uint8(ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="nearest"))


def motion_blur(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Blur along a straight line in a random direction, as of a moving camera."""
    reach = (1, 3, 5, 9, 15)[level - 1]
    angle = rng.uniform(0, np.pi)
    rows, columns = round(reach * np.sin(angle)), round(reach * np.cos(angle))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    r, c, weight = draw.line_aa(reach - rows, reach - columns, reach + rows, reach + columns)
    kernel[r, c] = weight
    return _convolve(image, kernel)


def defocus_blur(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Blur with a disk, as of a lens out of focus."""
    return _convolve(image, morphology.disk((1, 2, 3, 5, 8)[level - 1]).astype(np.float64))


def resampling(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Bicubic reduction and bicubic enlargement back to size."""
    return _shrink_and_grow(image, (1.5, 2.2, 3.2, 5.0, 8.0)[level - 1], BICUBIC, BICUBIC)


def pixelation(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Reduction by averaging and enlargement by repetition: visible square pixels."""
    return _shrink_and_grow(image, (2, 3, 4, 6, 10)[level - 1], BOX, NEAREST)


def gaussian_noise(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """White Gaussian noise, independent per pixel and channel."""
    sigma = (3, 7, 14, 26, 45)[level - 1]
    return _to_uint8(image + rng.normal(0, sigma, image.shape))


def chroma_noise(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """White Gaussian noise in the two chroma channels of YCbCr."""
    ycbcr = color.rgb2ycbcr(image)
    ycbcr[..., 1:] += rng.normal(0, (5, 11, 20, 35, 60)[level - 1], (*image.shape[:2], 2))
    return _to_uint8(255 * color.ycbcr2rgb(ycbcr))


def impulse_noise(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Salt and pepper: a share of the samples becomes 0 or 255."""
    amount = (0.002, 0.008, 0.025, 0.07, 0.2)[level - 1]
    return _to_uint8(255 * util.random_noise(image, mode="s&p", rng=rng, amount=amount))


def speckle_noise(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Multiplicative Gaussian noise: stronger where the picture is brighter."""
    sigma = (0.03, 0.08, 0.16, 0.3, 0.6)[level - 1]
    return _to_uint8(255 * util.random_noise(image, mode="speckle", rng=rng, var=sigma**2))


def contrast_loss(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Values drawn toward the picture's mean."""
    mean = image.mean()
    return _to_uint8(mean + (image - mean) * (0.85, 0.65, 0.45, 0.28, 0.14)[level - 1])


def overexposure(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A gain and a lift above one: highlights clip, shadows fade."""
    strength = (0.1, 0.25, 0.5, 0.9, 1.5)[level - 1]
    return _to_uint8(image * (1 + strength) + 40 * strength)


def underexposure(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A gain below one: the dark values merge."""
    return _to_uint8(image * (0.85, 0.6, 0.38, 0.2, 0.08)[level - 1])


def desaturation(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Colors drawn toward gray of the same luma; leaves a gray picture as it is."""
    luma = 255 * color.rgb2gray(image)[..., None]
    return _to_uint8(luma + (image - luma) * (0.8, 0.6, 0.4, 0.2, 0.0)[level - 1])


def color_cast(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A constant shift of the chroma in a random direction, as of a wrong white balance."""
    angle = rng.uniform(0, 2 * np.pi)
    ycbcr = color.rgb2ycbcr(image)
    ycbcr[..., 1:] += (5, 11, 20, 34, 55)[level - 1] * np.array([np.cos(angle), np.sin(angle)])
    return _to_uint8(255 * color.ycbcr2rgb(ycbcr))


def banding(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Few values per channel: smooth ramps turn into steps."""
    steps = (32, 16, 9, 5, 3)[level - 1] - 1
    return _to_uint8(np.round(image / 255 * steps) / steps * 255)


def block_loss(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A share of the 16 x 16 blocks is lost and shown in middle gray, as by a broken transmission."""
    side = 16
    rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
    lost = max(1, round((0.01, 0.03, 0.08, 0.16, 0.32)[level - 1] * rows * columns))
    out = image.copy()
    for block in rng.choice(rows * columns, size=lost, replace=False):
        top, left = side * (block // columns), side * (block % columns)
        out[top : top + side, left : left + side] = 128
    return out


def oversharpening(image: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Unsharp masking far beyond need: halos and amplified grain."""
    values = image.astype(np.float64)
    smooth = ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="nearest")
    return _to_uint8(values + (0.6, 1.5, 3.0, 6.0, 14.0)[level - 1] * (values - smooth))


DISTORTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        "jpeg": jpeg,
        "jpeg2000": jpeg2000,
        "gaussian-blur": gaussian_blur,
        "motion-blur": motion_blur,
        "defocus-blur": defocus_blur,
        "resampling": resampling,
        "pixelation": pixelation,
        "gaussian-noise": gaussian_noise,
        "chroma-noise": chroma_noise,
        "impulse-noise": impulse_noise,
        "speckle-noise": speckle_noise,
        "contrast-loss": contrast_loss,
        "overexposure": overexposure,
        "underexposure": underexposure,
        "desaturation": desaturation,
        "color-cast": color_cast,
        "banding": banding,
        "block-loss": block_loss,
        "oversharpening": oversharpening,
    }
)
"""The bank: every type by its name."""


def _to_uint8(values: NDArray[np.floating]) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _convolve(image: Picture, kernel: NDArray[np.float64]) -> Picture:
    """Convolve each channel with an odd-sized kernel, normalized to sum 1, with the edges repeated."""
    half_rows, half_columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image.astype(np.float64), ((half_rows,) * 2, (half_columns,) * 2, (0, 0)), mode="edge")
    return _to_uint8(signal.fftconvolve(padded, kernel[..., None] / kernel.sum(), mode="valid", axes=(0, 1)))


def _through_codec(image: Picture, codec: str, **options: Any) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, codec, **options)
    with Image.open(buffer) as decoded:
        return np.array(decoded.convert("RGB"))


def _shrink_and_grow(image: Picture, factor: float, down: Image.Resampling, up: Image.Resampling) -> Picture:
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return np.array(Image.fromarray(image).resize(small, down).resize((width, height), up))
