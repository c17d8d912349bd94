"""TID2013, Tampere Image Database: 25 references under 24 distortions at five levels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_lines, same_length


class TID2013(FileDataset):
    """3,000 distorted images, MOS 0..9, higher is better (Ponomarenko et al., 2015).

    Layout: `distorted_images/*.bmp`, `reference_images/*.BMP`, `mos_with_names.txt` and, line by line
    beside it, `mos_std.txt`: the deviation of the MOS itself (a standard error), given as it is. The case
    of names varies between tables and files. Reference 25 is the one synthetic picture. No official split:
    a seeded 80/20 one by reference.
    """

    name = "tid2013"
    folders = ("tid2013", "TID2013")
    homepage = "https://www.ponomarenko.info/tid2013.htm"
    license_note = "Free for research, see the authors' page; cite the paper."
    mos_range = (0.0, 9.0)
    full_reference = True

    def _labels(self) -> Sequence[Row]:
        path = self._file("mos_with_names.txt")
        scores = read_lines(path, 2)
        deviations = read_lines(self._file("mos_std.txt"), 1)
        same_length(path.parent, mos_with_names=scores, mos_std=deviations)
        rows = []
        for (mos, image), (std,) in zip(scores, deviations, strict=True):
            if not re.fullmatch(r"[iI]\d\d_\d\d_\d\.(bmp|BMP)", image):
                raise self._broken(f"{path} names {image!r}; expected a name like 'i01_01_1.bmp'")
            reference = image[:3].upper()
            where = f"{path}, {image!r}"
            rows.append(
                Row(
                    image,
                    f"distorted_images/{image}",
                    number(mos, f"{where}, MOS"),
                    number(std, f"{where}, deviation"),
                    reference,
                    f"reference_images/{reference}.BMP",
                )
            )
        return rows
