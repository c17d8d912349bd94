"""The task of training a diffusion model of image patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from iqa_robust.defenses.learned.diffusion_network import DiffusionUNet, forward_noise, linear_alpha_bar
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.loop import Batch
from iqa_robust.training.patches import PatchTask
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.recipe import DiffusionRecipe

JUDGED_STEPS = (5, 20, 50, 100)
"""Steps of 1000 at which the noise is predicted on whole pictures."""


class DiffusionTask(PatchTask):
    """Trains a network to predict the noise in patches after a random number of steps (Ho et al., 2020)."""

    network: DiffusionUNet

    def __init__(self, recipe: DiffusionRecipe, *, data_root: Path | None) -> None:
        """See `PatchTask`."""
        super().__init__(recipe, data_root=data_root, networks={"diffusion": DiffusionUNet})
        self.recipe = recipe
        self.chosen_by = "psnr_gain" if self.validation else None
        self._alpha_bar = linear_alpha_bar()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Clean patches twice: noise and steps are drawn in `loss`, from the generator that the loop seeds."""
        for clean in self.patches(np.random.default_rng(derive_seed(self.recipe.seed, epoch))):
            yield clean, clean

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean squared error of the predicted noise, every step from 1 to the last trained one equally often."""
        x0 = 2 * batch[0] - 1
        t = torch.randint(1, self.network.last_step + 1, (len(x0),))
        noise = torch.randn_like(x0)
        return F.mse_loss(self.network(forward_noise(x0, noise, self._alpha_bar[t]), t), noise)

    def validate(self, listener: Listener) -> dict[str, float]:
        """Mean PSNR gain over the judged steps on the held-out pictures of the training split, dB."""
        if not self.validation:
            return {}
        gains = self.judge(self.validation, "validate", listener).values()
        return {"psnr_gain": sum(gains) / len(gains)}

    @torch.no_grad()
    def judge(self, pictures: Sequence[torch.Tensor], stage: str, listener: Listener) -> dict[str, float]:
        """How much nearer, in dB, the picture that the predicted noise implies is than the noisy one, per step."""
        found = {}
        for step in JUDGED_STEPS:
            total, clock = 0.0, Clock()
            power = self._alpha_bar[step].float()
            for number, picture in enumerate(pictures):
                x0 = 2 * picture[None] - 1
                generator = torch.Generator().manual_seed(derive_seed("judge", step, number))
                noise = torch.randn(x0.shape, generator=generator)
                noisy = forward_noise(x0, noise, power)
                error = self.network(noisy, torch.tensor([step])) - noise  # the picture errs by this times a constant
                total -= 10 * math.log10(error.square().mean().item() / noise.square().mean().item())
                clock.images += 1
                listener(Progress(stage, done=clock.images, total=len(pictures), rate=clock.rate()))
            found[f"psnr_gain at step {step} of 1000"] = total / len(pictures)
        return found
