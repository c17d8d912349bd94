"""LIVE Image Quality Assessment Database, release 2: 29 references under five distortions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import read_mat_names, read_mat_numbers, same_length

DISTORTIONS = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))
"""Folder and number of images `img1.bmp`, `img2.bmp`, ...; the label arrays are joined in this order."""

_ARRAYS = {
    "release2": ("dmos.mat", "dmos", None),
    "realigned": ("dmos_realigned.mat", "dmos_new", "dmos_std"),
}


class LIVE(FileDataset):
    """779 distorted images, DMOS, lower is better (Sheikh, Sabir and Bovik, 2006).

    Layout: `refimgs/*.bmp`, a folder of `img*.bmp` per distortion, `refnames_all.mat` and `dmos.mat`. The
    203 of the 982 images that are copies of references (`orgs` is 1) were only there to compute the
    differences; their DMOS of 0 is by construction, so they are left out. No official split: a seeded 80/20
    one by reference.

    Args:
        dmos: "release2" takes the scores that the release ships (`dmos.mat`, 0..100, no deviations).
            "realigned" takes the later ones of the 2006 paper, from the file `dmos_realigned.mat` that the
            authors give beside the release (on one scale across distortions, with deviations, not confined
            to 0..100).
        root, split, split_seed, crop, resize, allow_missing, limit: as for every `Dataset`.

    Raises:
        RequestError: `dmos` is neither.
    """

    name = "live"
    folders = ("live/databaserelease2", "databaserelease2", "live", "LIVE")
    homepage = "https://live.ece.utexas.edu/research/quality/subjective.htm"
    license_note = "Use, copy, modify and distribute with the copyright notice; cite the papers it names."
    mos_higher_is_better = False
    full_reference = True

    def __init__(
        self,
        *,
        dmos: str = "release2",
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
        if dmos not in _ARRAYS:
            raise self._refuse(f"dmos must be one of {', '.join(_ARRAYS)}, got {dmos!r}")
        self.dmos = dmos

    @property
    def mos_range(self) -> tuple[float, float]:
        """0..100; wider for the realigned scores, whose scale has no ends."""
        return (0.0, 100.0) if self.dmos == "release2" else (-10.0, 120.0)

    def _labels(self) -> Sequence[Row]:
        file, scores, deviations = _ARRAYS[self.dmos]
        path = self._file(file)
        dmos = read_mat_numbers(path, scores)
        copies = read_mat_numbers(path, "orgs")
        std = [None] * len(dmos) if deviations is None else read_mat_numbers(path, deviations)
        refs = read_mat_names(self._file("refnames_all.mat"), "refnames_all")
        names = list(chain(*([f"{kind}/img{i}.bmp" for i in range(1, n + 1)] for kind, n in DISTORTIONS)))
        same_length(path, images=names, dmos=dmos, orgs=copies, std=std, refnames_all=refs)
        return [
            Row(image, image, score, deviation, ref, f"refimgs/{ref}")
            for image, score, deviation, ref, copy in zip(names, dmos, std, refs, copies, strict=True)
            if not copy
        ]
