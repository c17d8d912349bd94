"""KonIQ-10k: photographs with authentic distortions, rated by a crowd, with an official split."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_csv

SIZES = ("1024x768", "512x384")
"""The folders the authors offer: the rated images, and the same at half the size."""

_SPLITS = {"training": "train", "validation": "val", "test": "test"}

DEVIATION_SCALE = 25.0
"""`SD` is in units of the five-step rating scale, `MOS` on a scale of 100: one step of four is 25."""


class KonIQ10k(FileDataset):
    """10,073 photographs, MOS 0..100, higher is better (Hosu, Lin, Sziranyi and Saupe, 2020).

    Layout: `koniq10k_distributions_sets.csv` and the folder `1024x768` or `512x384`. The column `set` is the
    official split: 7,058 train, 1,000 val, 2,015 test. `mos_std` is the table's `SD` times 25, see
    `DEVIATION_SCALE`; the MOS comes from normalized scores, so this is its nominal size, not an exact one.

    Args:
        images: the folder to read, one of `SIZES`.
        root, split, split_seed, crop, resize, allow_missing, limit: as for every `Dataset`.

    Raises:
        RequestError: `images` is neither.
    """

    name = "koniq10k"
    folders = ("koniq10k", "KonIQ-10k")
    homepage = "https://database.mmsp-kn.de/koniq-10k-database.html"
    license_note = "Images from YFCC100m under their own Creative Commons licenses; cite the paper."
    mos_range = (0.0, 100.0)

    def __init__(
        self,
        *,
        images: str = "1024x768",
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
        if images not in SIZES:
            raise self._refuse(f"images must be one of {', '.join(SIZES)}, got {images!r}")
        self.images = images

    def _labels(self) -> Sequence[Row]:
        path = self._file("koniq10k_distributions_sets.csv")
        rows = []
        for record in read_csv(path, ("image_name", "MOS", "SD", "set")):
            image = record["image_name"]
            mos, std = (number(record[key], f"{path}, {image!r}, {key}") for key in ("MOS", "SD"))
            split = _SPLITS.get(record["set"])
            if split is None:
                raise self._broken(
                    f"{path} puts {image!r} into the set {record['set']!r}; expected one of {', '.join(_SPLITS)}"
                )
            rows.append(Row(image, f"{self.images}/{image}", mos, std * DEVIATION_SCALE, split=split))
        return rows
