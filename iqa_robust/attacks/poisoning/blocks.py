"""Patterns made of DCT coefficients, the same in every block of an image.

The transform is linear and so is the change of color space: adding the same coefficients to every block of an image is
adding one tile to it again and again. No image needs to be transformed.
"""

from __future__ import annotations

import math

import torch

RGB_FROM_YCBCR = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
"""Full-range YCbCr of JPEG (ITU-T T.871), without its offsets, which a difference does not see."""


def zigzag(size: int) -> list[int]:
    """Indices row * size + column of a block's coefficients, from the lowest rank to the highest, as JPEG counts."""

    def rank(index: int) -> tuple[int, int]:
        row, column = divmod(index, size)
        return row + column, row if (row + column) % 2 else column

    return sorted(range(size * size), key=rank)


def tile_of(coefficients: torch.Tensor) -> torch.Tensor:
    """One block of a pattern in RGB, fractions of full scale.

    Args:
        coefficients: (3, n, n) of Y, Cb and Cr in the units of the unnormalized DCT-II of gray levels, which is
            4 sum_ij x_ij cos(pi u (2i + 1) / 2n) cos(pi v (2j + 1) / 2n).

    Returns:
        (3, n, n), differentiable in the coefficients.
    """
    size = coefficients.shape[-1]
    points = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / (2 * size) * torch.outer(2 * points + 1, points)) / size
    basis[:, 0] /= 2
    inverse = basis.to(coefficients)
    blocks = inverse @ coefficients @ inverse.T
    return torch.einsum("cd,dij->cij", coefficients.new_tensor(RGB_FROM_YCBCR), blocks) / 255


def tiled(tile: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A tile (3, h, w) repeated over (3, height, width), with the whole tiles in the middle.

    As if the image had been padded evenly to whole tiles: the odd pixel is missing at the bottom and on the right.
    """
    rows, columns = tile.shape[1:]
    down = (torch.arange(height, device=tile.device) + (-height % rows) // 2) % rows
    right = (torch.arange(width, device=tile.device) + (-width % columns) // 2) % columns
    return tile[:, down][:, :, right]
