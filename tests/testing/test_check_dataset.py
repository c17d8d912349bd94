"""The conformance suite sees what is wrong with a dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError
from iqa_robust.testing import check_dataset

counter = itertools.count()


class Ramps(Dataset):
    """A sound dataset to break: 30 ramps of ten contents, each with a reference."""

    name = "ramps"
    mos_range = (0.0, 1.0)
    full_reference = True

    def _table(self) -> Sequence[Row]:
        return [
            Row(f"{content}-{level}", f"{content}/{level}", level / 3 + content / 100, 0.1, str(content), "ref")
            for content in range(10)
            for level in range(3)
        ]

    def _pixels(self, number: int, level: int) -> torch.Tensor:
        ramp = torch.arange(12).view(1, 1, 12) + 10 * torch.arange(3).view(3, 1, 1) + 3 * number
        return (ramp.expand(3, 8 + number, 12) * (level + 1) % 256).float() / 255

    def load(self, row: Row) -> Item:
        content, level = map(int, row.image_id.split("-"))
        x, ref = self._pixels(content, level), self._pixels(content, 0)
        return Item(row.image_id, x, ref, row.mos, row.mos_std, row.reference_id)

    def size(self, row: Row) -> tuple[int, int]:
        return 8 + int(row.image_id.split("-")[0]), 12

    def _digests(self, row: Row) -> tuple[str, str | None]:
        item = self.load(row)
        assert item.ref is not None
        return tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in (item.x, item.ref))  # type: ignore[return-value]


class NoReference(Ramps):
    """A sound dataset without references, with official splits."""

    full_reference = False

    def _table(self) -> Sequence[Row]:
        return [
            dataclasses.replace(row, ref_path=None, reference_id=None, split="train" if row.image_id < "7" else "test")
            for row in super()._table()
        ]

    def load(self, row: Row) -> Item:
        return dataclasses.replace(super().load(row), ref=None)

    def _digests(self, row: Row) -> tuple[str, str | None]:
        return hashlib.sha256(self.load(row).x.numpy().tobytes()).hexdigest(), None


@pytest.mark.parametrize("dataset", [Ramps(), Ramps(split="all", limit=5), NoReference(), NoReference(split="train")])
def test_a_sound_dataset_passes(dataset: Dataset) -> None:
    report = check_dataset(dataset)
    report.raise_if_failed()
    assert report.subject == f"dataset {type(dataset).__name__}"
    assert all(check.detail for check in report.checks)


class OtherRows(Ramps):
    """Changes rows of the table as `change` says."""

    def change(self, row: Row) -> Row:
        raise NotImplementedError

    def _table(self) -> Sequence[Row]:
        return [self.change(row) for row in super()._table()]


class OtherItems(Ramps):
    """Changes items as `change` says."""

    def change(self, item: Item) -> Item:
        raise NotImplementedError

    def load(self, row: Row) -> Item:
        return self.change(super().load(row))

    def _digests(self, row: Row) -> tuple[str, str | None]:
        return hashlib.sha256(row.image_id.encode()).hexdigest(), None


class Nameless(Ramps):
    name = ""


class EmptyRange(Ramps):
    mos_range = (1.0, 1.0)


class Twice(OtherRows):
    def change(self, row: Row) -> Row:
        return dataclasses.replace(row, image_id=row.image_id.replace("2", "1"))


class Unlabeled(OtherRows):
    def change(self, row: Row) -> Row:
        return dataclasses.replace(row, mos=float("nan"))


class OutsideRange(Ramps):
    """Goes around the base class, which refuses such a table."""

    def rows(self) -> tuple[Row, ...]:
        return tuple(dataclasses.replace(row, mos=100 * row.mos) for row in super().rows())

    def load(self, row: Row) -> Item:
        return dataclasses.replace(super().load(row), mos=row.mos)


class Missing(Ramps):
    def load(self, row: Row) -> Item:
        raise DataError(f"{row.path}: no such file.")


class Mislabeled(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, mos=1 - item.mos)


class EightBit(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, x=(item.x * 255).to(torch.uint8))


class NotDivided(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, x=item.x * 255)


class OffGrid(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, x=item.x * 0.9)


class Batched(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, x=item.x[None])


class Noisy(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, x=((item.x * 255 + next(counter)) % 256) / 255)


class LosesReference(OtherItems):
    def change(self, item: Item) -> Item:
        return dataclasses.replace(item, ref=None)


class OtherReference(OtherItems):
    def change(self, item: Item) -> Item:
        assert item.ref is not None
        return dataclasses.replace(item, ref=item.ref[:, 1:])


class Transposed(Ramps):
    def size(self, row: Row) -> tuple[int, int]:
        height, width = super().size(row)
        return width, height


class Shuffled(Ramps):
    def _table(self) -> Sequence[Row]:
        rows = list(super()._table())
        shift = next(counter) % len(rows)
        return rows[shift:] + rows[:shift]


class Leaks(OtherRows):
    """Official splits that put one reference on both sides."""

    def change(self, row: Row) -> Row:
        return dataclasses.replace(row, split="train" if row.image_id.endswith("0") else "test")


class FirstRows(Ramps):
    """A limit that takes other rows for another size."""

    def rows(self) -> tuple[Row, ...]:
        everything = tuple(self._table())
        return everything if self.limit is None else everything[self.limit : 2 * self.limit]


class Timestamp(Ramps):
    def manifest(self) -> str:
        return hashlib.sha256(str(next(counter)).encode()).hexdigest()


class Constant(Ramps):
    def manifest(self) -> str:
        return 64 * "0"


class TellsPaths(Ramps):
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "root": self.root}


class NotJSON(Ramps):
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "rows": self.rows()[0]}


class PicksAnother(Ramps):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


BROKEN: list[tuple[Dataset, set[str]]] = [
    (Nameless(), {"declarations"}),
    (EmptyRange(), {"declarations"}),
    (Twice(), {"rows"}),
    (Unlabeled(), {"rows"}),
    (OutsideRange(), {"labels"}),
    (Missing(), {"items"}),
    (Mislabeled(), {"items"}),
    (EightBit(), {"pixels"}),
    (NotDivided(), {"pixels"}),
    (OffGrid(), {"pixels"}),
    (Batched(), {"pixels", "size", "references"}),
    (Noisy(), {"prefetch", "stable"}),
    (LosesReference(), {"references"}),
    (OtherReference(), {"references"}),
    (Transposed(), {"size"}),
    (Shuffled(split="all"), {"stable"}),
    (Leaks(), {"rows"}),
    (FirstRows(split="all"), {"limit", "splits"}),
    (Timestamp(), {"manifest"}),
    (Constant(), {"manifest"}),
    (TellsPaths(root="/somewhere/on/this/machine"), {"describe"}),
    (NotJSON(), {"describe"}),
    (PicksAnother(), {"constructor", "stable", "manifest", "describe"}),
]


@pytest.mark.parametrize(("dataset", "expected"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN])
def test_what_is_broken_is_found(dataset: Dataset, expected: set[str]) -> None:
    report = check_dataset(dataset)
    found = {check.name for check in report.failed}
    assert found == expected, [check.detail for check in report.failed]
