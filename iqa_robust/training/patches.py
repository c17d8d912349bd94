"""What tasks on clean pictures share: reading them, drawing patches, and the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import RequestError
from iqa_robust.images import from_uint8
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.data import Sample, hold_out, open_split
from iqa_robust.training.degraded import read_pictures
from iqa_robust.training.loop import Task
from iqa_robust.training.progress import Listener
from iqa_robust.training.recipe import PatchRecipe
from iqa_robust.training.regressor import under


class PatchTask(Task):
    """Trains on random patches of the references of a dataset, and of pristine pictures where the recipe names some."""

    def __init__(
        self, recipe: PatchRecipe, *, data_root: Path | None, networks: Mapping[str, Callable[..., nn.Module]]
    ) -> None:
        """Reads the clean pictures, all of which stay in memory.

        Args:
            recipe: what to train.
            data_root: folder of the datasets.
            networks: the networks that this task trains, by their names in recipes.

        Raises:
            RequestError: there are no references, a picture is smaller than a patch, or the network is another task's
                or does not take its parameters.
        """
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
        self._settings = recipe
        self.batches_per_epoch = max(1, recipe.patches_per_epoch // recipe.optimization.batch_size)
        self.params: dict[str, Any] = dict(recipe.network.params)
        if recipe.network.name not in networks:
            wanted = ", ".join(map(repr, networks))
            raise RequestError(
                f"recipe {recipe.name!r}: network.name: expected one of {wanted}, got {recipe.network.name!r}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(recipe.seed, "first weights"))
            try:
                self.network = networks[recipe.network.name](**self.params)
            except TypeError as error:
                raise RequestError(f"recipe {recipe.name!r}: network.params: {error}.") from error

    def start(self, listener: Listener) -> None:
        """Nothing to prepare."""

    def patches(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        """The clean patches (N, 3, patch, patch) of an epoch. A picture is drawn as often as its area says."""
        areas = np.array([picture.shape[1] * picture.shape[2] for picture in self.train], dtype=float)
        size = self._settings.patch
        for _ in range(self.batches_per_epoch):
            patches = []
            for index in rng.choice(len(areas), self._settings.optimization.batch_size, p=areas / areas.sum()):
                picture = self.train[index]
                top, left = (int(rng.integers(0, side - size + 1)) for side in picture.shape[-2:])
                patch = picture[:, top : top + size, left : left + size]
                patch = patch.flip(2) if rng.random() < 0.5 else patch
                patches.append(patch.transpose(1, 2) if rng.random() < 0.5 else patch)
            yield torch.stack(patches)

    def manifests(self) -> dict[str, str]:
        """Hex sha256 of every set that was trained or validated on."""
        found = {f"{self._settings.data.dataset}:train": self.dataset.manifest()}
        if self._settings.pristine is not None:
            digest = hashlib.sha256()
            for picture in self._pristine:
                digest.update(f"{tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes())
            found[Path(self._settings.pristine).name] = digest.hexdigest()
        return found

    def gains(self, test: Dataset, listener: Listener) -> dict[str, float]:
        """What the model card says of the references of another split, measure by measure."""
        return self.judge(references(first_of_each_content(test), self._settings.name), "test", listener)

    def judge(self, pictures: Sequence[torch.Tensor], stage: str, listener: Listener) -> dict[str, float]:
        """Measures of the network on whole clean pictures (3, H, W)."""
        raise NotImplementedError


def first_of_each_content(dataset: Dataset) -> list[Sample]:
    """One sample per reference: its clean picture is what is learned from."""
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
