"""From a recipe to batches: which samples train, which choose the epoch, and how a sample becomes a patch."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from iqa_robust import datasets
from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.datasets.loading import load_ahead
from iqa_robust.errors import RequestError
from iqa_robust.images import from_uint8, to_uint8
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.sections import Augment, Data, Validation

LOADERS = 2
"""Threads that decode and degrade pictures while the network trains."""


class Loader(Protocol):
    """Whatever turns a row into pixels."""

    def load(self, row: Row) -> Item:
        """The image of `row`."""


class Memory:
    """A loader that keeps every image as bytes: a quarter of its floats, and exact, since images are k/255."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._kept: dict[str, torch.Tensor] = {}

    def load(self, row: Row) -> Item:
        """The image without its reference; made once."""
        if row.image_id not in self._kept:
            self._kept[row.image_id] = to_uint8(self._loader.load(row).x)
        image = from_uint8(self._kept[row.image_id])
        return Item(row.image_id, image, None, row.mos, row.mos_std, row.reference_id)


class CenterCrop:
    """A loader of the middle of images, where they are larger than the crop."""

    def __init__(self, loader: Loader, side: int) -> None:
        """`side`: of the crop, pixels."""
        self._loader, self._side = loader, side

    def load(self, row: Row) -> Item:
        """The middle of the image, without its reference."""
        item = self._loader.load(row)
        height, width = item.x.shape[-2:]
        top, left = max(0, height - self._side) // 2, max(0, width - self._side) // 2
        return replace(item, x=item.x[:, top : top + self._side, left : left + self._side], ref=None)


@dataclass(frozen=True)
class Sample:
    """One image to be loaded, with where it comes from."""

    loader: Loader
    row: Row


def center_crops(samples: Sequence[Sample], side: int | None) -> Sequence[Sample]:
    """The samples' middles; None leaves whole images."""
    return samples if side is None else [Sample(CenterCrop(sample.loader, side), sample.row) for sample in samples]


def open_split(data: Data, split: str, data_root: Path | None) -> Dataset:
    """The dataset of a recipe. Raises what the dataset raises: `RequestError`, `DataError`, `UnknownNameError`."""
    params = dict(data.params)
    kind = datasets.get(data.dataset)
    if data_root is not None and kind.folders and "root" not in params:
        params["root"] = str(kind.locate(data_root))
    return datasets.create(data.dataset, split=split, **params)


def hold_out(samples: Sequence[Sample], validation: Validation, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Cut the training samples into (train, validation) by whole contents, in their order.

    Raises:
        RequestError: both ways of choosing are given, a content matches nothing, or one part is empty.
    """
    contents = sorted({sample.row.content for sample in samples})
    if validation.contents and validation.share:
        raise RequestError("recipe: validation: give either `share` or `contents`, got both.")
    if validation.contents:
        held: set[str] = set()
        for pattern in validation.contents:
            matching = fnmatch.filter(contents, pattern)
            if not matching:
                raise RequestError(f"recipe: validation.contents: {pattern!r} matches none of the training contents.")
            held.update(matching)
    elif validation.share:
        shuffled = sorted(contents, key=lambda content: derive_seed(seed, "hold out", content))
        held = set(shuffled[: max(1, round(validation.share * len(contents)))])
    else:
        return list(samples), []
    train = [sample for sample in samples if sample.row.content not in held]
    if not train:
        raise RequestError("recipe: validation: nothing is left to train on.")
    return train, [sample for sample in samples if sample.row.content in held]


def shuffled(samples: Sequence[Sample], *parts: object) -> list[Sample]:
    """The samples in an order that follows from `parts` alone."""
    order = np.random.default_rng(derive_seed(*parts)).permutation(len(samples))
    return [samples[i] for i in order]


def loaded(samples: Sequence[Sample], ahead: int) -> Iterator[Item]:
    """Items in order, at most `ahead` of them loading or loaded before they are asked for."""
    return load_ahead((partial(sample.loader.load, sample.row) for sample in samples), LOADERS, ahead)


def augmented(item: Item, augment: Augment, *parts: object) -> torch.Tensor:
    """A patch (3, h, w) of an image; the changes follow from `parts` and the image's name alone.

    Raises:
        RequestError: the image is smaller than the crop, or no crop of it lies on the lattice.
    """
    rng = np.random.default_rng(derive_seed(*parts, item.image_id))
    x = item.x
    if augment.crop is not None:
        if min(x.shape[-2:]) < augment.crop:
            raise RequestError(
                f"recipe: augment.crop: {augment.crop} is larger than {item.image_id!r}, {x.shape[-2]} x {x.shape[-1]}."
            )
        down, right = (_places(side, augment.crop, augment.lattice) for side in x.shape[-2:])
        if not (down and right):
            raise RequestError(
                f"recipe: augment.lattice: no crop of {augment.crop} fits into {item.image_id!r} on the lattice of"
                f" {augment.lattice}."
            )
        top, left = (places[int(rng.integers(0, len(places)))] for places in (down, right))
        x = x[:, top : top + augment.crop, left : left + augment.crop]
    if augment.flip and rng.random() < 0.5:
        x = x.flip(2)
    if augment.turn:
        if rng.random() < 0.5:
            x = x.flip(1)
        if x.shape[1] == x.shape[2] and rng.random() < 0.5:
            x = x.transpose(1, 2)
    if augment.colors:
        x = x[torch.from_numpy(rng.permutation(3))]
    return x


def _places(side: int, crop: int, lattice: int | None) -> range:
    """Where crops may begin: everywhere, or at the corners of blocks when `side` is padded evenly to whole blocks."""
    step = lattice or 1
    return range(-((-side % step) // 2) % step, side - crop + 1, step)


def batches_of(
    samples: Sequence[Sample], size: int, augment: Augment, *parts: object
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches of patches (N, 3, h, w) and their MOS (N,); a last batch of one image is left out."""
    images: list[torch.Tensor] = []
    scores: list[float] = []
    order = shuffled(samples, *parts, "order")
    for item in loaded(order[: size * batch_count(len(order), size)], 2 * size):
        images.append(augmented(item, augment, *parts))
        scores.append(item.mos)
        if len(images) == size:
            yield torch.stack(images), torch.tensor(scores)
            images, scores = [], []
    if images:
        yield torch.stack(images), torch.tensor(scores)


def batch_count(samples: int, size: int) -> int:
    """Batches in an epoch: a last one of a single image has no correlation and no batch statistics."""
    return samples // size + (samples % size > 1)
