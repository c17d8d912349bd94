"""Datasets whose pixels are files in a folder: finding, checking, decoding and hashing them."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.datasets.decode import header_size, read_rgb
from iqa_robust.datasets.tree import FileTree
from iqa_robust.errors import DataError
from iqa_robust.images import from_uint8

DATA_VARIABLE = "IQA_ROBUST_DATA"
"""Environment variable with the folder that holds the datasets' folders."""

_BLOCK = 2**20


class FileDataset(Dataset):
    """A dataset in a folder. What is left to write is `_labels`: the rows as the authors give them."""

    exif_orientation: bool = False
    """Turn images as their EXIF tag says; only where the authors did."""

    @abstractmethod
    def _labels(self) -> Sequence[Row]:
        """The authors' table, every split, in its order. May use `_file` to find the table."""

    def _table(self) -> Sequence[Row]:
        return self._all_labels

    @cached_property
    def _all_labels(self) -> tuple[Row, ...]:
        return tuple(self._labels())

    @cached_property
    def tree(self) -> FileTree:
        """The dataset's folder.

        Raises:
            DataError: it is not there, or nothing says where it is.
        """
        return FileTree(self._root())

    def _root(self) -> Path:
        if self.root is not None:
            return Path(self.root)
        data_root = os.environ.get(DATA_VARIABLE)
        if not data_root:
            raise self._broken(
                f"no root given and {DATA_VARIABLE} is not set; give root, or set it to the folder that holds"
                f" {' or '.join(map(repr, self.folders))} (obtain the dataset from {self.homepage})"
            )
        found = self.locate(data_root)
        if found is None:
            raise self._broken("no root given; it has no place of its own under a data root")
        return found

    def _place(self) -> str:
        return str(self.tree.root)

    def _file(self, name: str) -> Path:
        """A file every copy of the dataset has, such as its label table.

        Raises:
            DataError: it is not there.
        """
        found = self.tree.find(name)
        if found is None:
            raise self._broken(
                f"expected the file {name!r} in {self.tree.root}, found none;"
                f" obtain the dataset in its authors' layout from {self.homepage}"
            )
        return found

    def _present(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        present, absent = [], []
        for row in rows:
            image = self.tree.find(row.path)
            ref = None if row.ref_path is None else self.tree.find(row.ref_path)
            if image is None:
                absent.append(row.path)
            elif ref is None and row.ref_path is not None:
                absent.append(row.ref_path)
            else:
                ref_path = None if ref is None else self.tree.relative(ref)
                present.append(replace(row, path=self.tree.relative(image), ref_path=ref_path))
        return present, list(dict.fromkeys(absent))

    def _image_path(self, name: str) -> Path:
        found = self.tree.find(name)
        if found is None:
            raise self._broken(f"the image {name!r} is missing in {self.tree.root}")
        return found

    def _decode(self, name: str) -> torch.Tensor:
        pixels = read_rgb(self._image_path(name), self.exif_orientation, self.resize, self.crop)
        return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())

    def load(self, row: Row) -> Item:
        """The image of `row`, and its reference where it has one.

        Raises:
            DataError: a file is missing, broken, too large, of a kind that is refused, or the reference has
                another size than the image.
        """
        x = self._decode(row.path)
        ref = None if row.ref_path is None else self._decode(row.ref_path)
        if ref is not None and ref.shape != x.shape:
            raise self._broken(
                f"{row.image_id!r} has {tuple(x.shape[1:])} pixels and its reference {row.ref_path!r}"
                f" {tuple(ref.shape[1:])}; expected one size"
            )
        return Item(row.image_id, x, ref, row.mos, row.mos_std, row.reference_id)

    def size(self, row: Row) -> tuple[int, int]:
        """(H, W) of what `load` will return, from the header alone. Raises `DataError` as `load` does."""
        return header_size(self._image_path(row.path), self.exif_orientation, self.resize, self.crop)

    def _digests(self, row: Row) -> tuple[str, str | None]:
        image = _sha256(self._image_path(row.path))
        return image, None if row.ref_path is None else _sha256(self._image_path(row.ref_path))

    def _pixel_parameters(self) -> dict[str, Any]:
        return {**super()._pixel_parameters(), "exif_orientation": self.exif_orientation}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file.") from error
    return digest.hexdigest()
