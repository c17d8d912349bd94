"""Every official layout, made small in a temporary folder: what is found where, what is said when amiss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from official_layouts import MAKERS, biq2021, cells, clive, csiq, kadid10k, koniq10k, live, spaq, tid2013, write
from scipy.io import savemat

from iqa_robust import datasets
from iqa_robust.datasets.base import Row
from iqa_robust.datasets.biq2021 import BIQ2021
from iqa_robust.datasets.clive import CLIVE
from iqa_robust.datasets.csiq import CSIQ
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.kadid10k import KADID10k
from iqa_robust.datasets.koniq10k import KonIQ10k
from iqa_robust.datasets.live import LIVE
from iqa_robust.datasets.spaq import SPAQ
from iqa_robust.datasets.tid2013 import TID2013
from iqa_robust.errors import DataError, RequestError


def sentence(data: FileDataset) -> str:
    with pytest.raises(DataError) as error:
        data.rows()
    return str(error.value)


def test_clive(tmp_path: Path) -> None:
    clive(tmp_path / "x")
    data = CLIVE(root=str(tmp_path / "x"), split="all")
    assert data.rows() == (Row("0.JPG", "Images/0.JPG", 7.0, 0.5), Row("1.JPG", "Images/1.JPG", 8.0, 0.5))


def test_biq2021(tmp_path: Path) -> None:
    biq2021(tmp_path)
    rows = {s: BIQ2021(root=str(tmp_path), split=s).rows() for s in ("train", "test", "all")}
    assert rows["train"] == (
        Row("ss02 (1014).jpg", "Images/SS02 (1014).jpg", 0.5, split="train"),
        Row("ss03 (2).jpg", "Images/ss03 (2).jpg", 0.25, split="train"),
    )
    assert rows["test"] == (Row("ss01 (1).jpg", "Images/ss01 (1).jpg", 0.75, split="test"),)
    assert rows["all"] == rows["train"] + rows["test"]


def test_live(tmp_path: Path) -> None:
    live(tmp_path / "x", realigned=True)
    rows = LIVE(root=str(tmp_path / "x"), split="all").rows()
    assert len(rows) == 979
    assert rows[0] == Row("jp2k/img2.bmp", "jp2k/img2.bmp", 0.1, None, "ref1.bmp", "refimgs/ref1.bmp")
    # Position in the joined arrays: 227 jp2k, then jpeg; 0, 227 and 981 are copies of references here.
    by_name = {row.image_id: row for row in rows}
    assert "jpeg/img1.bmp" not in by_name
    assert by_name["jpeg/img2.bmp"].mos == 22.8
    assert by_name["wn/img1.bmp"].mos == 46.0
    assert by_name["gblur/img1.bmp"].mos == 63.4
    assert by_name["fastfading/img1.bmp"].mos == 80.8
    assert "fastfading/img174.bmp" not in by_name
    data = LIVE(root=str(tmp_path / "x"), split="all", dmos="realigned")
    assert data.rows()[0] == Row("jp2k/img2.bmp", "jp2k/img2.bmp", 15.1, 2.0, "ref1.bmp", "refimgs/ref1.bmp")
    assert max(row.mos for row in data.rows()) == 113.0  # above 100, and still inside the range


def test_csiq(tmp_path: Path) -> None:
    csiq(tmp_path)
    assert CSIQ(root=str(tmp_path), split="all").rows() == (
        Row("1600.AWGN.1.png", "dst_imgs/awgn/1600.AWGN.1.png", 0.25, None, "1600", "src_imgs/1600.png"),
        Row(
            "snow_leaves.jpeg2000.5.png",
            "dst_imgs/jpeg2000/snow_leaves.jpeg2000.5.png",
            1.0,
            None,
            "snow_leaves",
            "src_imgs/snow_leaves.png",
        ),
    )


def test_csiq_from_the_authors_excel_table(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="reading the authors' Excel table needs openpyxl")
    csiq(tmp_path)
    book = openpyxl.Workbook()
    book.active.title = "all_by_distortion"
    sheet = book.create_sheet("all_by_image")
    for row, line in enumerate([
        ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"),
        (1600, 1, "noise", 1, 0.0625, 0.25),
        ("snow_leaves", 3, "jpeg 2000", 5, 0.125, 1),
    ], start=4):  # fmt: skip
        for column, cell in enumerate(line, start=4):  # the table begins at D4 in the original
            sheet.cell(row, column, cell)
    book.save(tmp_path / "csiq.DMOS.xlsx")
    from_text = CSIQ(root=str(tmp_path), split="all").rows()
    (tmp_path / "csiq_label.txt").unlink()
    from_excel = CSIQ(root=str(tmp_path), split="all").rows()
    assert [row.mos_std for row in from_excel] == [0.0625, 0.125]
    assert [(r.image_id, r.path, r.mos, r.ref_path) for r in from_excel] == [
        (r.image_id, r.path, r.mos, r.ref_path) for r in from_text
    ]


@pytest.mark.parametrize(
    ("cls", "table"), [(CSIQ, "csiq.DMOS.xlsx"), (SPAQ, "Annotations/MOS and Image attribute scores.xlsx")]
)
def test_excel_without_openpyxl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type[FileDataset], table: str
) -> None:
    write(tmp_path / table, "")
    monkeypatch.setattr("iqa_robust.datasets.labels.find_spec", lambda name: None)
    assert sentence(cls(root=str(tmp_path))) == (
        f"{tmp_path.resolve() / table}: reading an Excel table needs openpyxl; install it with"
        " `pip install openpyxl`, or export the sheet as text (see the dataset's documentation)."
    )


def test_broken_excel(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="reading the authors' Excel table needs openpyxl")
    path = tmp_path / "Annotations/MOS and Image attribute scores.xlsx"
    write(path, "no archive")
    assert sentence(SPAQ(root=str(tmp_path))).startswith(
        f"{path.resolve()}: expected an Excel table, got a broken one ("
    )
    openpyxl.Workbook().save(path)
    assert sentence(SPAQ(root=str(tmp_path))) == (
        f"{path.resolve()}: expected a line with the columns Image name, MOS, found none."
    )


def test_spaq(tmp_path: Path) -> None:
    spaq(tmp_path)
    expected = (Row("00001.jpg", "TestImage/00001.jpg", 48.86),)
    assert SPAQ(root=str(tmp_path), split="all").rows() == expected


def test_spaq_from_the_authors_excel_table(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="reading the authors' Excel table needs openpyxl")
    spaq(tmp_path)
    expected = SPAQ(root=str(tmp_path), split="all").rows()
    (tmp_path / "Annotations/MOS and Image attribute scores.csv").unlink()
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS", "Brightness"])
    book.active.append(["00001.jpg", 48.86, 1])
    book.save(tmp_path / "Annotations/MOS and Image attribute scores.xlsx")
    assert SPAQ(root=str(tmp_path), split="all").rows() == expected


def test_tid2013(tmp_path: Path) -> None:
    tid2013(tmp_path)
    assert TID2013(root=str(tmp_path), split="all").rows() == (
        Row(
            "I01_01_1.bmp",
            "distorted_images/i01_01_1.bmp",
            5.51429,
            0.13013,
            "I01",
            "reference_images/I01.BMP",
        ),
        Row("i25_24_4.bmp", "distorted_images/I25_24_4.BMP", 4.02778, 0.25, "I25", "reference_images/i25.bmp"),
    )


def test_kadid10k(tmp_path: Path) -> None:
    kadid10k(tmp_path)
    assert KADID10k(root=str(tmp_path), split="all").rows() == (
        Row("I01_01_01.png", "images/I01_01_01.png", 4.57, 0.496, "I01", "images/I01.png"),
        Row("I02_01_01.png", "images/I02_01_01.png", 1.0, 0.0, "I02", "images/I02.png"),
    )


@pytest.mark.parametrize("folder", ["1024x768", "512x384"])
def test_koniq10k(tmp_path: Path, folder: str) -> None:
    koniq10k(tmp_path, folder)
    for k, split in enumerate(("train", "val", "test")):
        data = KonIQ10k(root=str(tmp_path), split=split, images=folder)
        assert data.rows() == (Row(f"{k}.jpg", f"{folder}/{k}.jpg", 50.0 + k, 12.5, split=split),)


@pytest.mark.parametrize("cls", MAKERS)
def test_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type[FileDataset]) -> None:
    """What the harness relies on, for each of them: found below a data root, loadable, described."""
    MAKERS[cls](tmp_path / cls.folders[0])
    monkeypatch.setenv("IQA_ROBUST_DATA", str(tmp_path))
    assert cls.locate(tmp_path) == tmp_path / cls.folders[0]
    data = cls(split="all")
    assert datasets.get(cls.name) is cls
    assert isinstance(datasets.create(cls.name), cls)
    assert all((row.ref_path is not None) == data.full_reference for row in data.rows())
    low, high = data.mos_range
    assert low < high
    if cls is not LIVE:  # its 979 images are empty files here
        for row, item in zip(data.rows(), data, strict=True):
            assert tuple(item.x.shape) == (3, *data.size(row)) == (3, 3, 4)
            assert (item.ref is None) == (row.ref_path is None)
    described = data.describe()
    assert (described["name"], described["n_images"], described["n_missing"]) == (cls.name, len(data), 0)
    assert described["homepage"].startswith("http")
    assert described["license_note"]
    assert len(data.manifest()) == 64


@pytest.mark.parametrize("cls", MAKERS)
def test_an_empty_folder_names_the_table_and_the_homepage(tmp_path: Path, cls: type[FileDataset]) -> None:
    table = {
        BIQ2021: "Train (Images and MOS).csv", CLIVE: "Data/AllImages_release.mat", CSIQ: "csiq_label.txt",
        KADID10k: "dmos.csv", KonIQ10k: "koniq10k_distributions_sets.csv", LIVE: "dmos.mat",
        SPAQ: "Annotations/MOS and Image attribute scores.xlsx", TID2013: "mos_with_names.txt",
    }[cls]  # fmt: skip
    assert sentence(cls(root=str(tmp_path))) == (
        f"dataset {cls.name!r}: expected the file {table!r} in {tmp_path.resolve()}, found none; obtain"
        " the dataset"
        f" in its authors' layout from {cls.homepage}."
    )


@pytest.mark.parametrize("cls", MAKERS)
def test_where_the_folder_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type[FileDataset]
) -> None:
    names = " or ".join(repr(folder) for folder in cls.folders)
    monkeypatch.delenv("IQA_ROBUST_DATA", raising=False)
    assert sentence(cls()) == (
        f"dataset {cls.name!r}: no root given and IQA_ROBUST_DATA is not set; give root, or set it to the"
        " folder"
        f" that holds {names} (obtain the dataset from {cls.homepage})."
    )
    monkeypatch.setenv("IQA_ROBUST_DATA", str(tmp_path))
    assert sentence(cls()) == (
        f"dataset {cls.name!r}: expected a folder named {names} in {tmp_path}, found none; obtain the"
        " dataset from"
        f" {cls.homepage} or give its folder as root."
    )
    for folder in cls.folders[::-1]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert cls.locate(tmp_path) == tmp_path / cls.folders[0]
    gone = tmp_path / "gone"
    assert sentence(cls(root=str(gone))) == f"{gone}: expected the dataset's folder, found none; check root."


def test_missing_images_of_a_layout(tmp_path: Path) -> None:
    kadid10k(tmp_path)
    (tmp_path / "images/I02.png").unlink()
    assert sentence(KADID10k(root=str(tmp_path), split="all")) == (
        f"dataset 'kadid10k': expected the layout of {KADID10k.homepage} in {tmp_path.resolve()}, but 1 of"
        " 2 images"
        " of split 'all' are missing (images/I02.png); set allow_missing to true to go on without them."
    )
    data = KADID10k(root=str(tmp_path), split="all", allow_missing=True)
    assert ([row.image_id for row in data.rows()], data.missing) == (["I01_01_01.png"], 1)


def test_wrong_choices() -> None:
    for make, message in (
        (lambda: LIVE(dmos="new"), "dataset 'live': dmos must be one of release2, realigned, got 'new'."),
        (
            lambda: KonIQ10k(images="big"),
            "dataset 'koniq10k': images must be one of 1024x768, 512x384, got 'big'.",
        ),
    ):
        with pytest.raises(RequestError) as error:
            make()
        assert str(error.value) == message


def test_broken_tables(tmp_path: Path) -> None:
    root = tmp_path.resolve()

    def said(cls: type[FileDataset], file: str, text: str) -> str:
        write(tmp_path / file, text)
        return sentence(cls(root=str(tmp_path), split="all"))

    assert said(CSIQ, "csiq_label.txt", "1600.AWGN.1.png\n") == (
        f"{root / 'csiq_label.txt'}, line 1: expected 2 words, got 1; fetch the file again."
    )
    assert said(CSIQ, "csiq_label.txt", "1600.haze.1.png 0.5\n") == (
        f"dataset 'csiq': {root / 'csiq_label.txt'} names '1600.haze.1.png'; expected a name like '1600.AWGN.1.png'."
    )
    assert said(CSIQ, "csiq_label.txt", "1600.AWGN.1.png 50\n") == (
        "dataset 'csiq': the MOS of '1600.AWGN.1.png' is 50.0; expected a number from 0 to 1; check the label table."
    )
    write(tmp_path / "mos_std.txt", "0.1\n")
    assert said(TID2013, "mos_with_names.txt", "5 i01_01_1.bmp\n4 i01_01_2.bmp\n") == (
        f"{root}: expected label columns of one length, got mos_with_names 2, mos_std 1; fetch the files again."
    )
    assert said(TID2013, "mos_with_names.txt", "5 one.bmp\n") == (
        f"dataset 'tid2013': {root / 'mos_with_names.txt'} names 'one.bmp'; expected a name like 'i01_01_1.bmp'."
    )
    assert said(TID2013, "mos_with_names.txt", "five i01_01_1.bmp\n") == (
        f"{root / 'mos_with_names.txt'}, 'i01_01_1.bmp', MOS: expected a number, got 'five'; correct the label table."
    )
    assert said(KonIQ10k, "koniq10k_distributions_sets.csv", "image_name,MOS,SD,set\n1.jpg,50,0.5,dev\n") == (
        f"dataset 'koniq10k': {root / 'koniq10k_distributions_sets.csv'} puts '1.jpg' into the set 'dev';"
        " expected"
        " one of training, validation, test."
    )
    assert said(KADID10k, "dmos.csv", "dist_img,ref_img,mos\n") == (
        f"{root / 'dmos.csv'}: expected the columns dist_img, ref_img, dmos, var, each once, got dist_img,"
        " ref_img,"
        " mos; is this the authors' table?"
    )


def test_broken_matlab_files(tmp_path: Path) -> None:
    clive(tmp_path)
    root, path = str(tmp_path), tmp_path / "Data/AllMOS_release.mat"
    found = path.resolve()
    path.write_bytes(b"no matlab")
    assert sentence(CLIVE(root=root)).startswith(f"{found}: expected a MATLAB file, got a broken one (")
    savemat(path, {"other": np.zeros(9)})
    assert sentence(CLIVE(root=root)) == (
        f"{found}: expected an array named 'AllMOS_release', found none; is this the authors' file?"
    )
    savemat(path, {"AllMOS_release": cells(["a"])})
    assert sentence(CLIVE(root=root)) == (
        f"{found}: expected numbers in 'AllMOS_release', got object; is this the authors' file?"
    )
    savemat(path, {"AllMOS_release": np.zeros(8)})
    assert sentence(CLIVE(root=root)) == (
        f"{found.parent}: expected label columns of one length, got names 9, MOS 8, StdDev 9; fetch the files again."
    )
    savemat(tmp_path / "Data/AllImages_release.mat", {"AllImages_release": np.zeros(9)})
    assert sentence(CLIVE(root=root)) == (
        f"{found.with_name('AllImages_release.mat')}: expected texts in 'AllImages_release', got something"
        " else; is"
        " this the authors' file?"
    )
