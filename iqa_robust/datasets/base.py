"""The contract every dataset keeps: `Row` (what a label table says), `Item` (with pixels) and `Dataset`."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from iqa_robust.datasets.loading import load_ahead
from iqa_robust.datasets.splits import nested_sample, seeded_split
from iqa_robust.errors import DataError, RequestError

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "val", "test", "all")
HASH_THREADS = 4
"""Threads that hash files for the manifest; hashing and reading both release the interpreter lock."""


@dataclass(frozen=True)
class Row:
    """What the label table says of one image, without pixels.

    `image_id` is the name the authors' table uses; `path` and `ref_path` are relative to the dataset's root,
    with forward slashes; `split` is the official one ("train", "val", "test") or None where there is none.
    """

    image_id: str
    path: str
    mos: float
    mos_std: float | None = None
    reference_id: str | None = None
    ref_path: str | None = None
    split: str | None = None

    @property
    def content(self) -> str:
        """What must stay on one side of a split: the reference, or the image itself where there is none."""
        return self.image_id if self.reference_id is None else self.reference_id


@dataclass(frozen=True, eq=False)
class Item:
    """One image with its label. `x` and `ref` are float32 (3, H, W), RGB, exactly k/255 with k in 0..255."""

    image_id: str
    x: torch.Tensor
    ref: torch.Tensor | None
    mos: float
    mos_std: float | None
    reference_id: str | None


class Dataset(ABC):
    """Images with human scores, in a fixed order, with splits that never share a reference content.

    A dataset is written by giving the class attributes, `_table` (the whole label table), `load`, `size` and
    `_digests`; one whose pixels are files derives from `FileDataset`, which has the last three. Nothing is
    read before the first use. `load` and `size` must be safe to call from several threads.

    Args:
        root: the dataset's folder; None looks for one of `folders` in the folder that the environment
            variable `IQA_ROBUST_DATA` names.
        split: "train", "val" (where the authors have one), "test" or "all".
        split_seed: seed of the split where the authors give none, and of the sample that `limit` takes.
        crop: side in pixels of a central square crop, after `resize`; None keeps the whole image.
        resize: short side in pixels, by Pillow's antialiased bicubic; None keeps the size. Nothing else
            resizes.
        allow_missing: go on without the absent images and count them in `missing`, instead of an error.
        limit: at most so many rows: a seeded sample spread over the MOS, a part of every larger sample.

    Raises:
        RequestError: an argument is not one of the values above.
    """

    name: ClassVar[str]
    """The registry name."""
    folders: ClassVar[tuple[str, ...]] = ()
    """Names under a data root where the dataset is looked for; none where it needs no folder of its own."""
    homepage: ClassVar[str] = ""
    """Where to obtain it."""
    license_note: ClassVar[str] = ""
    """The authors' terms in one sentence."""
    label_kind: ClassVar[str] = "human scores"
    """What the labels are, as a report prints it."""
    mos_higher_is_better: bool = True
    """False where the table holds difference scores that grow with the damage (DMOS)."""

    def __init__(
        self,
        *,
        root: str | None = None,
        split: str = "test",
        split_seed: int = 0,
        crop: int | None = None,
        resize: int | None = None,
        allow_missing: bool = False,
        limit: int | None = None,
    ) -> None:
        if split not in SPLITS:
            raise self._refuse(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        for key, value in (("crop", crop), ("resize", resize), ("limit", limit)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise self._refuse(f"{key} must be a whole number >= 1, got {value!r}")
        if isinstance(split_seed, bool) or not isinstance(split_seed, int):
            raise self._refuse(f"split_seed must be a whole number, got {split_seed!r}")
        self.root = root
        self.split = split
        self.split_seed = split_seed
        self.crop = crop
        self.resize = resize
        self.allow_missing = allow_missing
        self.limit = limit

    def _refuse(self, reason: str) -> RequestError:
        return RequestError(f"dataset {self.name!r}: {reason}.")

    def _broken(self, reason: str) -> DataError:
        return DataError(f"dataset {self.name!r}: {reason}.")

    # What a dataset gives

    @property
    @abstractmethod
    def mos_range(self) -> tuple[float, float]:
        """The limits of the score scale, in the table's units. A class attribute, mostly."""

    @property
    def full_reference(self) -> bool:
        """Whether every row has a reference image. A class attribute, mostly."""
        return False

    @abstractmethod
    def _table(self) -> Sequence[Row]:
        """The whole label table, every split, in the order of the authors' table, present on disk or not."""

    @abstractmethod
    def load(self, row: Row) -> Item:
        """The image of `row`, and its reference where it has one.

        Raises:
            DataError: a file is missing, broken, too large, or of a kind that is refused.
        """

    @abstractmethod
    def size(self, row: Row) -> tuple[int, int]:
        """(H, W) of what `load` will return, from the file's header alone."""

    @abstractmethod
    def _digests(self, row: Row) -> tuple[str, str | None]:
        """Hex sha256 of the stored image of `row`, and of its reference."""

    def _present(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """The rows whose files are there, and the paths of the files that are not."""
        return list(rows), []

    def _place(self) -> str:
        """Where the images are, for error messages."""
        return "the package"

    @classmethod
    def locate(cls, data_root: str | Path) -> Path | None:
        """The dataset's folder under `data_root`, or None where the dataset needs no folder.

        Raises:
            DataError: none of `folders` is there.
        """
        if not cls.folders:
            return None
        for folder in cls.folders:
            if (found := Path(data_root) / folder).is_dir():
                return found
        raise DataError(
            f"dataset {cls.name!r}: expected a folder named {' or '.join(map(repr, cls.folders))}"
            f" in {data_root}, found none; obtain the dataset from {cls.homepage} or give its folder as root."
        )

    # What every dataset does

    def changed(self, **params: Any) -> Dataset:
        """A dataset of the same kind that differs in the given parameters, such as `split`."""
        return type(self)(**{**{name: getattr(self, name) for name in signature(type(self)).parameters}, **params})

    def rows(self) -> tuple[Row, ...]:
        """The rows of the split that are present, in the order of the authors' table, at most `limit`.

        Raises:
            DataError: the layout or the label table is not what was expected, or images are missing.
            RequestError: the dataset has no such split.
        """
        return self._selection[0]

    @property
    def missing(self) -> int:
        """How many rows of the split lack a file. Never above 0 unless `allow_missing`."""
        return self._selection[1]

    @cached_property
    def _selection(self) -> tuple[tuple[Row, ...], int]:
        table = list(self._table())
        self._check_table(table)
        chosen = self._choose(table)
        present, absent = self._present(chosen)
        count = len(chosen) - len(present)
        if count and not (self.allow_missing and present):
            shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
            source = f"the layout of {self.homepage}" if self.homepage else "the files the label table names"
            advice = "set allow_missing to true to go on without them" if present else "check root"
            raise self._broken(
                f"expected {source} in {self._place()}, but {count} of {len(chosen)} images of split"
                f" {self.split!r} are missing ({shown}); {advice}"
            )
        if self.limit is not None and self.limit < len(present):
            keys = [(row.mos, row.image_id) for row in present]
            present = [present[i] for i in nested_sample(keys, self.limit, self.split_seed)]
        return tuple(present), count

    def _check_table(self, table: Sequence[Row]) -> None:
        if not table:
            raise self._broken("expected a label table with rows, got an empty one")
        low, high = self.mos_range
        seen: set[str] = set()
        for row in table:
            if row.image_id in seen:
                raise self._broken(f"the label table names {row.image_id!r} twice; remove one row")
            seen.add(row.image_id)
            if not (math.isfinite(row.mos) and low <= row.mos <= high):
                raise self._broken(
                    f"the MOS of {row.image_id!r} is {row.mos}; expected a number from {low:g} to {high:g};"
                    " check the label table"
                )
            if row.mos_std is not None and not (math.isfinite(row.mos_std) and row.mos_std >= 0):
                raise self._broken(
                    f"the MOS standard deviation of {row.image_id!r} is {row.mos_std}; expected a finite number >= 0"
                )

    def _choose(self, table: Sequence[Row]) -> list[Row]:
        official = {row.split for row in table}
        if official != {None}:
            self._check_official(table)
        if self.split == "all":
            return list(table)
        if official == {None}:
            train, test = seeded_split((row.content for row in table), self.split_seed)
            sides = {"train": train, "test": test}
            names = [name for name, contents in sides.items() if contents]
            rows = [row for row in table if row.content in sides.get(self.split, frozenset())]
        else:
            names = [name for name in SPLITS if name in official]
            rows = [row for row in table if row.split == self.split]
        if not rows:
            raise self._refuse(f"there is no split {self.split!r}; choose one of {', '.join([*names, 'all'])}")
        return rows

    def _check_official(self, table: Sequence[Row]) -> None:
        sides: dict[str, str | None] = {}
        for row in table:
            if row.split not in SPLITS[:3]:
                raise self._broken(
                    f"the split of {row.image_id!r} is {row.split!r}; expected train, val or test"
                    " for every row, or for none"
                )
            if sides.setdefault(row.content, row.split) != row.split:
                raise self._broken(
                    f"the reference content {row.content!r} is in the splits {sides[row.content]!r} and"
                    f" {row.split!r}; expected it on one side only"
                )

    def __len__(self) -> int:
        return len(self.rows())

    def __iter__(self) -> Iterator[Item]:
        """Items in order, a few ahead. Raises the `DataError` of the first image that cannot be read."""
        for item in self.prefetch(self.rows()):
            if isinstance(item, DataError):
                raise item
            yield item

    def prefetch(self, rows: Sequence[Row], workers: int = 2, ahead: int = 8) -> Generator[Item | DataError]:
        """Load `rows` in threads: one result per row, in their order, at most `ahead` of them in memory.

        An image that cannot be read gives its error in place of an item, so one broken file never ends a run. Who stops
        before the end closes the generator, as `load_ahead` says.
        """
        if workers < 1 or ahead < 1:
            raise RequestError(f"prefetch: expected workers >= 1 and ahead >= 1, got {workers} and {ahead}.")
        return load_ahead((partial(self._load_or_error, row) for row in rows), min(workers, ahead), ahead)

    def _load_or_error(self, row: Row) -> Item | DataError:
        try:
            return self.load(row)
        except DataError as error:
            return error

    def manifest(self) -> str:
        """Hex sha256 over the labels, the image bytes and all that changes pixels, of this instance's rows.

        Independent of where the files lie and of the order of the table. Every image is read, in threads.
        """
        return self._manifest

    @cached_property
    def _manifest(self) -> str:
        rows = sorted(self.rows(), key=lambda row: row.image_id)
        with ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="iqa-robust-hash") as pool:
            digests = list(pool.map(self._digests, rows))
        head = {"dataset": self.name, "n": len(rows), **self._pixel_parameters()}
        digest = hashlib.sha256(_canonical(head))
        for row, (image, ref) in zip(rows, digests, strict=True):
            digest.update(_canonical([row.image_id, row.mos, row.mos_std, row.reference_id, image, ref]))
        return digest.hexdigest()

    def _pixel_parameters(self) -> dict[str, Any]:
        """The parameters that change pixels without changing files; part of the manifest."""
        return {"crop": self.crop, "resize": self.resize}

    def describe(self) -> dict[str, Any]:
        """What this instance is, as JSON: no paths of this machine, so that two machines describe alike."""
        return {
            "name": self.name,
            "split": self.split,
            "split_seed": self.split_seed,
            "limit": self.limit,
            **self._pixel_parameters(),
            "n_images": len(self),
            "n_missing": self.missing,
            "n_contents": len({row.content for row in self.rows()}),
            "mos_range": list(self.mos_range),
            "mos_higher_is_better": self.mos_higher_is_better,
            "full_reference": self.full_reference,
            "homepage": self.homepage,
            "license_note": self.license_note,
        }


def _canonical(value: Any) -> bytes:
    """One line of JSON; floats as their shortest exact decimal, so equal numbers give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False).encode() + b"\n"
