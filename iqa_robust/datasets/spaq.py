"""SPAQ, Smartphone Photography Attribute and Quality: photographs of 66 phones, rated in a laboratory."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import number, read_csv, read_xlsx

TABLE = "Annotations/MOS and Image attribute scores"
_COLUMNS = ("Image name", "MOS")


class SPAQ(FileDataset):
    """11,125 photographs, MOS 0..100, higher is better (Fang, Zhu, Zeng, Ma and Wang, 2020).

    Layout: `TestImage/*.jpg` and `Annotations/MOS and Image attribute scores.xlsx`, which needs openpyxl; a
    CSV export of that sheet beside it, same name and columns, is read first and needs nothing. No official
    split: a seeded 80/20 one by image. The photographs are up to 40 megapixels; the authors' models saw
    them with a short side of 512 (`resize=512`), which is not done unless asked for.
    """

    name = "spaq"
    folders = ("spaq", "SPAQ")
    homepage = "https://github.com/h4nwei/SPAQ"
    license_note = "For educational and research purposes only, without fee; cite the paper."
    mos_range = (0.0, 100.0)

    def _labels(self) -> Sequence[Row]:
        text = self.tree.find(f"{TABLE}.csv")
        path = text or self._file(f"{TABLE}.xlsx")
        records = read_csv(path, _COLUMNS) if text else read_xlsx(path, _COLUMNS)
        return [
            Row(image, f"TestImage/{image}", number(record["MOS"], f"{path}, {image!r}, MOS"))
            for record in records
            for image in (record["Image name"],)
        ]
