"""How a network in training stands an attack: the measure that chooses epochs and goes into model cards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from iqa_robust.measures.correlation import srocc
from iqa_robust.training.adversarial.inner import InnerPlayer, Scores
from iqa_robust.training.adversarial.settings import Inner

BATCH = 8


def attacked_srocc(
    network: nn.Module, scores: Scores, images: Sequence[torch.Tensor], mos: torch.Tensor, *, eps_255: float, steps: int
) -> float:
    """SROCC with the labels after every score was pushed away from its side of the median of the clean scores.

    Sign steps of 2.5 / `steps` of eps from a random start, on the network itself; at a random start already, so that a
    step that only looks good at the clean image does not pass for robustness.

    Args:
        network: in evaluation mode.
        scores: its scores on [-1, 1].
        images: each (3, H, W) in [0, 1]; neighbors of equal size go together.
        mos: labels (M,).
        eps_255: L-infinity radius, gray levels.
        steps: of the attack.
    """
    settings = Inner(aim="against-ranking", eps_255=eps_255, steps=steps)
    player = InnerPlayer(settings, network, scores)
    batches = _batches(images)
    with torch.no_grad():
        clean = torch.cat([scores(batch) for batch in batches])
    median, found, first = clean.median(), [], 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in batches:
            side = torch.where(clean[first : first + len(batch)] > median, 1.0, -1.0)
            attacked = player.pushed(batch, side, eps_255 / 255)
            with torch.no_grad():
                found.append(scores(attacked))
            first += len(batch)
    return srocc(torch.cat(found).cpu().numpy(), mos.numpy())


def _batches(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    groups: list[list[torch.Tensor]] = []
    for image in images:
        if not groups or len(groups[-1]) == BATCH or groups[-1][0].shape != image.shape:
            groups.append([])
        groups[-1].append(image)
    return [torch.stack(group) for group in groups]
