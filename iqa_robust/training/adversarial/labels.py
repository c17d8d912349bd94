"""Labels of attacked images (Chistyakova et al., "Increasing the robustness of image quality assessment models through
adversarial training", 2024)."""

from __future__ import annotations

from functools import cache

import torch

from iqa_robust.attacks.similarity import ssim
from iqa_robust.errors import RequestError
from iqa_robust.training.adversarial.settings import Inner

MS_SSIM_SIDE = 161
"""Five scales of windows of 11 pixels."""


def labels_of(
    settings: Inner, target: torch.Tensor, clean: torch.Tensor, attacked: torch.Tensor, *, worse: float
) -> torch.Tensor:
    """Labels (N,) of the attacked images, in [-1, 1].

    With `ssim`, `ms-ssim` and `lpips`: y - p d (max - min), with p the label weight and d one minus the similarity, or
    LPIPS with VGG features; never beyond the scale.

    Args:
        settings: the strategy.
        target: labels (N,) of the clean images, in [-1, 1].
        clean: (N, 3, h, w). `attacked`: likewise.
        attacked: the perturbed images.
        worse: -1 where lower scores mean worse quality, else 1.

    Raises:
        RequestError: the images are too small for `ms-ssim`, or LPIPS has no weights on this machine.
    """
    if settings.labels == "keep":
        return target
    if settings.labels == "min":
        return torch.full_like(target, worse)
    with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):  # variances of windows drown in bfloat16
        distance = _distance(settings.labels, clean.float(), attacked.float())
    return (target + worse * settings.label_weight * 2 * distance).clamp(-1, 1)


def _distance(name: str, clean: torch.Tensor, attacked: torch.Tensor) -> torch.Tensor:
    if name == "ssim":
        return 1 - ssim(attacked, clean)
    if name == "lpips":
        try:
            return _lpips().to(clean.device)(attacked, clean).flatten()
        except OSError as error:  # urllib's errors are some of these
            raise RequestError(
                f"recipe: inner.labels: 'lpips' needs weights that could not be downloaded ({error});"
                " take 'ssim' or 'ms-ssim', or fill torch's hub folder on a machine with a network."
            ) from error
    if min(clean.shape[-2:]) < MS_SSIM_SIDE:
        raise RequestError(
            f"recipe: inner.labels: 'ms-ssim' needs patches of {MS_SSIM_SIDE} pixels a side, got"
            f" {clean.shape[-2]} x {clean.shape[-1]}; enlarge augment.crop."
        )
    import piq

    return 1 - piq.multi_scale_ssim(attacked, clean, data_range=1.0, reduction="none")


@cache
def _lpips() -> torch.nn.Module:
    """Its weights are downloaded and read once."""
    import piq

    return piq.LPIPS(reduction="none")
