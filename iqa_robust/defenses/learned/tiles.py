"""A network on a large image: overlapping tiles whose results are blended, instead of a resize."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F


def tiled(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, tile: int, overlap: int, multiple: int
) -> torch.Tensor:
    """`network(x)` computed on tiles of equal sides, as few and as small as cover the image, and blended.

    In the overlap of two tiles the weights rise and fall linearly and add up to one, so a network that looks at single
    pixels gives exactly what it gives on the whole image, up to rounding. An image that fits into a tile is one tile.

    Args:
        network: (N, 3, h, w) -> same shape, for sides that are multiples of `multiple`.
        x: (N, 3, H, W), any size; sides are filled up to multiples with copies of the outermost pixels, and cut again.
        tile: largest side of a tile in pixels, a multiple of `multiple`.
        overlap: least overlap of neighboring tiles in pixels, less than `tile`; rounded up to a multiple.
        multiple: what the sides of a tile must be multiples of.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    overlap += -overlap % multiple
    rows, columns = (spans(length, tile, overlap, multiple) for length in padded.shape[-2:])
    if len(rows) == len(columns) == 1:
        return network(padded)[..., :height, :width]
    window = _ramp(rows[0], overlap)[:, None] * _ramp(columns[0], overlap)
    window = window.to(x)
    blended, weight = torch.zeros_like(padded), torch.zeros_like(padded[:1, :1])
    for row in rows:
        for column in columns:
            weight[..., row, column] += window
    for row in rows:
        for column in columns:
            share = window / weight[..., row, column]
            blended[..., row, column] = blended[..., row, column] + share * network(padded[..., row, column])
    return blended[..., :height, :width]


def spans(length: int, tile: int, overlap: int, multiple: int) -> list[slice]:
    """Where the tiles of one axis lie; `length`, `tile` and `overlap` are multiples of `multiple`."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    side = -(-(length + (count - 1) * overlap) // count)
    side += -side % multiple
    starts = [(length - side) * k // (count - 1) // multiple * multiple for k in range(count)]
    return [slice(start, start + side) for start in starts]


def _ramp(span: slice, overlap: int) -> torch.Tensor:
    """Weights along a tile: rising over the overlap, flat, falling; never zero."""
    place = torch.arange(span.stop - span.start)
    return torch.minimum(place + 1, place.flip(0) + 1).clamp(max=max(1, overlap)) / max(1, overlap)
