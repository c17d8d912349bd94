"""`sort-mask`: small changes around the mean are blocked, per channel or per value."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.models.gates.base import Gate, check_choice, check_positive
from iqa_robust.models.gates.rank_weights import RankWeights
from iqa_robust.models.pooling import channel_means

SLOWEST = 0.01
"""Share of a batch in the running average, once there were so many batches that their plain mean would give it less."""
LEAST = 1e-6
"""Smallest deviation of a channel: one that never moves still divides."""


class SortMask(Gate):
    """Blocks small changes around the mean (SortMask-style).

    A reconstruction from one sentence of the abstract of the journal version of CPRL (Displays 88, 103046, 2025): the
    module is to "block small changes around the mean"; its equations were not available. Two readings:

    `channels`: with u the channels' means over the positions, standardized over the channels, |u| is ranked softly, and
    channels near the mean of all are closed as in `soft-rank`.

    `elements`: with d = h minus the mean of its channel, h' = mean + d - b tanh(d / b). The slope of d is
    tanh(d / b)^2: zero at the mean, near one beyond b. b is `threshold` times the usual deviation of the channel, a
    running average stored in training. Rows of the Jacobian are non-negative and sum to one, so no value of the map
    moves by more than the largest change of any value: Lipschitz constant 1 in the maximum norm.

    Args:
        channels: C.
        form: `"channels"` or `"elements"`.
        operator: as of `soft-rank`; this and the next four belong to the form `channels`.
        temperature: as of `soft-rank`.
        keep: as of `soft-rank`.
        learn_keep: as of `soft-rank`.
        sharpness: as of `soft-rank`.
        threshold: of the form `elements`, in usual deviations of the channel.

    Raises:
        RequestError: a value is out of range or unknown.
    """

    scale: torch.Tensor
    batches: torch.Tensor

    def __init__(
        self,
        channels: int,
        *,
        form: str = "channels",
        operator: str = "pairwise",
        temperature: float | None = None,
        keep: float = 0.5,
        learn_keep: bool = False,
        sharpness: float = 0.1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(channels)
        self.form = check_choice("form", form, ("channels", "elements"))
        if form == "channels":
            self.rank_weights = RankWeights(
                operator=operator, temperature=temperature, keep=keep, learn_keep=learn_keep, sharpness=sharpness
            )
        else:
            self.threshold = check_positive("threshold", threshold)
            self.register_buffer("scale", torch.ones(channels))
            self.register_buffer("batches", torch.tensor(0))

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1); in the form `elements`, the share of each deviation from the mean that passes (N, C, H, W)."""
        means = channel_means(h)
        if self.form == "channels":
            return self.rank_weights(F.layer_norm(means, (self.channels,)).abs())
        t = (h - means[:, :, None, None]) / self._block(means.dtype)
        small = t.abs() < 1e-2  # the quotient cancels there; the series is right to 1e-9
        safe = torch.where(small, 1.0, t)
        return torch.where(small, t * t / 3, 1 - torch.tanh(safe) / safe)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The gated map (N, C, H, W)."""
        if self.form == "channels":
            return super().forward(h)
        if self.training:
            self._follow(h)
        means = channel_means(h)[:, :, None, None].to(h.dtype)
        block = self._block(h.dtype)
        return h - block * torch.tanh((h - means) / block)

    def _block(self, dtype: torch.dtype) -> torch.Tensor:
        return (self.threshold * self.scale.clamp(min=LEAST)).to(dtype)[:, None, None]

    @torch.no_grad()
    def _follow(self, h: torch.Tensor) -> None:
        """Take the deviations of the channels in this batch into the running average."""
        self.batches += 1
        share = max(1 / int(self.batches), SLOWEST)
        self.scale.lerp_(h.float().std(dim=(2, 3), correction=0).mean(dim=0).to(self.scale), share)
