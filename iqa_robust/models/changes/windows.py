"""Rectangles in images and maps, cut out and written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Windows(NamedTuple):
    """Rectangles of one size in maps or images, one in each."""

    top: Sequence[int]
    left: Sequence[int]
    height: int
    width: int

    def cover(self, maps: torch.Tensor) -> bool:
        """Whether they are as large as the maps (N, C, H, W)."""
        return (self.height, self.width) == tuple(maps.shape[-2:])


def covering(maps: torch.Tensor) -> Windows:
    """Windows that cover maps (N, C, H, W)."""
    return Windows([0] * len(maps), [0] * len(maps), *maps.shape[-2:])


def hull(parts: Sequence[Windows], height: int, width: int) -> Windows:
    """The smallest windows inside maps of a size that hold those of each part, map by map."""
    top, rows = _spans([part.top for part in parts], [part.height for part in parts], height)
    left, columns = _spans([part.left for part in parts], [part.width for part in parts], width)
    return Windows(top, left, rows, columns)


def _spans(starts: Sequence[Sequence[int]], lengths: Sequence[int], size: int) -> tuple[list[int], int]:
    first = [min(row) for row in zip(*starts, strict=True)]
    ends = [max(a + length for a, length in zip(row, lengths, strict=True)) for row in zip(*starts, strict=True)]
    length = max(end - start for start, end in zip(first, ends, strict=True))
    return [min(start, size - length) for start in first], length


def cut(maps: torch.Tensor, windows: Windows, rows: Sequence[int] | None = None) -> torch.Tensor:
    """The contents (n, C, height, width) of the windows of maps (N, C, H, W), channels last: of all or of some rows.

    Where windows cover the maps, the maps themselves. Slice by slice: on a CPU that takes a fraction of gathering by
    indices.
    """
    if windows.cover(maps):
        return maps if rows is None else maps[rows]
    chosen = range(len(maps)) if rows is None else rows
    pieces = _empty(maps, len(chosen), windows.height, windows.width)
    for piece, row in zip(pieces.unbind(), chosen, strict=True):
        piece.copy_(part_of(maps, windows, row))
    return pieces


def paste(maps: torch.Tensor, windows: Windows, pieces: torch.Tensor, rows: Sequence[int] | None = None) -> None:
    """Write pieces (n, C, height, width) into the windows of maps (N, C, H, W), in place: of all or of some rows."""
    for place, row in enumerate(range(len(maps)) if rows is None else rows):
        part_of(maps, windows, row).copy_(pieces[place])


def part_of(maps: torch.Tensor, windows: Windows, row: int) -> torch.Tensor:
    """The contents (C, height, width) of one window, as a view."""
    return _part(maps, row, windows.top[row], windows.left[row], windows.height, windows.width)


def laid_out(pieces: torch.Tensor, top: Sequence[int], left: Sequence[int], height: int, width: int) -> torch.Tensor:
    """Maps (N, C, height, width) of zeros, but for pieces (N, C, h, w) at these places; what lies outside is left out.

    The pieces themselves, where they are such maps.
    """
    high, wide = pieces.shape[-2:]
    if (high, wide) == (height, width) and not any(top) and not any(left):
        return pieces
    maps = _empty(pieces, len(pieces), height, width).zero_()
    for row, (y, x) in enumerate(zip(top, left, strict=True)):
        rows, columns = min(y + high, height) - max(y, 0), min(x + wide, width) - max(x, 0)
        if rows > 0 and columns > 0:
            part = _part(pieces, row, max(-y, 0), max(-x, 0), rows, columns)
            _part(maps, row, max(y, 0), max(x, 0), rows, columns).copy_(part)
    return maps


def placed(pieces: torch.Tensor, own: Windows, windows: Windows) -> torch.Tensor:
    """Contents (N, C, height, width) of windows in maps of zeros, but for pieces in windows of their `own`."""
    top, left = (
        [a - b for a, b in zip(*pair, strict=True)] for pair in ((own.top, windows.top), (own.left, windows.left))
    )
    return laid_out(pieces, top, left, windows.height, windows.width)


def _empty(like: torch.Tensor, count: int, height: int, width: int) -> torch.Tensor:
    shape = (count, like.shape[1], height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _part(maps: torch.Tensor, row: int, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """A view (C, height, width) of a map; one call instead of four, which would cost as much as the copy."""
    of_map, *strides = maps.stride()
    start = maps.storage_offset() + row * of_map + top * strides[1] + left * strides[2]
    return maps.as_strided((maps.shape[1], height, width), strides, start)
