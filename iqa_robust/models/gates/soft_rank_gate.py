"""`soft-rank`: channels with a high statistic pass, by soft rank."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.models.gates.base import Gate, check_choice
from iqa_robust.models.gates.rank_weights import RankWeights
from iqa_robust.models.pooling import channel_means


class SoftRankGate(Gate):
    """Keeps the channels that rank high in the image's own mean activation (CPRL-style).

    A reconstruction of the "soft ranking based channel-wise activation function" that the abstract of CPRL
    (arXiv 2404.19567) names; the paper's own equations were not available. With u the mean of each channel over the
    positions, standardized over the channels, r its soft rank: weights = sigmoid((r - (1 - keep)) / sharpness).

    Args:
        channels: C.
        statistic: `"mean"`, or `"mean-abs"` for features of both signs.
        operator: `"pairwise"`, `"softsort"` or `"permutahedron"`.
        temperature: of the soft rank, in standard deviations over the channels; the operator's own by default.
        keep: share of the channels that pass.
        learn_keep: whether training moves that share.
        sharpness: width, in ranks, of the step from closed to open.

    Raises:
        RequestError: a value is out of range or unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        statistic: str = "mean",
        operator: str = "pairwise",
        temperature: float | None = None,
        keep: float = 0.5,
        learn_keep: bool = False,
        sharpness: float = 0.1,
    ) -> None:
        super().__init__(channels)
        self.statistic = check_choice("statistic", statistic, ("mean", "mean-abs"))
        self.rank_weights = RankWeights(
            operator=operator, temperature=temperature, keep=keep, learn_keep=learn_keep, sharpness=sharpness
        )

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1)."""
        u = channel_means(h if self.statistic == "mean" else h.abs())
        return self.rank_weights(F.layer_norm(u, (self.channels,)))
