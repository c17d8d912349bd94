"""`psnr` and `ssim` as full-reference models, differentiable, computed by piq."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, check_pair

BT601 = (0.299, 0.587, 0.114)


class _Pairwise(IQAModel):
    """A measure of piq between image and reference."""

    about: ClassVar[ModelInfo]

    def __init__(self) -> None:
        super().__init__()
        self.info = self.about

    @abstractmethod
    def _compare(self, x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        """The measure (N,) of images against references of their shape."""

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of images (N, 3, H, W) against references. Raises `ContractError` without fitting ones."""
        if ref is None:
            raise ContractError("the model is full-reference: pass the reference images as `ref`.")
        if ref.shape != x.shape:
            check_pair(x, ref)
        return self._compare(x, ref)


class PSNR(_Pairwise):
    """Peak signal-to-noise ratio in dB over all three channels, -10 log10(MSE + 1e-8).

    The constant caps identical images at 80 dB, far above the 48 dB of a uniform error of one gray level; there the
    slope is zero, because the MSE has its minimum there.
    """

    about = ModelInfo(full_reference=True, score_range=(0.0, 80.0), training_datasets=())

    def _compare(self, x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        from piq import psnr

        return psnr(x.clamp(0, 1), ref, data_range=1.0, reduction="none").clamp(min=0)


class SSIM(_Pairwise):
    """Structural similarity (Wang et al., 2004) of the BT.601 luma: 11 x 11 Gaussian window, sigma 1.5, K 0.01, 0.03.

    At full resolution, without the automatic reduction that some implementations add, and on luma that is not rounded
    to 8 bits: official values computed on rounded luma differ by up to 0.002.
    """

    about = ModelInfo(full_reference=True, score_range=(-1.0, 1.0), min_size=11, training_datasets=())

    def _compare(self, x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        from piq import ssim

        weights = x.new_tensor(BT601).view(1, 3, 1, 1)
        gray, gray_ref = ((image * weights).sum(dim=1, keepdim=True).clamp(0, 1) for image in (x, ref))
        return ssim(gray, gray_ref, data_range=1.0, downsample=False, reduction="none")
