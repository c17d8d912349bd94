"""Images kept between jobs: the same items, decoded once, in a bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from iqa_robust import datasets
from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError
from iqa_robust.harness.decoded import Decoded


def _counting(dataset: Dataset) -> list[str]:
    """Ids of the images that `dataset` loads from now on."""
    loaded: list[str] = []
    prefetch = dataset.prefetch

    def counted(rows: Sequence[Row]) -> Iterator[Item | DataError]:
        loaded.extend(row.image_id for row in rows)
        return prefetch(rows)

    dataset.prefetch = counted  # type: ignore[method-assign, assignment]
    return loaded


def test_items_are_those_of_the_dataset_and_are_decoded_once() -> None:
    dataset = datasets.create("photos", limit=5)
    expected = list(dataset)
    loaded = _counting(dataset)
    decoded = Decoded(dataset)
    rows = dataset.rows()
    for chosen in (rows[1:3], rows, rows):
        found = list(decoded.items(chosen))
        for item, row in zip(found, chosen, strict=True):
            original = expected[rows.index(row)]
            assert isinstance(item, Item)
            assert item.image_id == original.image_id
            assert item.mos == original.mos
            assert torch.equal(item.x, original.x)
            assert item.ref is not None and original.ref is not None
            assert torch.equal(item.ref, original.ref)
    assert sorted(loaded) == sorted(row.image_id for row in rows)


def test_what_does_not_fit_is_loaded_again() -> None:
    dataset = datasets.create("photos", limit=3)
    loaded = _counting(dataset)
    (first, *_) = dataset
    decoded = Decoded(dataset, room=2 * first.x.numel())  # one image and its reference
    loaded.clear()
    for _ in range(2):
        assert len(list(decoded.items(dataset.rows()))) == 3
    assert len(loaded) == 5


def test_an_interrupt_while_loading_ends_is_not_swallowed() -> None:
    """The loader of the last image is closed, not left to be collected, where Python ignores what is raised."""
    dataset = datasets.create("photos", limit=2)

    def interrupted(rows: Sequence[Row]) -> Iterator[Item | DataError]:
        try:
            yield from map(dataset.load, rows)
        finally:
            raise KeyboardInterrupt

    dataset.prefetch = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        list(Decoded(dataset).items(dataset.rows()))
