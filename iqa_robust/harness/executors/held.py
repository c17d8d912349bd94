"""A dataset whose pixels are held in memory instead of files: what workers without the files are given.

Pixels are cut into blocks of whole images, 8-bit arrays that processes of one machine can share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError
from iqa_robust.harness.components import make_dataset
from iqa_robust.images import from_uint8, to_uint8
from iqa_robust.records import Component, Place

BLOCK_IMAGES = 64
"""Images of a block: enough that a worker asks seldom, few enough that the first one is soon there."""


@dataclass(frozen=True)
class Pixels:
    """One image and its reference as uint8 (3, H, W)."""

    x: np.ndarray
    ref: np.ndarray | None


Block = Mapping[str, Pixels | str]
"""By image id: pixels, or the sentence that says why there are none."""


@dataclass(frozen=True)
class Outline:
    """All of a dataset but its pixels; what `HeldDataset` needs, small and without files."""

    component: Component
    data_root: Place | None
    name: str
    label_kind: str
    split: str
    rows: tuple[Row, ...]
    missing: int
    mos_range: tuple[float, float]
    mos_higher_is_better: bool
    full_reference: bool
    sizes: Mapping[str, tuple[int, int] | str]
    """(H, W) by image id, or the sentence that says why there is none."""


def outline(dataset: Dataset, component: Component, data_root: Place | None) -> Outline:
    """The outline of a dataset; reads the header of every image."""
    sizes: dict[str, tuple[int, int] | str] = {}
    for row in dataset.rows():
        try:
            sizes[row.image_id] = dataset.size(row)
        except DataError as error:
            sizes[row.image_id] = str(error)
    return Outline(
        component=component,
        data_root=data_root,
        name=dataset.name,
        label_kind=dataset.label_kind,
        split=dataset.split,
        rows=dataset.rows(),
        missing=dataset.missing,
        mos_range=dataset.mos_range,
        mos_higher_is_better=dataset.mos_higher_is_better,
        full_reference=dataset.full_reference,
        sizes=sizes,
    )


def blocks_of(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows of each block."""
    return [rows[i : i + BLOCK_IMAGES] for i in range(0, len(rows), BLOCK_IMAGES)]


def load_block(dataset: Dataset, rows: Sequence[Row]) -> dict[str, Pixels | str]:
    """Read the pixels of a block."""
    block: dict[str, Pixels | str] = {}
    for row, item in zip(rows, dataset.prefetch(rows), strict=True):
        if isinstance(item, DataError):
            block[row.image_id] = str(item)
        else:
            ref = None if item.ref is None else to_uint8(item.ref).numpy()
            block[row.image_id] = Pixels(to_uint8(item.x).numpy(), ref)
    return block


class HeldDataset(Dataset):
    """The dataset of an outline, with pixels from blocks; only its other splits are read from files."""

    def __init__(self, said: Outline, block: Callable[[int], Block]) -> None:
        """`block` returns block i, of the blocks that `blocks_of` names."""
        super().__init__(split=said.split)
        self._said, self._block = said, block
        # What a class says of every dataset of its kind, said here of this one.
        vars(self).update(name=said.name, label_kind=said.label_kind, mos_higher_is_better=said.mos_higher_is_better)
        self._place_of = {row.image_id: i // BLOCK_IMAGES for i, row in enumerate(said.rows)}

    @property
    def mos_range(self) -> tuple[float, float]:
        """As the dataset says."""
        return self._said.mos_range

    @property
    def full_reference(self) -> bool:
        """As the dataset says."""
        return self._said.full_reference

    @property
    def missing(self) -> int:
        """As the dataset says."""
        return self._said.missing

    def rows(self) -> tuple[Row, ...]:
        """As the dataset says."""
        return self._said.rows

    def load(self, row: Row) -> Item:
        """The image of `row` from its block. Raises the `DataError` that reading it gave."""
        held = self._block(self._place_of[row.image_id])[row.image_id]
        if isinstance(held, str):
            raise DataError(held)
        return Item(
            image_id=row.image_id,
            x=_floats(held.x),
            ref=None if held.ref is None else _floats(held.ref),
            mos=row.mos,
            mos_std=row.mos_std,
            reference_id=row.reference_id,
        )

    def size(self, row: Row) -> tuple[int, int]:
        """(H, W) of the image of `row`. Raises the `DataError` that reading it gave."""
        size = self._said.sizes[row.image_id]
        if isinstance(size, str):
            raise DataError(size)
        return size

    def changed(self, **params: Any) -> Dataset:
        """The dataset itself, read from files, with other parameters."""
        return make_dataset(self._said.component, self._said.data_root).changed(**params)

    def _table(self) -> Sequence[Row]:
        return self._said.rows

    def _digests(self, row: Row) -> tuple[str, str | None]:
        raise NotImplementedError("a manifest is taken from the dataset itself")


def _floats(pixels: np.ndarray) -> torch.Tensor:
    return from_uint8(torch.from_numpy(pixels.copy()))  # shared memory is read-only, which torch does not know
