"""The trigger of WaNet: a small smooth warp."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.poisoning.trigger import PatternTrigger

CONTROL_POINTS = 4
"""Per side of the grid of displacements, as in the released code (k)."""


class WaNet(PatternTrigger):
    """Moves the pixels by a smooth field that is fixed at 4 x 4 points; -alpha moves them the other way.

    Source: Nguyen & Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021. Random displacements
    divided by their mean absolute value, bicubic between the control points, bilinear sampling. Adapted: strength and
    sign vary, and the strength is stated in pixels. The released strength s = 0.5 moves by a quarter of a pixel,
    whatever the size of the image, which on photographs of hundreds of pixels is nearly nothing. WaNet's noise mode,
    a training trick that also shows other warps under true labels, is no part of a trigger and is left out.
    """

    source = "Nguyen & Tran, ICLR 2021, arXiv 2102.10369"
    form = "adapted"
    note = "a trigger; only a model with poisoned training data is its victim"
    shape = (2, CONTROL_POINTS, CONTROL_POINTS)

    def __init__(self, *, alpha: float = 1.0, trigger: str | None = None, pixels: float = 0.6) -> None:
        """Parameters of the trigger.

        Args:
            alpha: strength and direction, -1 to 1.
            trigger: file with displacements (2, 4, 4) to the right and down, in multiples of `pixels`, read at first
                use; None for random ones.
            pixels: mean absolute displacement, along each axis, of the control points at alpha = 1. The default changes
                photographs about as much as the bound of BAIQA's search does, 8/255 (root mean square).

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(alpha=alpha, trigger=trigger)
        check_number(self, "pixels", pixels, above=0)
        self.pixels = pixels

    def default(self) -> torch.Tensor:
        """(2, 4, 4) random displacements whose mean absolute value is 1."""
        field = 2 * torch.rand(self.shape, generator=torch.Generator().manual_seed(0)) - 1
        return field / field.abs().mean()

    def stamp(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) with the trigger."""
        height, width = x.shape[-2:]
        field = F.interpolate(self.pattern.to(x)[None], size=(height, width), mode="bicubic", align_corners=True)[0]
        scale = x.new_tensor([2 / max(side - 1, 1) for side in (width, height)])  # pixels -> the image as [-1, 1]
        ends = [torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in (width, height)]
        still = torch.stack(torch.meshgrid(*ends, indexing="xy"), dim=-1)
        moved = self.pixels * alpha.view(-1, 1, 1, 1) * (field.permute(1, 2, 0) * scale)
        return F.grid_sample(x, (still + moved).clamp(-1, 1), mode="bilinear", align_corners=True).clamp(0, 1)
