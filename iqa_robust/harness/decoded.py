"""Images of a dataset, decoded once for all jobs of a process as far as a small memory allows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError
from iqa_robust.images import from_uint8, to_uint8

ROOM = 64 * 2**20
"""Bytes kept: some hundred images of a usual crop. The memory of a run must not grow with its images."""


class Decoded:
    """A dataset's items, kept as bytes: a quarter of their floats, and exact, since images are k/255.

    What came first is kept. To make room for what comes later would help no run that goes through all images again.
    """

    def __init__(self, dataset: Dataset, room: int = ROOM) -> None:
        """`room`: bytes to keep."""
        self._dataset, self._room = dataset, room
        self._kept: dict[str, Item] = {}

    def items(self, rows: Sequence[Row]) -> Iterator[Item | DataError]:
        """One result per row, in their order; those not kept are loaded a few ahead, as by `Dataset.prefetch`."""
        missing = [row for row in rows if row.image_id not in self._kept]
        with contextlib.closing(self._dataset.prefetch(missing)) as loaded:
            for row in rows:
                if row.image_id in self._kept:
                    kept = self._kept[row.image_id]
                    ref = None if kept.ref is None else from_uint8(kept.ref)
                    yield dataclasses.replace(kept, x=from_uint8(kept.x), ref=ref)
                    continue
                item = next(loaded)
                if not isinstance(item, DataError):
                    self._keep(item)
                yield item

    def _keep(self, item: Item) -> None:
        size = item.x.numel() * (1 if item.ref is None else 2)
        if size <= self._room:
            self._room -= size
            ref = None if item.ref is None else to_uint8(item.ref)
            self._kept[item.image_id] = dataclasses.replace(item, x=to_uint8(item.x), ref=ref)
