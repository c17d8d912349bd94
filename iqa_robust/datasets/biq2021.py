"""BIQ2021: photographs with authentic distortions, rated in a laboratory, with an official split."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_csv


class BIQ2021(FileDataset):
    """12,000 photographs, MOS 0..1, higher is better (Ahmed and Asif, 2022).

    Layout: `Images/*` and `{Train,Test} (Images and MOS).csv`, which are the official split (10,000 and
    2,000); the rows keep that order, train first. One official name differs in case from its file. About
    one image in thirty carries an EXIF orientation, which the authors' own code ignores, and so does this.
    """

    name = "biq2021"
    folders = ("biq2021", "BIQ2021")
    homepage = "https://github.com/nisarahmedrana/BIQ2021"
    license_note = "The authors state no license; two thirds of the images come from Unsplash."
    mos_range = (0.0, 1.0)

    def _labels(self) -> Sequence[Row]:
        rows = []
        for split in ("train", "test"):
            path = self._file(f"{split.title()} (Images and MOS).csv")
            for record in read_csv(path, ("Image Name", "MOS")):
                image = record["Image Name"]
                mos = number(record["MOS"], f"{path}, {image!r}, MOS")
                rows.append(Row(image, f"Images/{image}", mos, split=split))
        return rows
