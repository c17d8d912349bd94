"""How a network in training stands an attack: the measure that chooses epochs and goes into model cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from iqa_robust.measures.correlation import srocc
from iqa_robust.training.adversarial.inner import InnerPlayer, Scores
from iqa_robust.training.adversarial.settings import Inner

BATCH = 8


def attacked_sroccs(
    network: nn.Module,
    scores: Scores,
    images: Sequence[torch.Tensor],
    mos: torch.Tensor,
    *,
    radii_255: Sequence[float],
    steps: int,
    done: Callable[[int], None] = lambda images: None,
) -> list[float]:
    """Per radius, SROCC with the labels after every score was pushed away from its side of the clean scores' median.

    Sign steps of 2.5 / `steps` of eps from a random start, on the network itself; at a random start already, so that a
    step that only looks good at the clean image does not pass for robustness.

    Args:
        network: in evaluation mode.
        scores: its scores on [-1, 1].
        images: each (3, H, W) in [0, 1]; neighbors of equal size go together.
        mos: labels (M,).
        radii_255: L-infinity radii, gray levels.
        steps: of the attack.
        done: called with the number of images attacked so far, over all radii.
    """
    batches = _batches(images)
    with torch.no_grad():
        clean = [scores(batch) for batch in batches]
    median = torch.cat(clean).median()
    found, count = [], 0
    for eps_255 in radii_255:
        player = InnerPlayer(Inner(aim="against-ranking", eps_255=eps_255, steps=steps), network, scores)
        pushed = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch, before in zip(batches, clean, strict=True):
                attacked = player.pushed(batch, torch.where(before > median, 1.0, -1.0), eps_255 / 255)
                with torch.no_grad():
                    pushed.append(scores(attacked))
                count += len(batch)
                done(count)
        found.append(srocc(torch.cat(pushed).cpu().numpy(), mos.numpy()))
    return found


def _batches(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    groups: list[list[torch.Tensor]] = []
    for image in images:
        if not groups or len(groups[-1]) == BATCH or groups[-1][0].shape != image.shape:
            groups.append([])
        groups[-1].append(image)
    return [torch.stack(group) for group in groups]
