"""`ensemble`: several gates at one place, and the mean of what they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from iqa_robust.errors import RequestError
from iqa_robust.models.gates.base import Gate


class Ensemble(Gate):
    """The mean of what several gates make of the same map, so that none alone decides what passes.

    Ours, after ensembles of networks. Of members that are all `sort-mask` with the form `elements`, the Lipschitz
    constant stays 1 in the maximum norm, as a mean of maps of which none widens a difference. Predictors of members
    (`cas`, `cifs`) are trained by their mean alone.

    Args:
        channels: C.
        members: gates; in recipes tables, each with its `name` and parameters.

    Raises:
        RequestError: there is no member.
    """

    def __init__(self, channels: int, *, members: Sequence[Gate]) -> None:
        super().__init__(channels)
        if not members:
            raise RequestError("gate 'ensemble': members: expected at least one gate, got none.")
        self.members = nn.ModuleList(members)

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """The mean of the members' (N, C, 1, 1), or (N, C, H, W) where one of them weighs every value."""
        return torch.stack(torch.broadcast_tensors(*(member.weights(h) for member in self._gates()))).mean(dim=0)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The gated map (N, C, H, W)."""
        made = torch.stack([member(h) for member in self._gates()]).mean(dim=0)
        scores = [member.auxiliary_scores for member in self._gates() if member.auxiliary_scores is not None]
        self.auxiliary_scores = torch.stack(scores).mean(dim=0) if scores else None
        return made

    def _gates(self) -> list[Gate]:
        return [member for member in self.members if isinstance(member, Gate)]
