"""LIVE In the Wild Image Quality Challenge: phone photographs with authentic distortions."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import read_mat_names, read_mat_numbers, same_length

TRAINING_IMAGES = 7
"""The tables begin with the images that trained the study's subjects; they are no part of the database."""


class CLIVE(FileDataset):
    """1,162 photographs, MOS 0..100, higher is better (Ghadiyaram and Bovik, 2016).

    Layout: `Images/*` and `Data/{AllImages,AllMOS,AllStdDev}_release.mat`, with the deviation of the raw
    scores. The first seven rows of the tables are the study's training images and are left out. No official
    split: a seeded 80/20 one by image.
    """

    name = "clive"
    folders = ("clive", "CLIVE", "ChallengeDB_release")
    homepage = "https://live.ece.utexas.edu/research/ChallengeDB/index.html"
    license_note = "Use, copy, modify and distribute for any purpose with the copyright notice; cite the paper."
    mos_range = (0.0, 100.0)

    def _labels(self) -> Sequence[Row]:
        path = self._file("Data/AllImages_release.mat")
        names = read_mat_names(path, "AllImages_release")
        mos = read_mat_numbers(self._file("Data/AllMOS_release.mat"), "AllMOS_release")
        std = read_mat_numbers(self._file("Data/AllStdDev_release.mat"), "AllStdDev_release")
        same_length(path.parent, names=names, MOS=mos, StdDev=std)
        rows = [Row(name, f"Images/{name}", m, s) for name, m, s in zip(names, mos, std, strict=True)]
        return rows[TRAINING_IMAGES:]
