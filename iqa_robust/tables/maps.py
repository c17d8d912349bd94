"""Maps of records as pictures for a page: a gray PNG becomes a translucent layer of one hue."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from iqa_robust.errors import RecordError

HUES = {"causal": ((200, 30, 0), (255, 225, 90)), "non-causal": ((0, 60, 190), (140, 240, 255))}
"""Colors of small and of large values."""
OPACITY = 0.9
"""Of the largest value; nothing of the smallest is seen."""


def picture_uri(content: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height of a JPEG in pixels. Raises `RecordError` when its head cannot be read."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise RecordError(f"explanations: a picture cannot be read ({error}).") from error


def map_uri(content: bytes, kind: str, share: float) -> str:
    """A map as a data URI, to be laid over its picture.

    Args:
        content: gray PNG.
        kind: decides the hue.
        share: the value of level 255 on the scale that several maps share, in [0, 1].
    """
    values = np.round(levels(content) * share).astype(np.uint8)
    image = Image.fromarray(values).convert("P")
    ramp = np.linspace(0, 1, 256)[:, None]
    low, high = (np.array(color, dtype=float) for color in HUES[kind])
    image.putpalette(np.round((1 - ramp) * low + ramp * high).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    # the square root lets middling values be seen
    opacity = np.round(255 * OPACITY * np.sqrt(ramp[:, 0])).astype(np.uint8).tobytes()
    image.save(buffer, "PNG", transparency=opacity, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def levels(content: bytes) -> np.ndarray:
    """Levels 0 to 255 (H, W) of a gray PNG, as float. Raises `RecordError` when it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image, dtype=float)
    except (OSError, SyntaxError, ValueError) as error:
        raise RecordError(f"explanations: a map cannot be decoded ({error}).") from error
