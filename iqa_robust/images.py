"""The image convention: float32 tensors (N, 3, H, W), RGB, [0, 1]; what is scored lies on the 8-bit grid."""

from __future__ import annotations

import torch

from iqa_robust.errors import ContractError

LEVELS = 255
"""Steps of the 8-bit grid between 0 and 1."""


def check_images(x: torch.Tensor, what: str = "images") -> None:
    """Raise `ContractError` unless `x` is float32 (N, 3, H, W) with finite values in [0, 1]."""
    if not isinstance(x, torch.Tensor):
        raise ContractError(f"{what}: expected a float32 tensor (N, 3, H, W), got {type(x).__name__}.")
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape:
        raise ContractError(f"{what}: expected shape (N, 3, H, W) with N, H, W >= 1, got {tuple(x.shape)}.")
    if x.dtype != torch.float32:
        raise ContractError(f"{what}: expected dtype float32, got {x.dtype}; convert with `.float()`.")
    low, high = torch.aminmax(x.detach())
    if not (bool(torch.isfinite(low)) and bool(torch.isfinite(high))):
        raise ContractError(f"{what}: expected finite values, got NaN or infinity.")
    if low < 0 or high > 1:
        raise ContractError(
            f"{what}: expected values in [0, 1], got [{low.item():.4g}, {high.item():.4g}]; divide 8-bit values by 255."
        )


def check_pair(x: torch.Tensor, ref: torch.Tensor) -> None:
    """Raise `ContractError` unless `ref` is an image batch of the same shape as `x`."""
    check_images(ref, "ref")
    if ref.shape != x.shape:
        raise ContractError(f"ref: expected the shape of the images {tuple(x.shape)}, got {tuple(ref.shape)}.")


def to_8bit_grid(x: torch.Tensor) -> torch.Tensor:
    """Round [0, 1] values to the nearest multiple of 1/255. Truncation would shift an image by half a level."""
    return torch.round(x.clamp(0, 1) * LEVELS) / LEVELS


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """[0, 1] floats to uint8 by rounding, same shape."""
    return torch.round(x.clamp(0, 1) * LEVELS).to(torch.uint8)


def from_uint8(x: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32 in [0, 1], exactly value / 255."""
    return x.to(torch.float32) / LEVELS


def on_8bit_grid(x: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N,) bool: whether each image lies on the grid.

    The tolerance of 1e-3 levels covers float32 rounding of k/255 and nothing else.
    """
    levels = x.detach() * LEVELS
    return levels.sub_(torch.round(levels)).abs_().flatten(1).amax(dim=1) <= 1e-3
