"""The embedded dataset: distorted crops of photographs that ship inside our dependencies, with pseudo-MOS.

It needs no download and is small, so it serves tests, examples and first runs. Its labels are pseudo-MOS, a
consensus of full-reference measures (see `consensus`), not opinions of people: results on it say how a model
and an attack behave, not how well a model predicts human opinion.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.datasets.decode import MAX_PIXELS
from iqa_robust.datasets.distortions import BANK_VERSION, DISTORTIONS, LEVELS, Picture, distort, stable_seed
from iqa_robust.datasets.photo_sources import CROP_SIDE, SOURCES, Source, read_crop
from iqa_robust.images import from_uint8

LABELS_FILE = Path(__file__).with_name("photos_labels.csv")
COLOR_ONLY = ("desaturation",)
"""Types that leave a gray picture as it is; gray pictures go without them."""


class Photos(Dataset):
    """Crops of 192 x 192 pixels, distorted on the fly: 19 types, 5 levels, pseudo-MOS from 0 to 100.

    The splits are fixed and separate whole pictures: no picture has crops on both sides. `reference_id` names
    the crop. `mos_std` is the spread over the measures of the consensus, not over people.

    The undistorted crops are references only, not items: a full-reference model has nothing to say about a
    picture compared with itself, and its gradient there is zero or undefined. Their pseudo-MOS would be 100.

    The pixels come out of installed codecs and may differ a little between their versions. `manifest()`
    therefore stands on what is fixed: source files, crops, version of the bank, ids and labels.

    `limit` takes a sample balanced over crops, types and levels, a part of every larger sample of the same
    `split_seed`.

    Args:
        root: must be None, the dataset has no folder.
        split: "train", "test" or "all".
        split_seed: seed of the sample that `limit` takes; the splits are fixed.
        crop: side of a central square crop, after `resize`.
        resize: short side in pixels.
        allow_missing: accepted for the common signature; nothing is ever missing.
        limit: at most so many rows.

    Raises:
        RequestError: `root` is given, or an argument is out of range.
    """

    name: ClassVar[str] = "photos"
    license_note: ClassVar[str] = (
        "Photographs from the wheels of scikit-image, scikit-learn and Matplotlib: public domain, CC0,"
        " CC BY 2.0 and one without a stated license; see iqa_robust/datasets/photo_sources.py."
    )
    mos_range = (0.0, 100.0)
    mos_higher_is_better = True
    full_reference: ClassVar[bool] = True
    label_kind = "pseudo-MOS: a consensus of full-reference measures, not human scores"

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
        super().__init__(
            root=root,
            split=split,
            split_seed=split_seed,
            crop=crop,
            resize=resize,
            allow_missing=allow_missing,
            limit=limit,
        )
        if root is not None:
            raise self._refuse(f"it ships inside the installed packages and takes no root, got {root!r}")

    def _table(self) -> Sequence[Row]:
        labels = _labels()
        rows = []
        for source in SOURCES:
            for reference in source.references:
                for name, level in combinations(source):
                    image_id = f"{reference}_{name}_{level}"
                    if image_id not in labels:
                        raise self._broken(f"{LABELS_FILE} lacks {image_id!r}; reinstall iqa-robust")
                    mos, spread = labels[image_id]
                    rows.append(Row(image_id, image_id, mos, spread, reference, reference, source.split))
        return rows

    @cached_property
    def _selection(self) -> tuple[tuple[Row, ...], int]:
        table = list(self._table())
        self._check_table(table)
        rows = self._choose(table)
        if self.limit is not None and self.limit < len(rows):
            kept = set(balanced_order(rows, self.split_seed)[: self.limit])
            rows = [row for row in rows if row.image_id in kept]
        return tuple(rows), 0

    def load(self, row: Row) -> Item:
        """Cut the crop and distort it: a few milliseconds.

        Raises:
            DataError: a picture is missing from its package or is another one, or the images are smaller than
            `crop`.
        """
        side, _ = self.size(row)
        x, ref = (self._to_tensor(picture, side) for picture in render(row.image_id))
        return Item(row.image_id, x, ref, row.mos, row.mos_std, row.reference_id)

    def size(self, row: Row) -> tuple[int, int]:
        """(H, W) of the items, the same for all of them. Raises `DataError` as `load` does."""
        side = self.resize or CROP_SIDE
        if side * side > MAX_PIXELS:
            raise self._broken(f"resize={side} asks for more than {MAX_PIXELS} pixels; choose a smaller one")
        if self.crop is None:
            return side, side
        if self.crop > side:
            raise self._broken(f"{side}x{side} are too few for crop={self.crop}; choose a smaller one")
        return self.crop, self.crop

    def _digests(self, row: Row) -> tuple[str, str | None]:
        """Hashes of what the pixels are made from: the pixels themselves depend on installed codecs."""
        source, number, name, level = _parse(row.image_id)
        parts = (source.sha256, source.corners[number], CROP_SIDE)
        return _digest(*parts, BANK_VERSION, name, level), _digest(*parts)

    def _to_tensor(self, picture: Picture, side: int) -> torch.Tensor:
        if self.resize is not None:
            resized = Image.fromarray(picture).resize((self.resize,) * 2, Image.Resampling.BICUBIC)
            picture = np.array(resized)
        start = (picture.shape[0] - side) // 2
        cut = picture[start : start + side, start : start + side].transpose(2, 0, 1)
        return from_uint8(torch.from_numpy(cut.copy()))


def combinations(source: Source) -> Iterator[tuple[str, int]]:
    """The (type, level) pairs that the crops of a picture get, types in the order of the bank."""
    for name in DISTORTIONS:
        if not (source.gray and name in COLOR_ONLY):
            yield from ((name, level) for level in LEVELS)


def render(image_id: str) -> tuple[Picture, Picture]:
    """The distorted crop and its reference, uint8 (192, 192, 3), for an id like `chelsea-0_jpeg_3`."""
    source, number, name, level = _parse(image_id)
    reference = read_crop(source, number)
    return distort(reference, name, level, stable_seed(source.name, number)), reference


def balanced_order(rows: Sequence[Row], seed: int) -> list[str]:
    """Image ids in an order whose every prefix is balanced over crops, types and levels.

    Crops take turns; each takes, of what it has left, the type used least so far, then the level used least
    with that type, then the level used least at all. Ties are broken by a seeded hash.
    """
    left: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        reference, name, level = row.image_id.rsplit("_", 2)
        left.setdefault(reference, []).append((name, level))
    crops = sorted(left, key=lambda reference: stable_seed(seed, reference))
    tie = {
        reference: {pair: stable_seed(seed, reference, *pair) for pair in pairs} for reference, pairs in left.items()
    }
    used: Counter[object] = Counter()
    order: list[str] = []
    while left:
        for reference in [crop for crop in crops if crop in left]:
            best = min(
                left[reference],
                key=lambda pair: (used[pair[0]], used[pair], used[pair[1]], tie[reference][pair]),
            )
            left[reference].remove(best)
            if not left[reference]:
                del left[reference]
            used.update((best, *best))
            order.append("_".join((reference, *best)))
    return order


def _parse(image_id: str) -> tuple[Source, int, str, int]:
    reference, name, level = image_id.rsplit("_", 2)
    picture, number = reference.rsplit("-", 1)
    return _SOURCE[picture], int(number), name, int(level)


def _digest(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


@cache
def _labels() -> dict[str, tuple[float, float]]:
    """The shipped pseudo-MOS and their spread over the measures, by image id."""
    with LABELS_FILE.open(newline="", encoding="utf-8") as file:
        return {
            f"{row['reference_id']}_{row['distortion']}_{row['level']}": (
                float(row["pseudo_mos"]),
                float(row["mos_std"]),
            )
            for row in csv.DictReader(file)
        }


_SOURCE = {source.name: source for source in SOURCES}
