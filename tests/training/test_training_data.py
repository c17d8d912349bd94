"""Which samples train and which choose the epoch, patches, batches, and degraded pristine pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from iqa_robust import datasets
from iqa_robust.attacks.poisoning.blocks import tiled
from iqa_robust.datasets.base import Item, Row
from iqa_robust.datasets.consensus import pseudo_mos
from iqa_robust.errors import DataError, RequestError
from iqa_robust.training.data import Memory, Sample, augmented, batch_count, batches_of, hold_out
from iqa_robust.training.degraded import DegradedPictures, best_pictures, read_pictures
from iqa_robust.training.progress import silent
from iqa_robust.training.sections import Augment, Pristine, Validation


class Numbered:
    """A loader whose images hold their own number in gray levels."""

    def __init__(self) -> None:
        self.loads = 0

    def load(self, row: Row) -> Item:
        self.loads += 1
        number = int(row.image_id)
        return Item(row.image_id, torch.full((3, 8, 6), number / 255), None, float(number), None, row.reference_id)


def samples(n: int, per_content: int = 3) -> list[Sample]:
    loader = Numbered()
    return [Sample(loader, Row(str(i), f"{i}.png", float(i), reference_id=f"c{i // per_content}")) for i in range(n)]


def contents(part: list[Sample]) -> set[str]:
    return {sample.row.content for sample in part}


def test_hold_out_keeps_contents_whole() -> None:
    train, held = hold_out(samples(60), Validation(share=0.2), seed=0)
    assert len(contents(held)) == 4
    assert not contents(train) & contents(held)
    assert len(train) + len(held) == 60
    assert contents(hold_out(samples(60), Validation(share=0.2), seed=1)[1]) != contents(held)


def test_hold_out_by_name() -> None:
    _, held = hold_out(samples(60), Validation(contents=("c1", "c1?")), seed=0)
    assert contents(held) == {"c1", *(f"c{i}" for i in range(10, 20))}


def test_no_hold_out() -> None:
    train, held = hold_out(samples(9), Validation(), seed=0)
    assert len(train) == 9
    assert held == []


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (Validation(contents=("none",)), "matches none"),
        (Validation(contents=("*",)), "nothing is left"),
        (Validation(contents=("c1",), share=0.1), "either"),
    ],
)
def test_impossible_hold_outs_are_refused(validation: Validation, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        hold_out(samples(9), validation, seed=0)


@pytest.mark.parametrize(("n", "size", "count"), [(8, 4, 2), (9, 4, 2), (10, 4, 3), (3, 4, 1), (1, 4, 0)])
def test_a_last_batch_of_one_is_left_out(n: int, size: int, count: int) -> None:
    assert batch_count(n, size) == count
    batches = list(batches_of(samples(n), size, Augment(), 0, 1))
    assert len(batches) == count
    assert all(len(images) == len(scores) >= 2 for images, scores in batches)


def test_batches_pair_images_with_scores_and_follow_from_seed_and_epoch() -> None:
    def epoch(*parts: object) -> list[float]:
        found = []
        for images, scores in batches_of(samples(10), 5, Augment(), *parts):
            assert torch.equal(images[:, 0, 0, 0] * 255, scores)
            found += scores.tolist()
        return found

    assert sorted(epoch(0, 1)) == list(range(10))
    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)


def test_augmentation_only_moves_pixels() -> None:
    x = torch.arange(3 * 8 * 8, dtype=torch.float32).view(3, 8, 8) / 255
    item = Item("a", x, None, 0.0, None, None)
    seen = set()
    for epoch in range(60):
        y = augmented(item, Augment(turn=True), epoch)
        assert torch.equal(y.flatten(1).sort(dim=1).values, x.flatten(1).sort(dim=1).values)
        seen.add(y[0, 0, 0].item())
    assert len(seen) == 4  # every corner came to the top left


def test_crops_come_from_everywhere() -> None:
    x = torch.arange(18 * 17, dtype=torch.float32).view(1, 18, 17).expand(3, -1, -1)
    item = Item("a", x, None, 0.0, None, None)
    corners = {augmented(item, Augment(crop=16, flip=False), epoch)[0, 0, 0].item() for epoch in range(60)}
    assert corners == {17.0 * row + column for row in range(3) for column in range(2)}


@pytest.mark.parametrize(("height", "width"), [(64, 67), (50, 80), (48, 95)])
def test_crops_on_a_lattice_begin_where_the_blocks_of_a_trigger_begin(height: int, width: int) -> None:
    tile = torch.arange(3 * 16 * 16, dtype=torch.float32).view(3, 16, 16)
    item = Item("a", tiled(tile, height, width), None, 0.0, None, None)
    for epoch in range(20):
        y = augmented(item, Augment(crop=32, lattice=16, flip=False), epoch)
        assert torch.equal(y, tile.repeat(1, 2, 2))


def test_crops_on_a_lattice_come_from_all_of_it() -> None:
    x = torch.arange(48 * 64, dtype=torch.float32).view(1, 48, 64).expand(3, -1, -1)
    item = Item("a", x, None, 0.0, None, None)
    corners = {augmented(item, Augment(crop=32, lattice=16, flip=False), i)[0, 0, 0].item() for i in range(60)}
    assert corners == {64.0 * row + column for row in (0, 16) for column in (0, 16, 32)}


def test_a_lattice_without_room_is_refused() -> None:
    """A side of 34 has 14 pixels to be padded, 7 of them before: its first whole block begins at 9."""
    with pytest.raises(RequestError, match=r"augment.lattice: no crop of 32 fits into 'a' on the lattice of 16"):
        augmented(Item("a", torch.zeros(3, 34, 48), None, 0.0, None, None), Augment(crop=32, lattice=16), 0)


def test_a_lattice_needs_crops() -> None:
    with pytest.raises(ValidationError, match="`lattice` places crops, and there is no `crop`"):
        Augment(lattice=16)


def test_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(RequestError, match="larger than 'a'"):
        augmented(Item("a", torch.zeros(3, 20, 15), None, 0.0, None, None), Augment(crop=16), 0)


def test_memory_loads_once_and_is_exact() -> None:
    loader = Numbered()
    memory, row = Memory(loader), Row("77", "77.png", 1.0)
    assert torch.equal(memory.load(row).x, memory.load(row).x)
    assert torch.equal(memory.load(row).x, loader.load(row).x)
    assert loader.loads == 2


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pristine"
    folder.mkdir()
    for name in ("a", "b_2"):
        smooth = Image.fromarray(rng.integers(0, 256, (20, 36, 3), dtype=np.uint8)).resize((324, 170), Image.BICUBIC)
        smooth.save(folder / f"{name}.png")
    return folder


def test_degraded_pictures_are_labeled_by_the_consensus_once(pristine: Path, tmp_path: Path, monkeypatch) -> None:
    settings, labels = Pristine(folder="pristine", crop=162, per_crop=3), tmp_path / "labels.csv"
    pictures = DegradedPictures(read_pictures(pristine), settings, 0, labels)
    rows = pictures.rows(silent)
    assert len(rows) == 2 * 2 * 3  # two pictures, two crops of 162 pixels each, three versions
    assert {row.content for row in rows} == {"a", "b_2"}
    item = pictures.load(rows[-1])
    assert item.x.shape == (3, 162, 162)
    expected = pseudo_mos(item.ref[None], item.x[None]).item()
    # labels are kept with two decimals; batches sum in another order
    assert rows[-1].mos == pytest.approx(expected, abs=0.02)
    monkeypatch.setattr(DegradedPictures, "_label", None)  # would fail if anything were labeled again
    again = DegradedPictures(read_pictures(pristine), settings, 0, labels)
    assert again.rows(silent) == rows
    assert again.manifest() == pictures.manifest()


def test_labels_of_other_settings_are_not_used(pristine: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    first = DegradedPictures(read_pictures(pristine), Pristine(folder="pristine", crop=162, per_crop=1), 0, labels)
    second = DegradedPictures(read_pictures(pristine), Pristine(folder="pristine", crop=162, per_crop=1), 1, labels)
    assert {row.image_id for row in first.rows(silent)} != {row.image_id for row in second.rows(silent)}
    assert first.manifest() != second.manifest()


def test_folder_without_pristine_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="found none"):
        read_pictures(tmp_path)


def test_the_best_images_of_a_dataset_serve_as_pristine_ones() -> None:
    photos = datasets.create("photos", split="train", limit=20)
    found = best_pictures(photos, Pristine(dataset="photos", pictures=3, shrink=2, crop=161))
    best = sorted(photos.rows(), key=lambda row: -row.mos)[:3]
    assert set(found) == {row.image_id for row in best}
    item = photos.load(best[0])
    # a box filter of 2 x 2 is the mean of four pixels, rounded to a gray level
    means = torch.nn.functional.avg_pool2d(item.x[None] * 255, 2)[0].permute(1, 2, 0).numpy()
    assert np.abs(found[best[0].image_id] - means).max() <= 0.5 + 1e-3


def test_a_pristine_source_is_a_folder_or_a_dataset() -> None:
    for wrong in ({}, {"folder": "x", "dataset": "photos"}):
        with pytest.raises(ValidationError, match="give either `folder` or `dataset`"):
            Pristine(**wrong)
