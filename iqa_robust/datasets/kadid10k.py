"""KADID-10k, Konstanz artificially distorted image quality database: 81 references under 25 distortions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_csv


class KADID10k(FileDataset):
    """10,125 distorted images, scores 1..5, higher is better (Lin, Hosu and Saupe, 2019).

    Layout: `images/*.png`, references among them, and `dmos.csv` (`dist_img,ref_img,dmos,var`). Despite its
    name `dmos` is 5 for an imperceptible difference, and `var` holds standard deviations: a mean of 1.10
    over thirty ratings comes with 0.3, the root of 0.09. No official split: a seeded 80/20 one by
    reference.
    """

    name = "kadid10k"
    folders = ("kadid10k", "KADID-10k")
    homepage = "https://database.mmsp-kn.de/kadid-10k-database.html"
    license_note = "Images from Pixabay under its license; cite the paper."
    mos_range = (1.0, 5.0)
    full_reference = True

    def _labels(self) -> Sequence[Row]:
        path = self._file("dmos.csv")
        rows = []
        for record in read_csv(path, ("dist_img", "ref_img", "dmos", "var")):
            image, ref = record["dist_img"], record["ref_img"]
            mos, std = (number(record[key], f"{path}, {image!r}, {key}") for key in ("dmos", "var"))
            rows.append(Row(image, f"images/{image}", mos, std, PurePosixPath(ref).stem, f"images/{ref}"))
        return rows
