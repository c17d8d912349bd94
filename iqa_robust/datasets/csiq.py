"""CSIQ, Categorical Subjective Image Quality: 30 references under six distortions."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_lines, read_xlsx

TEXT_TABLE = "csiq_label.txt"
EXCEL_TABLE = "csiq.DMOS.xlsx"

_KINDS = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}
"""Name in the Excel table -> folder and the word in file names."""

_COLUMNS = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")


class CSIQ(FileDataset):
    """866 distorted images, DMOS 0..1, lower is better (Larson and Chandler, 2010).

    Layout: `src_imgs/*.png`, `dst_imgs/{awgn,blur,contrast,fnoise,jpeg,jpeg2000}/*.png` and a label table:
    the text table `csiq_label.txt` that travels with many copies (`1600.AWGN.1.png 0.061989` per line, no
    deviations), or else the authors' `csiq.DMOS.xlsx` (with deviations), which needs openpyxl. Where both
    are there the text table is read, so that the outcome does not depend on what is installed. No official
    split: a seeded 80/20 one by reference.
    """

    name = "csiq"
    folders = ("csiq", "CSIQ")
    homepage = "https://s2.smu.edu/~eclarson/csiq.html"
    license_note = "The authors state no license; cite the paper."
    mos_range = (0.0, 1.0)
    mos_higher_is_better = False
    full_reference = True

    def _labels(self) -> Sequence[Row]:
        if self.tree.find(TEXT_TABLE) is None and self.tree.find(EXCEL_TABLE) is not None:
            return self._from_excel()
        return self._from_text()

    def _from_text(self) -> list[Row]:
        path = self._file(TEXT_TABLE)
        folders = {word.lower(): folder for folder, word in _KINDS.values()}
        rows = []
        for image, dmos in read_lines(path, 2):
            reference, kind, *rest = image.split(".")
            if len(rest) != 2 or kind.lower() not in folders:
                raise self._broken(f"{path} names {image!r}; expected a name like '1600.AWGN.1.png'")
            where = f"{path}, {image!r}, DMOS"
            rows.append(self._row(reference, folders[kind.lower()], image, number(dmos, where), None))
        return rows

    def _from_excel(self) -> list[Row]:
        path = self._file(EXCEL_TABLE)
        rows = []
        for record in read_xlsx(path, _COLUMNS, sheet="all_by_image"):
            kind = record["dst_type"]
            if kind not in _KINDS:
                raise self._broken(f"{path} has the distortion {kind!r}; expected one of {', '.join(_KINDS)}")
            folder, word = _KINDS[kind]
            image = f"{record['image']}.{word}.{record['dst_lev']}.png"
            dmos, std = (number(record[key], f"{path}, {image!r}, {key}") for key in ("dmos", "dmos_std"))
            rows.append(self._row(record["image"], folder, image, dmos, std))
        return rows

    @staticmethod
    def _row(reference: str, folder: str, image: str, dmos: float, std: float | None) -> Row:
        return Row(image, f"dst_imgs/{folder}/{image}", dmos, std, reference, f"src_imgs/{reference}.png")
