"""The task of training a denoiser."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from iqa_robust.datasets.base import Dataset
from iqa_robust.defenses.learned.dncnn import ResidualDenoiser
from iqa_robust.errors import RequestError
from iqa_robust.images import from_uint8
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.data import Sample, hold_out, open_split
from iqa_robust.training.degraded import read_pictures
from iqa_robust.training.loop import Batch, Task
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.recipe import DenoiseRecipe, Noise
from iqa_robust.training.regressor import under

JUDGED_SIGMAS = (5, 10, 15)
"""Gray levels of Gaussian noise at which a denoiser is judged."""


class DenoiseTask(Task):
    """Trains a denoiser on random patches of the references of a dataset, with noise drawn anew in every epoch."""

    def __init__(self, recipe: DenoiseRecipe, *, data_root: Path | None) -> None:
        """Reads the clean pictures, all of which stay in memory. Raises `RequestError` where there are none."""
        self.recipe = recipe
        self.dataset = open_split(recipe.data, "train", data_root)
        train, validation = hold_out(first_of_each_content(self.dataset), recipe.validation, recipe.seed)
        self.train = references(train, recipe.name)
        self.validation = references(validation, recipe.name) if validation else []
        self._pristine: list[torch.Tensor] = []
        if recipe.pristine is not None:
            pictures = read_pictures(under(data_root, recipe.pristine, "pristine"))
            self._pristine = [from_uint8(torch.from_numpy(picture).permute(2, 0, 1)) for picture in pictures.values()]
        self.train += self._pristine
        for picture in self.train:
            if min(picture.shape[-2:]) < recipe.patch:
                raise RequestError(
                    f"recipe {recipe.name!r}: patch: {recipe.patch} is larger than a picture,"
                    f" {picture.shape[1]} x {picture.shape[2]}."
                )
        self.batches_per_epoch = max(1, recipe.patches_per_epoch // recipe.optimization.batch_size)
        self.chosen_by = "psnr_gain" if self.validation else None
        self.params: dict[str, Any] = dict(recipe.network.params)
        if recipe.network.name != "dncnn":
            raise RequestError(f"recipe {recipe.name!r}: network.name: expected 'dncnn', got {recipe.network.name!r}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(recipe.seed, "first weights"))
            try:
                self.network = ResidualDenoiser(**self.params)
            except TypeError as error:
                raise RequestError(f"recipe {recipe.name!r}: network.params: {error}.") from error

    def start(self, listener: Listener) -> None:
        """Nothing to prepare."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Noisy patches and the clean ones. A picture is drawn as often as its area says."""
        rng = np.random.default_rng(derive_seed(self.recipe.seed, epoch))
        areas = np.array([picture.shape[1] * picture.shape[2] for picture in self.train], dtype=float)
        size = self.recipe.patch
        for _ in range(self.batches_per_epoch):
            patches = []
            for index in rng.choice(len(areas), self.recipe.optimization.batch_size, p=areas / areas.sum()):
                picture = self.train[index]
                top, left = (int(rng.integers(0, side - size + 1)) for side in picture.shape[-2:])
                patch = picture[:, top : top + size, left : left + size]
                patch = patch.flip(2) if rng.random() < 0.5 else patch
                patches.append(patch.transpose(1, 2) if rng.random() < 0.5 else patch)
            clean = torch.stack(patches)
            yield (clean + noise_like(clean, self.recipe.noise, rng)).clamp(0, 1), clean

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean squared error in units of (gray levels / 10) squared, so that the usual learning rates fit."""
        return F.mse_loss(self.network(batch[0]), batch[1]) * 25.5**2

    def validate(self, listener: Listener) -> dict[str, float]:
        """Mean PSNR gain over the judged noise levels on the held-out pictures of the training split, dB."""
        if not self.validation:
            return {}
        gains = [gain(self.network, self.validation, sigma, listener, "validate") for sigma in JUDGED_SIGMAS]
        return {"psnr_gain": sum(gains) / len(gains)}

    def gains(self, test: Dataset, listener: Listener) -> dict[str, float]:
        """PSNR gain at every judged noise level on the references of another split, dB."""
        pictures = references(first_of_each_content(test), self.recipe.name)
        return {
            f"psnr_gain at sigma {sigma}/255": gain(self.network, pictures, sigma, listener, "test")
            for sigma in JUDGED_SIGMAS
        }

    def manifests(self) -> dict[str, str]:
        """Hex sha256 of every set that was trained or validated on."""
        found = {f"{self.recipe.data.dataset}:train": self.dataset.manifest()}
        if self.recipe.pristine is not None:
            digest = hashlib.sha256()
            for picture in self._pristine:
                digest.update(f"{tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes())
            found[Path(self.recipe.pristine).name] = digest.hexdigest()
        return found


def first_of_each_content(dataset: Dataset) -> list[Sample]:
    """One sample per reference: its clean picture is what a denoiser learns from."""
    firsts: dict[str, Sample] = {}
    for row in dataset.rows():
        firsts.setdefault(row.content, Sample(dataset, row))
    return list(firsts.values())


def references(samples: Sequence[Sample], recipe: str) -> list[torch.Tensor]:
    """The reference images (3, H, W). Raises `RequestError` where a sample has none."""
    found = []
    for sample in samples:
        ref = sample.loader.load(sample.row).ref
        if ref is None:
            raise RequestError(
                f"recipe {recipe!r}: data.dataset: a denoiser needs reference images, this set has none."
            )
        found.append(ref)
    return found


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


@torch.no_grad()
def gain(
    network: torch.nn.Module, pictures: Sequence[torch.Tensor], sigma: float, listener: Listener, stage: str
) -> float:
    """Mean PSNR gain in dB over pictures with seeded Gaussian noise of `sigma` gray levels, clipped to [0, 1]."""
    total, clock = 0.0, Clock()
    for number, clean in enumerate(pictures):
        generator = torch.Generator().manual_seed(derive_seed("judge", sigma, number))
        noisy = (clean + torch.randn(clean.shape, generator=generator) * sigma / 255).clamp(0, 1)
        denoised = network(noisy[None])[0].clamp(0, 1)
        total += 10 * math.log10(F.mse_loss(noisy, clean).item() / F.mse_loss(denoised, clean).item())
        clock.images += 1
        listener(Progress(stage, done=clock.images, total=len(pictures), rate=clock.rate()))
    return total / len(pictures)
