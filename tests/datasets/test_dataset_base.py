"""What every dataset does, on one that lives in memory: splits, limits, loading ahead, the manifest."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError, RequestError


class Memory(Dataset):
    """Rows that are given; the pixels of a row are its number / 255."""

    name: ClassVar[str] = "memory"
    mos_range = (0.0, 100.0)

    def __init__(self, table: Sequence[Row], broken: Sequence[str] = (), **common: Any) -> None:
        super().__init__(**common)
        self.table = table
        self.broken = broken
        self.in_memory = 0
        self.most_in_memory = 0
        self.lock = threading.Lock()

    def _table(self) -> Sequence[Row]:
        return self.table

    def load(self, row: Row) -> Item:
        with self.lock:
            self.in_memory += 1
            self.most_in_memory = max(self.most_in_memory, self.in_memory)
        time.sleep((hash(row.image_id) % 5) / 1000)  # so that later rows are often ready before earlier ones
        if row.image_id in self.broken:
            raise DataError(f"{row.image_id} is broken.")
        x = torch.full((3, *self.size(row)), len(row.image_id) / 255)
        return Item(row.image_id, x, None, row.mos, row.mos_std, row.reference_id)

    def size(self, row: Row) -> tuple[int, int]:
        return 4, 6

    def _digests(self, row: Row) -> tuple[str, str | None]:
        return hashlib.sha256(row.image_id.encode()).hexdigest(), None


def rows(n: int, contents: int | None = None) -> list[Row]:
    return [
        Row(f"i{k}", f"i{k}.png", 100 * k / n, reference_id=None if contents is None else f"c{k % contents}")
        for k in range(n)
    ]


def sentence(kind: type[Exception], dataset: Memory) -> str:
    with pytest.raises(kind) as error:
        dataset.rows()
    return str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split must be one of train, val, test, all, got 'dev'"),
        ({"crop": 0}, "crop must be a whole number >= 1, got 0"),
        ({"crop": 1.5}, "crop must be a whole number >= 1, got 1.5"),
        ({"resize": -2}, "resize must be a whole number >= 1, got -2"),
        ({"limit": True}, "limit must be a whole number >= 1, got True"),
        ({"split_seed": "0"}, "split_seed must be a whole number, got '0'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        Memory(rows(3), **options)
    assert str(error.value) == f"dataset 'memory': {message}."


def test_arguments_are_attributes_and_nothing_is_read() -> None:
    options = {
        "root": "here",
        "split": "val",
        "split_seed": 3,
        "crop": 5,
        "resize": 7,
        "allow_missing": True,
        "limit": 9,
    }
    dataset = Memory([], **options)
    assert {key: getattr(dataset, key) for key in options} == options


def test_table_errors() -> None:
    good = rows(4)
    scale = "expected a number from 0 to 100; check the label table"
    every = "expected train, val or test for every row, or for none"
    spread = "the MOS standard deviation of 'i2' is"
    cases = [
        ([], "expected a label table with rows, got an empty one"),
        ([*good, good[1]], "the label table names 'i1' twice; remove one row"),
        ([replace(good[2], mos=float("nan"))], f"the MOS of 'i2' is nan; {scale}"),
        ([replace(good[2], mos=float("inf"))], f"the MOS of 'i2' is inf; {scale}"),
        ([replace(good[2], mos=101.0)], f"the MOS of 'i2' is 101.0; {scale}"),
        ([replace(good[2], mos_std=-1.0)], f"{spread} -1.0; expected a finite number >= 0"),
        ([replace(good[2], mos_std=float("nan"))], f"{spread} nan; expected a finite number >= 0"),
        ([good[0], replace(good[2], split="test")], f"the split of 'i0' is None; {every}"),
        ([replace(good[2], split="dev")], f"the split of 'i2' is 'dev'; {every}"),
        (
            [replace(good[k], split=split, reference_id="c") for k, split in enumerate(("train", "test"))],
            "the reference content 'c' is in the splits 'train' and 'test'; expected it on one side only",
        ),
    ]
    for table, message in cases:
        assert sentence(DataError, Memory(table)) == f"dataset 'memory': {message}."


def test_a_split_that_is_not_there() -> None:
    message = "dataset 'memory': there is no split 'val'; choose one of train, test, all."
    assert sentence(RequestError, Memory(rows(10), split="val")) == message
    official = [replace(row, split="train") for row in rows(3)]
    message = "dataset 'memory': there is no split 'test'; choose one of train, all."
    assert sentence(RequestError, Memory(official)) == message
    assert sentence(RequestError, Memory(rows(1))) == message


@given(st.integers(2, 80), st.integers(2, 12), st.integers(0, 1000))
def test_seeded_splits_share_no_content(n: int, contents: int, seed: int) -> None:
    sides = {split: Memory(rows(n, contents), split=split, split_seed=seed).rows() for split in ("train", "test")}
    assert not {row.content for row in sides["train"]} & {row.content for row in sides["test"]}
    assert sorted(row.image_id for side in sides.values() for row in side) == sorted(r.image_id for r in rows(n))


def test_rows_keep_the_order_of_the_table() -> None:
    table = rows(50)
    for split in ("train", "test", "all"):
        chosen = Memory(table, split=split, limit=30).rows()
        assert list(chosen) == [row for row in table if row in chosen]


def test_official_splits() -> None:
    table = [replace(row, split=("train", "val", "test")[k % 3]) for k, row in enumerate(rows(9))]
    assert Memory(table, split="val").rows() == tuple(table[1::3])
    assert Memory(table, split="all").rows() == tuple(table)
    assert Memory(table, split="test", split_seed=5).rows() == Memory(table, split="test").rows()


def test_limit_is_nested_and_a_large_one_takes_all() -> None:
    table = rows(40)
    chosen = [set(Memory(table, split="all", limit=k).rows()) for k in range(1, 42)]
    assert [len(c) for c in chosen] == [*range(1, 41), 40]
    assert all(a <= b for a, b in pairwise(chosen))


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 8), (4, 3), (3, 100)])
def test_prefetch_keeps_the_order_and_the_bound(workers: int, ahead: int) -> None:
    dataset = Memory(rows(40), split="all")
    seen = []
    for item in dataset.prefetch(dataset.rows(), workers=workers, ahead=ahead):
        assert isinstance(item, Item)
        seen.append(item.image_id)
        with dataset.lock:
            dataset.in_memory -= 1
    assert seen == [row.image_id for row in dataset.rows()]
    assert dataset.most_in_memory <= ahead


def test_prefetch_gives_errors_in_place() -> None:
    dataset = Memory(rows(12), split="all", broken=["i0", "i5", "i11"])
    results = list(dataset.prefetch(dataset.rows()))
    names = [str(r) if isinstance(r, DataError) else r.image_id for r in results]
    assert names == [f"i{k} is broken." if k in (0, 5, 11) else f"i{k}" for k in range(12)]


def test_prefetch_raises_what_is_not_about_data() -> None:
    dataset = Memory(rows(3), split="all")
    dataset.size = lambda row: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        list(dataset.prefetch(dataset.rows()))


def test_prefetch_leaves_no_threads_when_abandoned() -> None:
    dataset = Memory(rows(40), split="all")
    items = dataset.prefetch(dataset.rows(), workers=3)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("iqa-robust-load")]
    assert dataset.in_memory < 40


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 0)])
def test_prefetch_arguments(workers: int, ahead: int) -> None:
    with pytest.raises(RequestError) as error:
        Memory(rows(3)).prefetch([], workers=workers, ahead=ahead)
    assert str(error.value) == f"prefetch: expected workers >= 1 and ahead >= 1, got {workers} and {ahead}."


def test_iteration_gives_items_and_raises_the_first_error() -> None:
    dataset = Memory(rows(10), split="all", broken=["i3", "i4"])
    assert len(dataset) == 10
    items = iter(dataset)
    assert [next(items).image_id for _ in range(3)] == ["i0", "i1", "i2"]
    with pytest.raises(DataError, match=r"^i3 is broken\.$"):
        next(items)


def test_manifest_follows_labels_pixels_and_rows_only() -> None:
    table = [replace(row, mos=2.0 + k // 3, mos_std=1.0, reference_id="c") for k, row in enumerate(rows(6))]

    def of(changed: Sequence[Row], **options: Any) -> str:
        return Memory(changed, **{"split": "all", **options}).manifest()

    same = of(table)
    assert len(same) == 64
    assert same == of(table[::-1]) == of(table, root="elsewhere", split_seed=8)
    for change in (
        {"image_id": "x"},
        {"mos": 1.5},
        {"mos_std": None},
        {"mos_std": 1.25},
        {"reference_id": None},
    ):
        assert of([*table[:3], replace(table[3], **change), *table[4:]]) != same
    assert len({same, of(table, crop=4), of(table, resize=4), of(table, limit=3), of(table[:5])}) == 5


def test_manifest_of_equal_numbers_is_equal() -> None:
    table = [Row("a", "a", 50.0), Row("b", "b", 0.1 + 0.2)]
    again = [Row("a", "other/a", 50.0), Row("b", "b", float("0.30000000000000004"))]
    assert Memory(table, split="all").manifest() == Memory(again, split="all").manifest()


def test_describe_is_json_and_names_no_path() -> None:
    assert Memory(rows(12, 3), split="all", root="/somewhere", limit=5, crop=4).describe() == {
        "name": "memory",
        "split": "all",
        "split_seed": 0,
        "limit": 5,
        "crop": 4,
        "resize": None,
        "n_images": 5,
        "n_missing": 0,
        "n_contents": 3,
        "mos_range": [0.0, 100.0],
        "mos_higher_is_better": True,
        "full_reference": False,
        "homepage": "",
        "license_note": "",
    }


def test_locate_needs_no_folder() -> None:
    assert Memory.locate("/nowhere") is None
