"""The task of training a denoiser, or another network that restores degraded pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from iqa_robust.defenses.learned.dncnn import ResidualDenoiser
from iqa_robust.defenses.learned.fcn import CorrectionNetwork
from iqa_robust.defenses.learned.super_resolution import HalfSizeNetwork
from iqa_robust.defenses.learned.unet import UNetDenoiser
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.attacked import Attacker
from iqa_robust.training.loop import Batch
from iqa_robust.training.patches import PatchTask
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.recipe import DenoiseRecipe
from iqa_robust.training.sections import Noise

NETWORKS: dict[str, Callable[..., torch.nn.Module]] = {
    "dncnn": ResidualDenoiser,
    "fcn": CorrectionNetwork,
    "super-resolution": HalfSizeNetwork,
    "unet": UNetDenoiser,
}
JUDGED_SIGMAS = (5, 10, 15)
"""Gray levels of Gaussian noise at which a denoiser is judged."""


class DenoiseTask(PatchTask):
    """Trains a network that restores degraded patches, degraded anew in every epoch."""

    def __init__(self, recipe: DenoiseRecipe, *, data_root: Path | None) -> None:
        """See `PatchTask`; models to attack are opened here."""
        super().__init__(recipe, data_root=data_root, networks=NETWORKS)
        self.recipe = recipe
        self.chosen_by = "psnr_gain" if self.validation else None
        self._attacker = Attacker(recipe.attack, recipe.seed) if recipe.attack is not None else None
        self._judged: dict[str, dict[str, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Degraded patches and the clean ones."""
        rng = np.random.default_rng(derive_seed(self.recipe.seed, epoch))
        for clean in self.patches(rng):
            yield self._degraded(clean, rng), clean

    def _degraded(self, clean: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if self._attacker is not None:
            return self._attacker.attacked(clean, rng)
        return (clean + noise_like(clean, self.recipe.noise, rng)).clamp(0, 1)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean squared error in units of (gray levels / 10) squared, so that the usual learning rates fit."""
        return F.mse_loss(self.network(batch[0]), batch[1]) * 25.5**2

    def validate(self, listener: Listener) -> dict[str, float]:
        """Mean PSNR gain over what is judged on the held-out pictures of the training split, dB."""
        if not self.validation:
            return {}
        gains = self.judge(self.validation, "validate", listener).values()
        return {"psnr_gain": sum(gains) / len(gains)}

    def judge(self, pictures: Sequence[torch.Tensor], stage: str, listener: Listener) -> dict[str, float]:
        """PSNR gain at every judged level of noise, or of each attack at its largest radius, dB."""
        if self._attacker is None:
            return {
                f"psnr_gain at sigma {sigma}/255": gain(self.network, pictures, sigma, listener, stage)
                for sigma in JUDGED_SIGMAS
            }
        if stage not in self._judged:  # the attacked model stays the same, so these do
            self._judged[stage] = self._attacker.judged(pictures)
        return {
            f"psnr_gain under {title}": mean_gain(self.network, pairs, listener, stage)
            for title, pairs in self._judged[stage].items()
        }


def noise_like(clean: torch.Tensor, noise: Noise, rng: np.random.Generator) -> torch.Tensor:
    """Noise for (N, 3, h, w), one strength per patch: Gaussian, or in a quarter of them of random sign."""
    n = clean.shape[0]
    drawn = rng.standard_normal(clean.shape, dtype=np.float32)
    strength = rng.uniform(0, noise.sigma_255, n) / 255
    if noise.sign_255:
        signed = rng.random(n) < 0.25
        drawn[signed] = np.sign(drawn[signed])
        strength = np.where(signed, rng.uniform(0, noise.sign_255, n) / 255, strength)
    return torch.from_numpy(drawn * strength.astype(np.float32)[:, None, None, None])


def gain(
    network: torch.nn.Module, pictures: Sequence[torch.Tensor], sigma: float, listener: Listener, stage: str
) -> float:
    """Mean PSNR gain in dB over pictures with seeded Gaussian noise of `sigma` gray levels, clipped to [0, 1]."""
    pairs = []
    for number, clean in enumerate(pictures):
        generator = torch.Generator().manual_seed(derive_seed("judge", sigma, number))
        pairs.append(((clean + torch.randn(clean.shape, generator=generator) * sigma / 255).clamp(0, 1), clean))
    return mean_gain(network, pairs, listener, stage)


@torch.no_grad()
def mean_gain(
    network: torch.nn.Module, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], listener: Listener, stage: str
) -> float:
    """Mean PSNR gain in dB of restoring degraded pictures (3, H, W), each given with its clean one."""
    total, clock = 0.0, Clock()
    for before, clean in pairs:
        after = network(before[None])[0].clamp(0, 1)
        total += 10 * math.log10(F.mse_loss(before, clean).item() / F.mse_loss(after, clean).item())
        clock.images += 1
        listener(Progress(stage, done=clock.images, total=len(pairs), rate=clock.rate()))
    return total / len(pairs)
