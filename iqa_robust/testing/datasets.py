"""The conformance suite of datasets."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections import Counter
from typing import Any

import torch

from iqa_robust import datasets
from iqa_robust.datasets.base import SPLITS, Dataset, Item, Row
from iqa_robust.errors import DataError, RequestError
from iqa_robust.images import check_images, on_8bit_grid
from iqa_robust.testing.report import Report, ViolationError, expect, run
from iqa_robust.testing.subject import check_constructor, parameters, resolve

SAMPLE = 12
"""Rows whose pixels are read; the labels of all rows are checked."""


def check(dataset: Dataset | str) -> Report:
    """Ask everything of a dataset; see `iqa_robust.testing.check_dataset`."""
    title, instance = resolve(dataset, datasets.registry, Dataset)  # type: ignore[type-abstract]
    suite = _Suite(instance)
    questions = [
        ("declarations", suite.declarations),
        ("rows", suite.rows),
        ("items", suite.items),
        ("constructor", lambda: check_constructor(instance)),
        ("labels", suite.labels),
        ("pixels", suite.pixels),
        ("size", suite.size),
        ("references", suite.references),
        ("prefetch", suite.prefetch),
        ("stable", suite.stable),
        ("limit", suite.limit),
        ("splits", suite.splits),
        ("manifest", suite.manifest),
        ("describe", suite.describe),
        ("cost", suite.cost),
    ]
    return run(title, questions, essential=3)


class _Suite:
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._items: list[tuple[Row, Item]] = []

    def again(self, **changes: Any) -> Dataset:
        """Another instance with the same parameters, but for the changes."""
        return type(self.dataset)(**{**parameters(self.dataset), **changes})

    def accepts(self, name: str) -> bool:
        return name in inspect.signature(type(self.dataset)).parameters

    def sample(self) -> list[tuple[Row, Item]]:
        """Rows spread evenly over the dataset, with their items."""
        if not self._items:
            rows = self.dataset.rows()
            count = min(SAMPLE, len(rows))
            chosen = [rows[i * len(rows) // count] for i in range(count)]
            self._items = [(row, self.dataset.load(row)) for row in chosen]
        return self._items

    def declarations(self) -> str:
        dataset = self.dataset
        expect(
            isinstance(getattr(dataset, "name", None), str) and bool(dataset.name),
            "expected the class attribute `name`, the registry name.",
        )
        low, high = dataset.mos_range
        expect(
            math.isfinite(low) and math.isfinite(high) and low < high,
            f"expected mos_range (low, high) with low < high, got {dataset.mos_range!r}.",
        )
        expect(
            isinstance(dataset.mos_higher_is_better, bool),
            f"expected mos_higher_is_better to be True or False, got {dataset.mos_higher_is_better!r}.",
        )
        better = "higher" if dataset.mos_higher_is_better else "lower"
        return f"scores from {low:g} to {high:g}, {better} is better"

    def rows(self) -> str:
        rows = self.dataset.rows()
        expect(isinstance(rows, tuple) and bool(rows), "expected rows() to give a tuple of rows, got none.")
        expect(len(self.dataset) == len(rows), f"expected len() to be {len(rows)}, got {len(self.dataset)}.")
        ids = Counter(row.image_id for row in rows)
        expect(
            all(isinstance(name, str) and name for name in ids),
            "expected every image_id to be a string with characters in it.",
        )
        twice = [name for name, count in ids.items() if count > 1]
        expect(not twice, f"expected every image_id once, found twice: {', '.join(twice[:3])}.")
        return f"{len(rows)} rows, {self.dataset.missing} missing"

    def items(self) -> str:
        for row, item in self.sample():
            for name in ("image_id", "mos", "mos_std", "reference_id"):
                expect(
                    getattr(item, name) == getattr(row, name),
                    f"{row.image_id!r}: expected the item to hold the row's {name} {getattr(row, name)!r},"
                    f" got {getattr(item, name)!r}.",
                )
        return f"{len(self.sample())} of {len(self.dataset)} loaded"

    def labels(self) -> str:
        low, high = self.dataset.mos_range
        scores = []
        for row in self.dataset.rows():
            expect(
                isinstance(row.mos, float) and math.isfinite(row.mos),
                f"{row.image_id!r}: expected a finite float as MOS, got {row.mos!r}.",
            )
            expect(
                low <= row.mos <= high,
                f"{row.image_id!r}: the MOS {row.mos:g} lies outside of mos_range ({low:g}, {high:g}).",
            )
            expect(
                row.mos_std is None or (math.isfinite(row.mos_std) and row.mos_std >= 0),
                f"{row.image_id!r}: expected mos_std to be None or a number >= 0, got {row.mos_std!r}.",
            )
            scores.append(row.mos)
        return f"MOS from {min(scores):g} to {max(scores):g} within ({low:g}, {high:g})"

    def pixels(self) -> str:
        sizes = set()
        for row, item in self.sample():
            for what, image in (("x", item.x), ("ref", item.ref)):
                if image is None:
                    continue
                expect(
                    isinstance(image, torch.Tensor) and image.ndim == 3,
                    f"{row.image_id!r}: expected {what} to be a tensor (3, H, W).",
                )
                check_images(image[None], f"{row.image_id!r}: {what}")
                expect(
                    bool(on_8bit_grid(image[None]).all()),
                    f"{row.image_id!r}: expected {what} on the 8-bit grid (k / 255); round after resizing.",
                )
            sizes.add(tuple(item.x.shape[1:]))
        return f"on the 8-bit grid, from {_size(min(sizes))} to {_size(max(sizes))} pixels"

    def size(self) -> str:
        for row, item in self.sample():
            said, real = tuple(self.dataset.size(row)), tuple(item.x.shape[1:])
            expect(said == real, f"{row.image_id!r}: size() says {said}, expected that of the loaded image {real}.")
        return "as loaded"

    def references(self) -> str:
        with_reference = 0
        for row, item in self.sample():
            expect(
                (item.ref is not None) == (row.ref_path is not None or self.dataset.full_reference),
                f"{row.image_id!r}: expected a reference image exactly where the row names one, or for every"
                " row of a dataset that declares full_reference.",
            )
            if item.ref is not None:
                with_reference += 1
                expect(
                    item.ref.shape == item.x.shape,
                    f"{row.image_id!r}: expected a reference of shape {tuple(item.x.shape)},"
                    f" got {tuple(item.ref.shape)}.",
                )
                expect(
                    row.reference_id is not None,
                    f"{row.image_id!r}: expected reference_id, so that splits can keep contents together.",
                )
        return f"{with_reference} of {len(self.sample())} images have one"

    def prefetch(self) -> str:
        rows = [row for row, _ in self.sample()]
        results = list(self.dataset.prefetch(rows, workers=2, ahead=3))
        expect(len(results) == len(rows), f"expected {len(rows)} results, got {len(results)}.")
        for (row, item), result in zip(self.sample(), results, strict=True):
            if isinstance(result, DataError):
                raise result
            expect(
                result.image_id == row.image_id and _same(result, item),
                f"{row.image_id!r}: expected prefetch to give what load gives, in the order of the rows.",
            )
        return "gives what load gives, in order"

    def stable(self) -> str:
        other = self.again()
        expect(
            other.rows() == self.dataset.rows(),
            "expected the same rows in the same order from two instances with the same parameters.",
        )
        for row, item in self.sample()[:3]:
            expect(
                _same(other.load(row), item),
                f"{row.image_id!r}: expected the same pixels from two instances with the same parameters.",
            )
        return "two instances give the same rows and pixels"

    def limit(self) -> str:
        if not self.accepts("limit"):
            return "takes no limit"
        everything = set(self.again(limit=None).rows())
        large, small = min(SAMPLE, len(everything)), min(SAMPLE // 2, len(everything))
        more, fewer = self.again(limit=large).rows(), self.again(limit=small).rows()
        expect(
            (len(more), len(fewer)) == (large, small),
            f"expected limit={large} and limit={small} to give that many rows, got {len(more)} and {len(fewer)}.",
        )
        expect(
            set(fewer) <= set(more) <= everything,
            "expected a sample to be a part of every larger sample, so that runs can be extended.",
        )
        return "samples are nested"

    def splits(self) -> str:
        """No reference content, and no image, on two sides."""
        if not self.accepts("split"):
            return "takes no split"
        sides: dict[str, tuple[Row, ...]] = {}
        for split in SPLITS:
            changes = {"split": split, **({"limit": None} if self.accepts("limit") else {})}
            try:
                sides[split] = self.again(**changes).rows()
            except RequestError:
                continue  # the authors have no such split
            except DataError:
                if split == self.dataset.split:
                    raise
                continue  # that part of the data is not on this machine
        everything = set(sides.pop("all", ()))
        names = list(sides)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                shared = {row.content for row in sides[one]} & {row.content for row in sides[other]}
                expect(
                    not shared,
                    f"expected no content in both {one!r} and {other!r}, found {len(shared)},"
                    f" such as {min(shared, default='')!r}.",
                )
        expect(
            not everything or all(set(rows) <= everything for rows in sides.values()),
            "expected every split to be a part of split 'all'.",
        )
        return ", ".join(f"{name} {len(rows)}" for name, rows in sides.items()) + "; no content in two of them"

    def manifest(self) -> str:
        smaller = {"limit": SAMPLE // 2} if self.accepts("limit") else {}
        first, second = self.again(**smaller).manifest(), self.again(**smaller).manifest()
        expect(
            len(first) == 64 and set(first) <= set("0123456789abcdef"),
            f"expected a sha256 in hexadecimal, got {first!r}.",
        )
        expect(first == second, "expected the same manifest from two instances with the same parameters.")
        if smaller and len(self.again(limit=1)) < len(self.again(**smaller)):
            expect(self.again(limit=1).manifest() != first, "expected another manifest for other rows, got the same.")
        return f"{first[:16]}... for {len(self.again(**smaller))} rows"

    def describe(self) -> str:
        said = self.dataset.describe()
        try:
            text = json.dumps(said, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ViolationError(f"expected describe() to give plain JSON: {error}.") from error
        root = parameters(self.dataset).get("root")
        expect(
            root is None or str(root) not in text,
            "expected describe() to leave out the paths of this machine, so that two machines describe alike.",
        )
        return f"{len(said)} facts"

    def cost(self) -> str:
        start = time.perf_counter()
        for row, _ in self.sample():
            self.dataset.load(row)
        return f"{1000 * (time.perf_counter() - start) / len(self.sample()):.0f} ms to load an image"


def _size(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))


def _same(a: Item, b: Item) -> bool:
    if (a.ref is None) != (b.ref is None):
        return False
    return torch.equal(a.x, b.x) and (a.ref is None or b.ref is None or torch.equal(a.ref, b.ref))
