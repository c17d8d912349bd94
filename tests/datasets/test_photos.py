"""The embedded dataset: sources, crops, splits, labels, sampling, manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import piq
import pytest
import torch
from scipy import stats

from iqa_robust.datasets import create, photo_sources, photos
from iqa_robust.datasets.base import Item, Row
from iqa_robust.datasets.consensus import pseudo_mos
from iqa_robust.datasets.distortions import DISTORTIONS, LEVELS
from iqa_robust.datasets.photo_sources import CROP_SIDE, SOURCES, read_crop
from iqa_robust.datasets.photos import COLOR_ONLY, LABELS_FILE, Photos, render
from iqa_robust.errors import DataError, RequestError
from iqa_robust.images import on_8bit_grid


def picture_of(row: Row) -> str:
    assert row.reference_id is not None
    return row.reference_id.rsplit("-", 1)[0]


def type_and_level(row: Row) -> tuple[str, int]:
    _, name, level = row.image_id.rsplit("_", 2)
    return name, int(level)


@pytest.fixture(scope="module")
def every_row() -> tuple[Row, ...]:
    return Photos(split="all").rows()


@pytest.fixture(scope="module")
def sample() -> list[Item]:
    """95 items, every type at every level."""
    return list(Photos(split="all", limit=95))


def test_every_source_is_what_was_labeled_and_crops_lie_inside() -> None:
    for source in SOURCES:
        for number in range(len(source.corners)):
            crop = read_crop(source, number)
            assert crop.shape == (CROP_SIDE, CROP_SIDE, 3)
            assert crop.dtype == np.uint8
            assert source.gray == bool((crop == crop[..., :1]).all())


def test_crops_of_a_picture_do_not_overlap() -> None:
    for source in SOURCES:
        for (top, left), (other_top, other_left) in combinations(source.corners, 2):
            assert max(abs(top - other_top), abs(left - other_left)) >= CROP_SIDE, source.name


def test_no_crop_is_flat() -> None:
    for source in SOURCES:
        for number in range(len(source.corners)):
            gray = read_crop(source, number).mean(axis=2)
            # A flat region has a deviation of a few levels of sensor noise.
            assert gray.std() > 8, (source.name, number)


def test_splits_never_share_a_picture(every_row: tuple[Row, ...]) -> None:
    train = {picture_of(row) for row in Photos(split="train").rows()}
    test = {picture_of(row) for row in Photos(split="test").rows()}
    assert len(train) >= 8
    assert len(test) >= 4
    assert not train & test
    assert train | test == {picture_of(row) for row in every_row}
    # Nor is one file listed under two names.
    assert len({source.sha256 for source in SOURCES}) == len(SOURCES)


def test_the_bank_is_complete(every_row: tuple[Row, ...]) -> None:
    found = defaultdict(set)
    for row in every_row:
        found[row.reference_id].add(type_and_level(row))
    full = {(name, level) for name in DISTORTIONS for level in LEVELS}
    assert len(found) == sum(len(source.corners) for source in SOURCES)
    for source in SOURCES:
        for reference in source.references:
            left_out = {(name, level) for name in COLOR_ONLY for level in LEVELS} if source.gray else set()
            assert found[reference] == full - left_out


def test_the_label_file_is_small_and_holds_nothing_else(every_row: tuple[Row, ...]) -> None:
    assert LABELS_FILE.stat().st_size < 300_000
    assert len(LABELS_FILE.read_text().splitlines()) == len(every_row) + 1


def test_items_keep_the_image_convention(sample: list[Item]) -> None:
    for item in sample:
        assert item.ref is not None
        for image in (item.x, item.ref):
            assert image.shape == (3, CROP_SIDE, CROP_SIDE)
            assert image.dtype == torch.float32
            assert image.is_contiguous()
            assert bool(on_8bit_grid(image[None]))
        assert not torch.equal(item.x, item.ref), item.image_id


def test_pixels_are_what_the_id_says() -> None:
    row = Photos(split="test").rows()[0]
    item = Photos(split="test").load(row)
    x, ref = render(row.image_id)
    np.testing.assert_array_equal((item.x * 255).round().byte().permute(1, 2, 0).numpy(), x)
    assert item.ref is not None
    np.testing.assert_array_equal((item.ref * 255).round().byte().permute(1, 2, 0).numpy(), ref)


def test_crops_of_one_picture_differ_in_their_noise() -> None:
    x, ref = render("grass-0_gaussian-noise_1")
    other_x, other_ref = render("grass-1_gaussian-noise_1")
    noise = x.astype(float) - ref
    other = other_x.astype(float) - other_ref
    # 110592 independent samples: a correlation of 0.02 would be six standard errors.
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.02


def test_labels_are_recomputed(sample: list[Item]) -> None:
    chosen = sample[::3]
    x = torch.stack([item.x for item in chosen])
    ref = torch.stack([item.ref for item in chosen if item.ref is not None])
    found = pseudo_mos(ref, x).numpy()
    # Two decimals are stored, and the oldest and newest supported libraries agree to that (0.005). Codecs
    # built for another processor may round single pixels differently, worth tenths of a point; another
    # distortion, crop, seed or map is worth many points.
    np.testing.assert_allclose(found, [item.mos for item in chosen], atol=0.5)


def test_every_type_gets_worse_with_its_level(every_row: tuple[Row, ...]) -> None:
    by_level = defaultdict(list)
    for row in every_row:
        by_level[type_and_level(row)].append(row.mos)
    for name in DISTORTIONS:
        means = [np.mean(by_level[name, level]) for level in LEVELS]
        # Five points apart: levels one can tell apart, not an accident of the mean.
        assert all(mild - severe > 5 for mild, severe in pairwise(means)), (name, means)


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_cover_the_range(split: str) -> None:
    mos = np.array([row.mos for row in Photos(split=split).rows()])
    assert mos.min() >= 0
    assert mos.max() < 100
    low, middle, high = np.quantile(mos, [0.05, 0.5, 0.95])
    assert low < 20
    assert 40 < middle < 60
    assert high > 85


def test_single_measures_agree_with_the_labels_but_are_not_the_labels(sample: list[Item]) -> None:
    x = torch.stack([item.x for item in sample])
    ref = torch.stack([item.ref for item in sample if item.ref is not None])
    mos = [item.mos for item in sample]
    for measure in (piq.psnr, piq.ssim):  # neither is part of the consensus
        srocc = stats.spearmanr(measure(x, ref, data_range=1.0, reduction="none"), mos).statistic
        assert 0.6 < srocc < 0.97, measure


@pytest.mark.parametrize(("split", "limit"), [("test", 24), ("test", 100), ("train", 200), ("all", 300)])
def test_a_limited_sample_is_balanced_and_nested(split: str, limit: int) -> None:
    rows = Photos(split=split, limit=limit).rows()
    assert len(rows) == limit
    for key in (lambda row: row.reference_id, lambda row: type_and_level(row)[1]):
        counts = Counter(map(key, rows))
        assert len(counts) == len({key(row) for row in Photos(split=split).rows()})
        assert max(counts.values()) - min(counts.values()) <= 2
    types = Counter(type_and_level(row)[0] for row in rows)
    assert len(types) == len(DISTORTIONS)
    assert max(types.values()) - min(types.values()) <= 2
    smaller = Photos(split=split, limit=limit // 2).rows()
    assert set(smaller) < set(rows)
    order = {row: i for i, row in enumerate(Photos(split=split).rows())}
    assert [order[row] for row in rows] == sorted(order[row] for row in rows)
    assert set(Photos(split=split, limit=limit, split_seed=1).rows()) != set(rows)


def test_a_large_limit_takes_all() -> None:
    assert Photos(split="test", limit=10**6).rows() == Photos(split="test").rows()


def test_resize_and_crop() -> None:
    dataset = Photos(limit=1, resize=100, crop=64)
    row = dataset.rows()[0]
    item = dataset.load(row)
    assert dataset.size(row) == (64, 64)
    assert item.x.shape == (3, 64, 64)
    whole = Photos(resize=100).load(row)
    torch.testing.assert_close(item.x, whole.x[:, 18:82, 18:82], rtol=0, atol=0)
    assert Photos(crop=64).size(row) == (64, 64)
    for broken in (Photos(crop=193), Photos(resize=10**5)):
        with pytest.raises(DataError):
            broken.size(row)
        with pytest.raises(DataError):
            broken.load(row)


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(RequestError, match="root"):
        Photos(root="somewhere")
    with pytest.raises(RequestError, match="train, test, all"):
        Photos(split="val").rows()


def test_the_registry_finds_it() -> None:
    dataset = create("photos", split="test", limit=5)
    assert isinstance(dataset, Photos)
    assert len(dataset) == 5
    assert dataset.missing == 0
    assert Photos.locate("anywhere") is None


def test_the_manifest_depends_on_rows_labels_and_bank_only(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Photos(limit=40).manifest()
    assert Photos(limit=40).manifest() == manifest
    assert Photos(limit=41).manifest() != manifest
    assert Photos(limit=40, crop=64).manifest() != manifest
    with monkeypatch.context() as patch:
        patch.setattr(photos, "distort", None)  # no pixel is made
        assert Photos(limit=40).manifest() == manifest
    with monkeypatch.context() as patch:
        patch.setattr(photos, "BANK_VERSION", 99)
        assert Photos(limit=40).manifest() != manifest


def test_another_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.png").write_bytes(b"not the labeled picture")
    monkeypatch.setattr(photo_sources, "_locate", lambda source: tmp_path / source.file)
    with pytest.raises(DataError, match="sha256"):
        read_crop(replace(SOURCES[0], file="other.png"), 0)
    with pytest.raises(DataError, match=r"absent\.png"):
        read_crop(replace(SOURCES[0], file="absent.png"), 0)


def test_an_absent_package_is_named() -> None:
    with pytest.raises(DataError, match="no_such_package"):
        read_crop(replace(SOURCES[0], package="no_such_package"), 0)


def test_a_missing_label_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tmp_path / "labels.csv"
    cut.write_text("".join(LABELS_FILE.read_text().splitlines(keepends=True)[:-1]))
    monkeypatch.setattr(photos, "LABELS_FILE", cut)
    photos._labels.cache_clear()
    try:
        with pytest.raises(DataError, match="reinstall"):
            Photos().rows()
    finally:
        photos._labels.cache_clear()
