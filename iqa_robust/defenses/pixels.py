"""What several purifiers do with pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from iqa_robust.images import from_uint8, to_uint8


def clamp_value(y: torch.Tensor) -> torch.Tensor:
    """`y` clamped to [0, 1], with the slope of `y`.

    For values that only rounding or noise carries out of the range: the slope of a clamp is zero there, and an
    attacker would lose the white and black regions of an image.
    """
    return y.detach().clamp(0, 1) + (y - y.detach())


def map_uint8(x: torch.Tensor, function: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """Each image of (N, 3, H, W), rounded to uint8 (H, W, 3), through `function`; float32 on the device of `x`."""
    images = to_uint8(x.detach()).permute(0, 2, 3, 1).cpu().numpy()
    mapped = [torch.from_numpy(np.array(function(image))).permute(2, 0, 1) for image in images]
    return from_uint8(torch.stack(mapped)).to(x.device)
