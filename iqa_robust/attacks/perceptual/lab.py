"""CIELAB (D65, 2 degrees) and back, differentiable; constants of sRGB (IEC 61966-2-1) as in scikit-image."""

from __future__ import annotations

import torch

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
_LINEAR_BELOW = 0.04045
_CUBE_BELOW = 0.008856
_SLOPE, _OFFSET = 7.787, 16 / 116


def to_lab(x: torch.Tensor) -> torch.Tensor:
    """RGB (N, 3, H, W) in [0, 1] to L in [0, 100] and a, b in about [-128, 127]."""
    linear = torch.where(x > _LINEAR_BELOW, ((x.clamp_min(_LINEAR_BELOW) + 0.055) / 1.055) ** 2.4, x / 12.92)
    ratio = _mix(linear, _matrix(x)) / _white(x)
    f = torch.where(ratio > _CUBE_BELOW, ratio.clamp_min(_CUBE_BELOW) ** (1 / 3), _SLOPE * ratio + _OFFSET)
    fx, fy, fz = f.unbind(dim=1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)


def to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """L, a, b (N, 3, H, W) to RGB, which is not clamped: colors outside of sRGB lie outside of [0, 1]."""
    fy = (lab[:, 0] + 16) / 116
    f = torch.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], dim=1)
    bend = _CUBE_BELOW ** (1 / 3)
    ratio = torch.where(f > bend, f**3, (f - _OFFSET) / _SLOPE)
    linear = _mix(ratio * _white(lab), torch.linalg.inv(_matrix(lab)))
    bend = ((_LINEAR_BELOW + 0.055) / 1.055) ** 2.4
    return torch.where(linear > bend, 1.055 * linear.clamp_min(bend) ** (1 / 2.4) - 0.055, 12.92 * linear)


def _mix(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.stack([sum(matrix[i, j] * x[:, j] for j in range(3)) for i in range(3)], dim=1)  # type: ignore[arg-type, misc]


def _matrix(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_TO_XYZ, dtype=x.dtype, device=x.device)


def _white(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_WHITE, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
