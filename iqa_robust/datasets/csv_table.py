"""Any folder of images with a comma-separated table of scores."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from iqa_robust.datasets.base import Row
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.labels import Record, number, read_csv
from iqa_robust.errors import DataError

COLUMNS = "name each of them in the first line."


class CsvTable(FileDataset):
    """Images that a table lists, with their scores.

    The columns are `image`, `mos` and, at will, `mos_std`, `ref`, `reference_id` and `split`. Names in
    `image` and `ref` are relative to `root`, with forward slashes, and are looked up there and nowhere
    else. `ref` and `split` ("train", "val" or "test") are given for every row or for none; `mos_std` and
    `reference_id` may be left empty. Without `split`, a seeded 80/20 split by `reference_id`, else by
    `ref`, else by image.

    Args:
        table: path of the table.
        mos_range: the limits of the score scale; None takes the smallest and the largest MOS of the whole
            table.
        mos_higher_is_better: False where the scores grow with the damage.
        exif_orientation: turn images as their EXIF tag says; False leaves the stored rows and columns.
        root: the folder the names are in; None takes the table's own folder.
        split, split_seed, crop, resize, allow_missing, limit: as for every `Dataset`.

    Raises:
        RequestError: `mos_range` is not two numbers, the lower first.
    """

    name = "csv"

    def __init__(
        self,
        *,
        table: str,
        mos_range: Sequence[float] | None = None,
        mos_higher_is_better: bool = True,
        exif_orientation: bool = False,
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
        if mos_range is not None and not _is_range(mos_range):
            raise self._refuse(f"mos_range must be two finite numbers, the lower first, got {mos_range!r}")
        for key, value in (("mos_higher_is_better", mos_higher_is_better), ("exif_orientation", exif_orientation)):
            if not isinstance(value, bool):
                raise self._refuse(f"{key} must be true or false, got {value!r}")
        self.table = table
        self.mos_higher_is_better = mos_higher_is_better
        self.exif_orientation = exif_orientation
        self._mos_range = mos_range

    @property
    def mos_range(self) -> tuple[float, float]:
        """The limits given, or the smallest and the largest MOS of the whole table. Reads the table."""
        if self._mos_range is not None:
            return float(self._mos_range[0]), float(self._mos_range[1])
        scores = [row.mos for row in self._table() if math.isfinite(row.mos)]
        return (min(scores), max(scores)) if scores else (0.0, 0.0)

    @property
    def full_reference(self) -> bool:
        """Whether the table has references. Reads the table."""
        rows = self._table()
        return bool(rows) and all(row.ref_path is not None for row in rows)

    def _broken(self, reason: str) -> DataError:
        return DataError(f"dataset {self.name!r}, {self.table}: {reason}.")

    def _root(self) -> Path:
        return Path(self.table).parent if self.root is None else Path(self.root)

    def _labels(self) -> Sequence[Row]:
        path = Path(self.table)
        rows = [self._row(record, path) for record in read_csv(path, ("image", "mos"), COLUMNS)]
        with_ref = sum(row.ref_path is not None for row in rows)
        if with_ref not in (0, len(rows)):
            raise self._broken(
                f"a ref is given for {with_ref} of {len(rows)} rows; expected one for every row or for none"
            )
        return rows

    @staticmethod
    def _row(record: Record, path: Path) -> Row:
        image, ref, std = record["image"], record.get("ref") or None, record.get("mos_std")
        where = f"{path}, {image!r}"
        return Row(
            image,
            image,
            number(record["mos"], f"{where}, mos"),
            number(std, f"{where}, mos_std") if std else None,
            record.get("reference_id") or ref,
            ref,
            record.get("split") or None,
        )


def _is_range(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    numbers = all(isinstance(limit, (int, float)) and not isinstance(limit, bool) for limit in value)
    return numbers and -sys.float_info.max <= value[0] < value[1] <= sys.float_info.max
