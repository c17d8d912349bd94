"""`random`: channels drawn once pass, the others do not; the control of every other gate."""

from __future__ import annotations

import torch

from iqa_robust.models.gates.base import Gate, check_share


class RandomChannels(Gate):
    """Keeps a fixed random choice of channels, so that what a smaller network alone would do is known.

    Args:
        channels: C.
        keep: share of the channels that pass; at least one does.
        seed: of the draw, which is stored with the weights.

    Raises:
        RequestError: `keep` is not between 0 and 1.
    """

    kept: torch.Tensor

    def __init__(self, channels: int, *, keep: float = 0.5, seed: int = 0) -> None:
        super().__init__(channels)
        count = max(1, round(check_share("keep", keep) * channels))
        kept = torch.zeros(channels, dtype=torch.bool)
        if not kept.is_meta:  # a network laid out without memory gets its draw from the file
            kept[torch.randperm(channels, generator=torch.Generator().manual_seed(seed))[:count]] = True
        self.register_buffer("kept", kept)

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1), zeros and ones."""
        return self.kept.to(h.dtype)[None, :, None, None].expand(len(h), -1, -1, -1)
