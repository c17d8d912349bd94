"""Explanations drawn by hand: values are known, and nothing needs torch."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from PIL import Image

from iqa_robust.records import CHANNEL_COLUMNS, MAP_COLUMNS, PICTURE_COLUMNS, Explanations

MAPS = {"clean": [[0, 255], [0, 0]], "attacked": [[0, 0], [255, 0]]}
"""Levels of the causal maps: they do not meet, so their correlation is -1/3."""
PEAKS = {"clean": 2.0, "attacked": 1.0}


def explanations(
    importance: dict[str, list[list[float]]], layer: str = "gates.0", ids: tuple[str, ...] = ("a", "b")
) -> Explanations:
    """Explanations with these importances by state, one list per image of `ids`."""
    pictures, channels, maps = [], [], []
    for state, by_image in importance.items():
        for image_id, values in zip(ids, by_image, strict=True):
            pictures.append((image_id, state, 0.75 if state == "clean" else 0.25, jpeg(40, 20)))
            ranks = np.argsort(np.argsort(-np.array(values), kind="stable"), kind="stable") + 1
            channels += [
                (image_id, state, layer, channel, 1 / (channel + 1), ranks[channel], value)
                for channel, value in enumerate(values)
            ]
            maps.append((image_id, state, layer, "causal", PEAKS[state], png(MAPS[state])))
            maps.append((image_id, state, layer, "non-causal", 0.0, png([[0, 0], [0, 0]])))
    return Explanations(
        pd.DataFrame(pictures, columns=list(PICTURE_COLUMNS)),
        pd.DataFrame(channels, columns=list(CHANNEL_COLUMNS)),
        pd.DataFrame(maps, columns=list(MAP_COLUMNS)),
    )


def jpeg(width: int, height: int) -> bytes:
    """A gray picture."""
    return _encoded(Image.new("RGB", (width, height), (128, 128, 128)), "JPEG")


def png(values: list[list[int]]) -> bytes:
    """A gray PNG of these levels."""
    return _encoded(Image.fromarray(np.array(values, dtype=np.uint8)), "PNG")


def _encoded(image: Image.Image, name: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name)
    return buffer.getvalue()
