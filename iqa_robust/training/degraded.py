"""Pristine pictures, degraded with the distortion bank and labeled with pseudo-MOS: more training data for free."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.datasets.consensus import KNOTS_FILE, pseudo_mos
from iqa_robust.datasets.distortions import BANK_VERSION, DISTORTIONS, LEVELS, Picture, distort, stable_seed
from iqa_robust.errors import DataError
from iqa_robust.images import from_uint8, to_uint8
from iqa_robust.training.progress import Listener, Progress
from iqa_robust.training.sections import Pristine

SUFFIXES = (".bmp", ".png", ".tif", ".tiff")
"""Lossless formats: a JPEG is not pristine."""


def best_pictures(dataset: Dataset, settings: Pristine) -> dict[str, Picture]:
    """The images of the highest scores of a dataset, reduced by `settings.shrink`, uint8 (H, W, 3), by their ids."""
    sign = 1 if dataset.mos_higher_is_better else -1
    rows = sorted(dataset.rows(), key=lambda row: (-sign * row.mos, row.image_id))[: settings.pictures]
    return {row.image_id: _reduced(dataset.load(row), settings.shrink) for row in rows}


def _reduced(item: Item, factor: int) -> Picture:
    picture = to_uint8(item.x).permute(1, 2, 0).numpy()
    return picture if factor == 1 else np.array(Image.fromarray(picture).reduce(factor))


def read_pictures(folder: Path) -> dict[str, Picture]:
    """The lossless pictures of a folder by their names without suffix, uint8 (H, W, 3), sorted.

    Raises:
        DataError: the folder is missing, holds none, or one cannot be read.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"pristine pictures: expected {', '.join(SUFFIXES)} files in {folder}, found none.")
    pictures = {}
    for path in files:
        try:
            with Image.open(path) as image:
                pictures[path.stem] = np.array(image.convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not a picture that can be read ({error}).") from error
    return pictures


class DegradedPictures:
    """Square crops of pristine pictures, each in several distorted versions chosen by the seed.

    Labels take about a tenth of a second each, so they are computed once and kept in `labels` (a CSV file), after
    every picture; a labeling that was interrupted goes on where it stopped.
    """

    def __init__(self, pictures: Mapping[str, Picture], settings: Pristine, seed: int, labels: Path) -> None:
        """`pictures`: uint8 (H, W, 3) by name; `labels`: where their labels are kept."""
        self.settings = settings
        self.seed = seed
        self._labels_file = labels
        self._pictures = dict(pictures)
        self._rows: list[Row] | None = None

    def rows(self, listener: Listener) -> list[Row]:
        """All rows in a fixed order; `reference_id` is the picture. Labels what has no label yet."""
        if self._rows is None:
            labels = self._read()
            wanted = {name: list(self._versions(name)) for name in self._pictures}
            total = sum(map(len, wanted.values()))
            for ids in wanted.values():
                new = [image_id for image_id in ids if image_id not in labels]
                if new:
                    labels.update(self._label(new))
                    self._write(labels)
                listener(Progress("label", done=sum(i in labels for v in wanted.values() for i in v), total=total))
            self._rows = [
                Row(image_id, image_id, labels[image_id], reference_id=name)
                for name, ids in wanted.items()
                for image_id in ids
            ]
        return self._rows

    def load(self, row: Row) -> Item:
        """The distorted crop and its reference."""
        image, reference = self._render(row.image_id)
        return Item(row.image_id, _to_tensor(image), _to_tensor(reference), row.mos, None, row.reference_id)

    def manifest(self) -> str:
        """Hex sha256 over the pictures, the crops, the versions and what the labels mean."""
        digest = hashlib.sha256(self._key().encode())
        for name, picture in self._pictures.items():
            digest.update(f"{name} {hashlib.sha256(picture.tobytes()).hexdigest()}\n".encode())
        return digest.hexdigest()

    def _key(self) -> str:
        knots = hashlib.sha256(KNOTS_FILE.read_bytes()).hexdigest()
        return json.dumps([BANK_VERSION, knots, self.settings.crop, self.settings.per_crop, self.seed])

    def _versions(self, name: str) -> Iterator[str]:
        height, width = self._pictures[name].shape[:2]
        side = self.settings.crop
        bank = [(kind, level) for kind in DISTORTIONS for level in LEVELS]
        for number in range((height // side) * (width // side)):
            order = sorted(bank, key=lambda pair: stable_seed(self.seed, name, number, *pair))
            for kind, level in order[: self.settings.per_crop]:
                yield f"{name}_{number}_{kind}_{level}"

    def _render(self, image_id: str) -> tuple[Picture, Picture]:
        name, number, kind, level = image_id.rsplit("_", 3)
        side, picture = self.settings.crop, self._pictures[name]
        row, column = divmod(int(number), picture.shape[1] // side)
        reference = np.ascontiguousarray(picture[row * side : (row + 1) * side, column * side : (column + 1) * side])
        return distort(reference, kind, int(level), stable_seed(name, number)), reference

    def _label(self, ids: list[str], batch: int = 16) -> dict[str, float]:
        labels: dict[str, float] = {}
        for start in range(0, len(ids), batch):
            some = ids[start : start + batch]
            pairs = [self._render(image_id) for image_id in some]
            scores = pseudo_mos(
                torch.stack([_to_tensor(reference) for _, reference in pairs]),
                torch.stack([_to_tensor(image) for image, _ in pairs]),
            )
            labels.update(zip(some, (round(score, 2) for score in scores.tolist()), strict=True))
        return labels

    def _read(self) -> dict[str, float]:
        """Labels kept earlier; none where the file is missing or was made under other settings."""
        try:
            with self._labels_file.open(newline="", encoding="utf-8") as file:
                key, *rows = csv.reader(file)
                return {image_id: float(mos) for image_id, mos in rows} if key == [self._key()] else {}
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, labels: dict[str, float]) -> None:
        temporary = self._labels_file.with_name(f".{self._labels_file.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([self._key()])
            writer.writerows((image_id, f"{mos:.2f}") for image_id, mos in labels.items())
        temporary.replace(self._labels_file)


def _to_tensor(picture: Picture) -> torch.Tensor:
    return from_uint8(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).contiguous())
