"""The official layouts of the datasets, made small in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from iqa_robust.datasets.biq2021 import BIQ2021
from iqa_robust.datasets.clive import CLIVE
from iqa_robust.datasets.csiq import CSIQ
from iqa_robust.datasets.files import FileDataset
from iqa_robust.datasets.kadid10k import KADID10k
from iqa_robust.datasets.koniq10k import KonIQ10k
from iqa_robust.datasets.live import DISTORTIONS, LIVE
from iqa_robust.datasets.spaq import SPAQ
from iqa_robust.datasets.tid2013 import TID2013


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Pillow's name for the format, whatever the case of the ending.
    Image.new("RGB", (4, 3), (1, 2, 3)).save(path, {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP"}[path.suffix.lower()])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cells(names: Sequence[str]) -> Any:
    array = np.empty((len(names), 1), dtype=object)
    array[:, 0] = names
    return array


def clive(root: Path, n: int = 9) -> None:
    names = [f"t{k}.bmp" for k in range(1, 8)] + [f"{k}.JPG" for k in range(n - 7)]
    (root / "Data").mkdir(parents=True)
    savemat(root / "Data/AllImages_release.mat", {"AllImages_release": cells(names)})
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.arange(n, dtype=float)[None]})
    savemat(root / "Data/AllStdDev_release.mat", {"AllStdDev_release": np.full((1, n), 0.5)})
    for name in names[7:]:
        image(root / "Images" / name)


def biq2021(root: Path) -> None:
    write(root / "Train (Images and MOS).csv", "Image Name,MOS\nss02 (1014).jpg,0.5\nss03 (2).jpg,0.25\n")
    write(root / "Test (Images and MOS).csv", "Image Name,MOS\nss01 (1).jpg,0.75\n")
    for name in ("SS02 (1014).jpg", "ss03 (2).jpg", "ss01 (1).jpg"):
        image(root / "Images" / name)


def live(root: Path, realigned: bool = False) -> None:
    names = [f"{kind}/img{k}.bmp" for kind, n in DISTORTIONS for k in range(1, n + 1)]
    copies = np.zeros(982, dtype=np.uint8)
    copies[[0, 227, 981]] = 1
    scores = np.where(copies == 1, 0.0, np.arange(982) / 10)
    root.mkdir(parents=True)
    savemat(root / "refnames_all.mat", {"refnames_all": cells([f"ref{k % 29}.bmp" for k in range(982)]).T})
    savemat(root / "dmos.mat", {"dmos": scores[None], "orgs": copies[None]})
    if realigned:
        arrays = {"dmos_new": scores[None] + 15, "dmos_std": np.full((1, 982), 2.0), "orgs": copies[None]}
        savemat(root / "dmos_realigned.mat", arrays)
    for name in names:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for k in range(29):
        image(root / f"refimgs/ref{k}.bmp")


def csiq(root: Path) -> None:
    write(root / "csiq_label.txt", "1600.AWGN.1.png 0.25\nsnow_leaves.jpeg2000.5.png 1.000000\n")
    for name in ("dst_imgs/awgn/1600.AWGN.1.png", "dst_imgs/jpeg2000/snow_leaves.jpeg2000.5.png"):
        image(root / name)
    for name in ("1600", "snow_leaves"):
        image(root / f"src_imgs/{name}.png")


def tid2013(root: Path) -> None:
    write(root / "mos_with_names.txt", "5.51429 I01_01_1.bmp\r\n4.02778 i25_24_4.bmp\r\n")
    write(root / "mos_std.txt", "0.13013\r\n0.25\r\n")
    for name in ("distorted_images/i01_01_1.bmp", "distorted_images/I25_24_4.BMP"):
        image(root / name)
    for name in ("I01.BMP", "i25.bmp"):
        image(root / f"reference_images/{name}")


def kadid10k(root: Path) -> None:
    write(
        root / "dmos.csv",
        "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.496\nI02_01_01.png,I02.png,1,0\n",
    )
    for name in ("I01_01_01", "I01", "I02_01_01", "I02"):
        image(root / f"images/{name}.png")


def koniq10k(root: Path, folder: str = "1024x768") -> None:
    head = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    lines = [f"{k}.jpg,0,0,0,1,0,100,{50 + k},0.5,{s}" for k, s in enumerate(("training", "validation", "test"))]
    write(root / "koniq10k_distributions_sets.csv", "\n".join([head, *lines]))
    for k in range(3):
        image(root / folder / f"{k}.jpg")


def spaq(root: Path) -> None:
    head = "Image name,MOS,Brightness,Colorfulness,Contrast,Noisiness,Sharpness"
    write(root / "Annotations/MOS and Image attribute scores.csv", f"{head}\n00001.jpg,48.86,1,2,3,4,5\n")
    image(root / "TestImage/00001.jpg")


MAKERS: dict[type[FileDataset], Callable[[Path], None]] = {
    BIQ2021: biq2021,
    CLIVE: clive,
    CSIQ: csiq,
    KADID10k: kadid10k,
    KonIQ10k: koniq10k,
    LIVE: live,
    SPAQ: spaq,
    TID2013: tid2013,
}
