"""Image files to 8-bit RGB: what is accepted, what is refused, and the only resizing and cropping there is.

Accepted are 8-bit BMP, JPEG, PNG and WebP in RGB, palette or grayscale (repeated on three channels). An
alpha channel is dropped where it is opaque everywhere and refused otherwise, because what the raters saw
then depended on a background nobody recorded. Refused, never converted in silence: more than 8 bits, CMYK
and other color models, animations, and more than `MAX_PIXELS` pixels. Color profiles are ignored, as the
authors' own tools did. A phone's multi-picture JPEG counts as its first picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from iqa_robust.errors import DataError

MAX_PIXELS = 64 * 2**20
"""Largest image that is decoded, before and after resizing; checked on the header, before any pixel."""

FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""What Pillow may try; a name's ending says nothing."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Values of the orientation tag that swap height and width."""

_COLOR_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "PA", "RGBA")


def fitted_size(size: tuple[int, int], resize: int | None, crop: int | None) -> tuple[int, int]:
    """(H, W) after scaling the short side to `resize` and taking the central square of side `crop`."""
    height, width = _resized(size, resize)
    return (height, width) if crop is None else (crop, crop)


def header_size(path: Path, exif_orientation: bool, resize: int | None, crop: int | None) -> tuple[int, int]:
    """(H, W) of what `read_rgb` gives, from the header alone.

    Raises:
        DataError: as `read_rgb`, as far as the header tells.
    """
    with _opened(path) as image:
        return fitted_size(_checked_size(path, image, exif_orientation, resize, crop), resize, crop)


def read_rgb(path: Path, exif_orientation: bool, resize: int | None, crop: int | None) -> NDArray[np.uint8]:
    """Decode `path` to uint8 (H, W, 3), RGB.

    Args:
        path: a file in one of `FORMATS`.
        exif_orientation: turn the image as its EXIF tag says.
        resize: short side in pixels, Pillow's antialiased bicubic, or None.
        crop: side of a central square taken after resizing, or None.

    Raises:
        DataError: the file is missing, broken, cut short, too large, of a refused kind, or smaller than
            `crop`.
    """
    with _opened(path) as image:
        full = _checked_size(path, image, exif_orientation, resize, crop)
        rgb = _to_rgb(path, ImageOps.exif_transpose(image) if exif_orientation else image)
        height, width = _resized(full, resize)
        if resize is not None:
            rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.array(rgb, dtype=np.uint8)
    if crop is not None:
        top, left = (height - crop) // 2, (width - crop) // 2
        pixels = pixels[top : top + crop, left : left + crop]
    return pixels


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow reports broken files by many exception types; all of them mean the same to the caller."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: the image file is missing; restore it or list the dataset again.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: has far more than the {MAX_PIXELS} pixels allowed; leave it out.") from error
    except Exception as error:
        raise DataError(
            f"{path}: expected a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file,"
            f" got one that cannot be read ({type(error).__name__}: {error}); fetch it again."
        ) from error


def _checked_size(
    path: Path, image: Image.Image, exif_orientation: bool, resize: int | None, crop: int | None
) -> tuple[int, int]:
    """(H, W) as seen, after every check the header allows."""
    width, height = image.size
    if exif_orientation and image.getexif().get(_ORIENTATION) in _TURNED:
        width, height = height, width
    size = (height, width)
    final_height, final_width = _resized(size, resize)
    if max(height * width, final_height * final_width) > MAX_PIXELS:
        raise DataError(
            f"{path}: {width}x{height} pixels (resized: {final_width}x{final_height}) exceed the {MAX_PIXELS}"
            " allowed; leave it out or store it smaller."
        )
    if crop is not None and min(final_height, final_width) < crop:
        raise DataError(
            f"{path}: {final_width}x{final_height} pixels are too few for crop={crop};"
            " choose a smaller crop or a resize."
        )
    if image.mode not in _COLOR_MODES + _ALPHA_MODES or _deep(image):
        raise DataError(
            f"{path}: expected 8 bits per channel in RGB or grayscale, got mode {image.mode}"
            f"{' from 16 bits' if _deep(image) else ''};"
            " convert it the way the study showed it."
        )
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise DataError(f"{path}: expected one image, got an animation; store the frame that was rated.")
    return size


def _deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits per channel, which Pillow may show as an 8-bit mode (a PNG in RGB)."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        low, _ = image.getchannel("A").getextrema()
        if low != 255:
            raise DataError(f"{path}: expected opaque pixels, got transparency; put it on the study's background.")
    return image.convert("RGB")


def _resized(size: tuple[int, int], resize: int | None) -> tuple[int, int]:
    if resize is None:
        return size
    height, width = size
    if height <= width:
        return resize, int(width * resize / height + 0.5)
    return int(height * resize / width + 0.5), resize
