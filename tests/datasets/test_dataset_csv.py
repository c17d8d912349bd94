"""The csv dataset on folders made here; also everything that `FileDataset` does with files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_robust.datasets import create
from iqa_robust.datasets.base import Item, Row
from iqa_robust.datasets.csv_table import CsvTable
from iqa_robust.errors import DataError, RequestError

RNG = np.random.default_rng(1)


def picture(path: Path, size: tuple[int, int] = (8, 10), **options: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def dataset(tmp_path: Path, text: str, **options: Any) -> CsvTable:
    table = tmp_path / "table.csv"
    table.write_text(text, encoding="utf-8")
    return CsvTable(**{"table": str(table), "split": "all", **options})


def named(tmp_path: Path) -> str:
    """How a sentence about the dataset begins."""
    return f"dataset 'csv', {tmp_path / 'table.csv'}"


def sentence(data: CsvTable, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as error:
        data.rows()
    return str(error.value)


def test_all_columns(tmp_path: Path) -> None:
    pixels, ref = picture(tmp_path / "d/a b.png"), picture(tmp_path / "r/a.png")
    data = dataset(
        tmp_path,
        '\ufeffimage,mos,mos_std,ref,reference_id,split,note\n"d/a b.png",1.5,0.25,r/a.png,A,test,"x, y"\n\n',
    )
    assert data.rows() == (Row("d/a b.png", "d/a b.png", 1.5, 0.25, "A", "r/a.png", "test"),)
    assert data.full_reference
    (item,) = data
    assert (item.image_id, item.mos, item.mos_std, item.reference_id) == ("d/a b.png", 1.5, 0.25, "A")
    for tensor, array in ((item.x, pixels), (item.ref, ref)):
        assert tensor is not None
        assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.float32, (3, 8, 10), True)
        # Exactly k / 255 in float32, with NumPy's division as the witness.
        np.testing.assert_array_equal(tensor.numpy(), array.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert data.size(data.rows()[0]) == (8, 10)


def test_two_columns_are_enough(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    data = dataset(tmp_path, "mos,image\n3,a.png\n1,b.png\n")
    assert data.rows() == (Row("a.png", "a.png", 3.0), Row("b.png", "b.png", 1.0))
    assert data.mos_range == (1.0, 3.0)
    assert not data.full_reference
    assert data.mos_higher_is_better


def test_the_registry_makes_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("image,mos\na.png,3\n")
    data = create("csv", table=str(table), split="all", mos_range=[0, 5], mos_higher_is_better=False)
    assert (data.mos_range, data.mos_higher_is_better, len(data)) == ((0.0, 5.0), False, 1)


def test_root_elsewhere(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    assert sentence(dataset(tmp_path, "image,mos\na.png,1\n")) == (
        f"{named(tmp_path)}: expected the files the label table names in {tmp_path.resolve()}, but 1 of 1 images"
        " of split 'all' are missing (a.png); check root."
    )
    assert len(dataset(tmp_path, "image,mos\na.png,1\n", root=str(tmp_path / "images"))) == 1


def test_seeded_split_is_by_reference_then_ref_then_image(tmp_path: Path) -> None:
    lines = []
    for k in range(20):
        picture(tmp_path / f"{k}.png")
        lines.append(f"{k}.png,{k},{k % 5}.png")
    for column in ("ref", "reference_id"):
        text = "\n".join([f"image,mos,{column}", *lines])
        train, test = ({r.content for r in dataset(tmp_path, text, split=s).rows()} for s in ("train", "test"))
        assert (len(train), len(test), train & test) == (4, 1, set())


def test_table_sentences(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = tmp_path / "table.csv"
    head, tail = f"{path}: expected the columns image, mos, each once, got", "name each of them in the first line."
    cell = f"{path}, 'a.png',"
    amiss = "correct the label table."
    every = "expected train, val or test for every row, or for none."
    cases = {
        "": f"{head} an empty file; {tail}",
        "image;mos\na.png;1\n": f"{head} image;mos; separate columns by commas.",
        "image\tmos\na.png\t1\n": f"{head} image\tmos; separate columns by commas.",
        "picture,mos\na.png,1\n": f"{head} picture, mos; {tail}",
        "image,mos,mos\na.png,1,2\n": f"{head} image, mos, mos; {tail}",
        "image,mos\na.png\n": f"{path}, line 2: expected 2 cells, got 1; correct the table.",
        "image,mos\na.png,good\n": f"{cell} mos: expected a number, got 'good'; {amiss}",
        "image,mos\na.png,\n": f"{cell} mos: expected a number, got ''; {amiss}",
        "image,mos,mos_std\na.png,1,x\n": f"{cell} mos_std: expected a number, got 'x'; {amiss}",
        "image,mos\n": f"{named(tmp_path)}: expected a label table with rows, got an empty one.",
        "image,mos\na.png,1\na.png,2\n": f"{named(tmp_path)}: the label table names 'a.png' twice; remove one row.",
        "image,mos\na.png,nan\nb.png,2\n": (
            f"{named(tmp_path)}: the MOS of 'a.png' is nan; expected a number from 2 to 2; check the label table."
        ),
        "image,mos,ref\na.png,1,a.png\nb.png,2,\n": (
            f"{named(tmp_path)}: a ref is given for 1 of 2 rows; expected one for every row or for none."
        ),
        "image,mos,split\na.png,1,dev\n": f"{named(tmp_path)}: the split of 'a.png' is 'dev'; {every}",
    }
    for text, message in cases.items():
        assert sentence(dataset(tmp_path, text)) == message


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"image,mos\n\xff\xfe,1\n")
    message = sentence(CsvTable(table=str(path)))
    assert message.startswith(f"{path}: expected a comma-separated UTF-8 table, got a broken one (")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    assert sentence(CsvTable(table=str(path))) == (
        f"{path}: the label table cannot be read (No such file or directory); check the path."
    )


def test_range_given_is_checked(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert sentence(dataset(tmp_path, "image,mos\na.png,7\n", mos_range=[1, 5])) == (
        f"{named(tmp_path)}: the MOS of 'a.png' is 7.0; expected a number from 1 to 5; check the label table."
    )
    for wrong in ([5, 1], [1, 1], [1], [1, 2, 3]):
        with pytest.raises(RequestError) as error:
            dataset(tmp_path, "", mos_range=wrong)
        assert str(error.value) == (
            f"dataset 'csv': mos_range must be two finite numbers, the lower first, got {wrong!r}."
        )


def test_missing_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "r.png"):
        picture(tmp_path / name)
    lines = ["image,mos,ref", "a.png,1,r.png", "b.png,2,no.png", *(f"x{k}.png,{k},r.png" for k in range(4))]
    text = "\n".join(lines)
    assert sentence(dataset(tmp_path, text)) == (
        f"{named(tmp_path)}: expected the files the label table names in {tmp_path.resolve()}, but 5 of 6 images"
        " of split 'all' are missing (no.png, x0.png, x1.png, ...);"
        " set allow_missing to true to go on without them."
    )
    data = dataset(tmp_path, text, allow_missing=True)
    assert ([row.image_id for row in data.rows()], data.missing) == (["a.png"], 5)
    assert data.describe()["n_missing"] == 5
    none = "image,mos\nx.png,1\n"
    assert sentence(dataset(tmp_path, none, allow_missing=True)).endswith("are missing (x.png); check root.")


def test_a_partial_copy_has_a_part_of_the_same_split(tmp_path: Path) -> None:
    text = "\n".join(["image,mos", *(f"{k}.png,{k}" for k in range(30))])
    for k in range(30):
        picture(tmp_path / f"{k}.png")
    whole = {split: set(dataset(tmp_path, text, split=split).rows()) for split in ("train", "test")}
    for k in range(0, 30, 2):
        (tmp_path / f"{k}.png").unlink()
    for split, before in whole.items():
        after = set(dataset(tmp_path, text, split=split, allow_missing=True).rows())
        assert after == {row for row in before if int(row.image_id[:-4]) % 2}


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "sub/../../secret.png", "..\\secret.png"])
@pytest.mark.parametrize("column", ["image", "ref"])
def test_names_never_leave_the_root(tmp_path: Path, name: str, column: str) -> None:
    picture(tmp_path / "secret.png")
    picture(tmp_path / "root/a.png")
    cells = {"image": "a.png", "ref": "a.png", column: name}
    data = dataset(tmp_path, f"image,mos,ref\n{cells['image']},1,{cells['ref']}\n", root=str(tmp_path / "root"))
    message = f"{name!r} in {(tmp_path / 'root').resolve()}: expected a name inside this folder"
    assert sentence(data).startswith(message)
    with pytest.raises(DataError) as error:  # a row that did not come from the table is no way around
        data.load(Row("a", cells["image"], 1.0, ref_path=cells["ref"]))
    assert str(error.value).startswith(message)


def test_case_mismatch_is_resolved(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "Images/SS02 (1014).JPG", quality=95)
    data = dataset(tmp_path, "image,mos\nimages/ss02 (1014).jpg,1\n")
    (row,) = data.rows()
    assert (row.image_id, row.path) == ("images/ss02 (1014).jpg", "Images/SS02 (1014).JPG")
    assert data.load(row).x.shape == (3, *pixels.shape[:2])


def test_reference_of_another_size(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (8, 10))
    picture(tmp_path / "r.png", (8, 11))
    data = dataset(tmp_path, "image,mos,ref\na.png,1,r.png\n")
    with pytest.raises(DataError) as error:
        data.load(data.rows()[0])
    assert str(error.value) == (
        f"{named(tmp_path)}: 'a.png' has (8, 10) pixels and its reference 'r.png' (8, 11); expected one size."
    )


def test_a_broken_image_does_not_end_the_run(tmp_path: Path) -> None:
    for k in range(5):
        picture(tmp_path / f"{k}.png", (40, 40))
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    data = dataset(tmp_path, "\n".join(["image,mos", *(f"{k}.png,{k}" for k in range(5))]))
    results = list(data.prefetch(data.rows()))
    assert [isinstance(result, Item) for result in results] == [True, True, False, True, True]
    assert str(results[2]).startswith(f"{tmp_path.resolve() / '2.png'}: expected a whole BMP, JPEG, PNG or WEBP file")


def test_an_image_that_vanishes_after_listing(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    data = dataset(tmp_path, "image,mos\na.png,1\n")
    (row,) = data.rows()
    (tmp_path / "a.png").unlink()
    for use in (data.load, data.size):
        with pytest.raises(
            DataError, match=r"a\.png: the image file is missing; restore it or list the dataset again\.$"
        ):
            use(row)
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(No such file or directory\); check the file\.$"):
        data.manifest()
    with pytest.raises(DataError) as error:
        data.load(Row("b", "b.png", 1.0))
    assert str(error.value) == f"{named(tmp_path)}: the image 'b.png' is missing in {tmp_path.resolve()}."


def test_exif_is_a_choice(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture(tmp_path / "a.png", (8, 10), exif=exif)
    text = "image,mos\na.png,1\n"
    stored, turned = dataset(tmp_path, text), dataset(tmp_path, text, exif_orientation=True)
    sizes = [data.size(data.rows()[0]) for data in (stored, turned)]
    assert sizes == [(8, 10), (10, 8)]
    (x,) = (item.x for item in turned)
    np.testing.assert_array_equal((x * 255).round().numpy().transpose(1, 2, 0), pixels.transpose(1, 0, 2)[:, ::-1])
    assert stored.manifest() != turned.manifest()


def test_resize_and_crop_apply_to_the_reference_too(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (20, 30))
    picture(tmp_path / "r.png", (20, 30))
    data = dataset(tmp_path, "image,mos,ref\na.png,1,r.png\n", resize=16, crop=12)
    (item,) = data
    assert item.ref is not None
    assert item.x.shape == item.ref.shape == (3, 12, 12)
    assert data.size(data.rows()[0]) == (12, 12)
    levels = item.x * 255
    assert torch.equal(levels.round() / 255, item.x)  # on the 8-bit grid, exactly


def test_manifest_follows_the_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "r.png"):
        picture(tmp_path / name)
    text = "image,mos,ref\na.png,1,r.png\n"
    first = dataset(tmp_path, text).manifest()
    assert dataset(tmp_path, text).manifest() == first
    for name in ("a.png", "r.png"):
        path = tmp_path / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert dataset(tmp_path, text).manifest() != first
        path.write_bytes(before)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a.png", "r.png"):
        (tmp_path / name).rename(moved / name)
    assert dataset(tmp_path, text, root=str(moved)).manifest() == first
