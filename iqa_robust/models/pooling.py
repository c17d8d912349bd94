"""Global statistics of feature maps, with the slope written out: several times as fast as `torch.var_mean` on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

FLOOR = 1e-5
"""Added to the variance, so that the slope of the root stays finite where a channel is constant."""


def mean_and_std(features: torch.Tensor) -> torch.Tensor:
    """Global statistics of (N, C, H, W): (N, 2C), means first, then standard deviations; float32 or better.

    Sums are taken in float32 also for features in bfloat16. Differentiable once.
    """
    return _MeanAndStd.apply(features)


def channel_means(features: torch.Tensor) -> torch.Tensor:
    """Means (N, C) over the positions of (N, C, H, W); float32 or better, as of `mean_and_std`. Differentiable once."""
    return _Means.apply(features)


class _Means(torch.autograd.Function):
    """The slope of a mean is the same at every position: it is handed on as a view, never laid out in memory."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        ctx.shape, ctx.kind = features.shape, features.dtype
        return features.mean(dim=(2, 3), dtype=torch.promote_types(features.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        positions = ctx.shape[2] * ctx.shape[3]
        return _wide((slope / positions).to(ctx.kind)).expand(ctx.shape)


class _MeanAndStd(torch.autograd.Function):
    """d/dx of the mean is 1/n, of the deviation (x - mean) / (n deviation): one pass over the features."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        if features.dtype == torch.bfloat16 and features.device.type == "cpu":
            mean, variance = _rounded_moments(features)
        else:
            mean = features.mean(dim=(2, 3), dtype=torch.promote_types(features.dtype, torch.float32))
            variance = (features - _wide(mean)).square_().mean(dim=(2, 3))
        deviation = variance.add_(FLOOR).sqrt_()
        ctx.save_for_backward(features, mean, deviation)
        return torch.cat([mean, deviation], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        features, mean, deviation = ctx.saved_tensors
        of_mean, of_deviation = (slope / features[0, 0].numel()).chunk(2, dim=1)
        factor = of_deviation / deviation
        constant, linear = (_wide(values.to(features.dtype)) for values in (of_mean - factor * mean, factor))
        return torch.addcmul(constant, features, linear)


def _rounded_moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and variances (N, C), float32, of maps in bfloat16, which are never written out in float32.

    The statistics of a batch norm over one image at a time; that the running ones are float32 makes the sums so.
    """
    zeros, ones = (make(features.shape[1]) for make in (torch.zeros, torch.ones))
    moments = [torch.batch_norm_update_stats(one, zeros, ones, 0.0) for one in features.split(1)]
    mean, variance = (torch.stack(values) for values in zip(*moments, strict=True))
    return mean, variance


def _wide(values: torch.Tensor) -> torch.Tensor:
    """(N, C) as (N, C, 1, 1), to go with feature maps."""
    return values[:, :, None, None]
