"""Photographs that ship inside our dependencies' wheels, and the crops that `photos` takes from them.

Nothing is copied into this package and nothing is downloaded: the files are read where the package manager
put them. They are checked by sha256, because the shipped pseudo-MOS belong to exactly these pixels.

Crops of one picture never overlap. They lie on that lattice of 192-pixel cells which has the most local
activity (mean log standard deviation of 9 x 9 windows), and are frozen here: no library can move them.

From scikit-image: astronaut, brick, camera, chelsea, coffee, coins, grass, gravel, hubble, motorcycle,
retina, rocket and tissue; from scikit-learn: china and flower; from Matplotlib: hopper. Origin and license
stand with each picture below, as the docstrings of `skimage.data` and scikit-learn's
`datasets/images/README.txt` give them; Matplotlib ships its picture without a note.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqa_robust.errors import DataError

CROP_SIDE = 192
"""Height and width of every crop: MS-SSIM needs 161, and small images keep a run on two cores short."""


@dataclass(frozen=True)
class Source:
    """One photograph, the unit of the split, and the (top, left) corners of its crops."""

    name: str
    split: str
    package: str
    file: str
    sha256: str
    corners: tuple[tuple[int, int], ...]
    origin: str
    license: str
    gray: bool = False
    """A gray picture is shown as three equal channels and skips distortions that only touch color."""

    @property
    def references(self) -> tuple[str, ...]:
        """The reference ids of the crops: the picture's name and a number."""
        return tuple(f"{self.name}-{number}" for number in range(len(self.corners)))


SOURCES: tuple[Source, ...] = (
    Source(
        name="astronaut",
        split="train",
        package="skimage",
        file="data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        corners=((128, 0), (128, 192), (320, 0), (320, 192)),
        origin="NASA Great Images: Eileen Collins",
        license="public domain, no known restrictions",
    ),
    Source(
        name="china",
        split="train",
        package="sklearn",
        file="datasets/images/china.jpg",
        sha256="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        corners=((40, 0), (40, 192), (232, 0), (232, 192), (232, 384)),
        origin="danielbuechele on Flickr, photo 6061409035",
        license="CC BY 2.0",
    ),
    Source(
        name="motorcycle",
        split="train",
        package="skimage",
        file="data/motorcycle_left.png",
        sha256="db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
        corners=((8, 120), (8, 312), (8, 504), (200, 120), (200, 312), (200, 504)),
        origin="Middlebury 2014 stereo benchmark (Scharstein et al., 2014), left view, reduced by 4",
        license="none stated; scikit-image distributes it, cite the benchmark",
    ),
    Source(
        name="hopper",
        split="train",
        package="matplotlib",
        file="mpl-data/sample_data/grace_hopper.jpg",
        sha256="a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        corners=((0, 0), (0, 192), (192, 0), (192, 192)),
        origin="official portrait of Grace Hopper, U.S. Navy",
        license="public domain, work of the U.S. federal government",
    ),
    Source(
        name="hubble",
        split="train",
        package="skimage",
        file="data/hubble_deep_field.jpg",
        sha256="3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        corners=((56, 224), (440, 608)),
        origin="NASA, Hubble eXtreme Deep Field",
        license="public domain",
    ),
    Source(
        name="retina",
        split="train",
        package="skimage",
        file="data/retina.jpg",
        sha256="38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        corners=((424, 64),),
        origin="Mikael Haggstrom, 2014, fundus photograph of a normal left eye",
        license="CC0 1.0",
    ),
    Source(
        name="tissue",
        split="train",
        package="skimage",
        file="data/ihc.png",
        sha256="f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        corners=((8, 0), (8, 192)),
        origin="Center for Microscopy and Molecular Imaging: stained colonic glands",
        license="no known restrictions",
    ),
    Source(
        name="brick",
        split="train",
        package="skimage",
        file="data/brick.png",
        sha256="7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        corners=((76, 72),),
        origin="CC0Textures, Bricks25",
        license="CC0",
        gray=True,
    ),
    Source(
        name="grass",
        split="train",
        package="skimage",
        file="data/grass.png",
        sha256="b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        corners=((128, 320), (320, 320)),
        origin="DeviantArt via scikit-image, a lawn",
        license="CC0",
        gray=True,
    ),
    Source(
        name="gravel",
        split="train",
        package="skimage",
        file="data/gravel.png",
        sha256="c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        corners=((128, 264), (320, 264)),
        origin="CC0Textures, Gravel04",
        license="CC0",
        gray=True,
    ),
    Source(
        name="camera",
        split="train",
        package="skimage",
        file="data/camera.png",
        sha256="b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        corners=((128, 128), (320, 128), (320, 320)),
        origin="Lav Varshney",
        license="CC0",
        gray=True,
    ),
    Source(
        name="coins",
        split="train",
        package="skimage",
        file="data/coins.png",
        sha256="f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        corners=((100, 104),),
        origin="Brooklyn Museum: Greek coins from Pompeii",
        license="no known restrictions",
        gray=True,
    ),
    Source(
        name="chelsea",
        split="test",
        package="skimage",
        file="data/chelsea.png",
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        corners=((0, 16), (0, 208)),
        origin="Stefan van der Walt",
        license="CC0",
    ),
    Source(
        name="coffee",
        split="test",
        package="skimage",
        file="data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        corners=((16, 0), (16, 192), (208, 0), (208, 384)),
        origin="Rachel Michetti, Pikolo Espresso Bar",
        license="CC0",
    ),
    Source(
        name="flower",
        split="test",
        package="sklearn",
        file="datasets/images/flower.jpg",
        sha256="a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        corners=((40, 64), (40, 256), (232, 256)),
        origin="vultilion on Flickr, photo 6056698931",
        license="CC BY 2.0",
    ),
    Source(
        name="rocket",
        split="test",
        package="skimage",
        file="data/rocket.jpg",
        sha256="c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        corners=((40, 0), (232, 0), (232, 192)),
        origin="SpaceX: DSCOVR on Falcon 9",
        license="public domain",
    ),
)
"""Every photograph used; a picture lies in one split with all of its crops."""


def read_crop(source: Source, number: int) -> NDArray[np.uint8]:
    """Crop `number` of a picture, uint8 (192, 192, 3), read-only.

    Raises:
        DataError: the picture is not in the installed package, or is not the picture that was labeled.
    """
    top, left = source.corners[number]
    return _picture(source)[top : top + CROP_SIDE, left : left + CROP_SIDE]


@lru_cache(maxsize=len(SOURCES))
def _picture(source: Source) -> NDArray[np.uint8]:
    path = _locate(source)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"photos: expected the picture {source.name!r} at {path}, got {type(error).__name__};"
            f" reinstall the package that provides {source.package!r}."
        ) from error
    if found != source.sha256:
        raise DataError(
            f"photos: {path} is not the labeled picture: expected sha256 {source.sha256}, got {found};"
            f" install another version of the package that provides {source.package!r}."
        )
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    pixels.setflags(write=False)
    return pixels


def _locate(source: Source) -> Path:
    """Where the picture lies. The spec is enough: importing the package would cost up to seconds."""
    spec = find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"photos: the picture {source.name!r} ships with {source.package!r}, which is not installed;"
            " reinstall iqa-robust with its dependencies."
        )
    return Path(next(iter(spec.submodule_search_locations)), *source.file.split("/"))
