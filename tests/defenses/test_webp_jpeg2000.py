"""WebP and JPEG 2000: a file on disk, rates, distortions and stand-ins."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from iqa_robust.attacks.gradient.pgd import PGD
from iqa_robust.defenses.base import Purifier
from iqa_robust.defenses.codec.differentiable_vp8 import AC_STEPS, COARSER, differentiable_vp8, quantizer_step
from iqa_robust.defenses.codec.jpeg2000 import JPEG2000
from iqa_robust.defenses.codec.webp import WebP
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_uint8
from iqa_robust.models import create
from iqa_robust.models.base import wrap
from iqa_robust.records import Budget
from iqa_robust.testing.pictures import pictures

SETTINGS = [
    (WebP(quality=20), "webp", {"quality": 20}),
    (WebP(quality=90), "webp", {"quality": 90}),
    (JPEG2000(ratio=8.0), "jp2", {"quality_mode": "rates", "quality_layers": [8.0], "irreversible": True, "mct": 1}),
    (JPEG2000(ratio=40.0), "jp2", {"quality_mode": "rates", "quality_layers": [40.0], "irreversible": True, "mct": 1}),
]


@pytest.mark.parametrize(("defense", "suffix", "options"), SETTINGS)
def test_gives_what_a_file_gives(defense: Purifier, suffix: str, options: dict, tmp_path: Path) -> None:
    x = pictures(2, 45, 62)
    y = defense.purify(x)
    assert bool(on_8bit_grid(y).all())
    for i in range(2):
        path = tmp_path / f"{i}.{suffix}"
        Image.fromarray(to_uint8(x[i]).permute(1, 2, 0).numpy()).save(path, **options)
        assert np.array_equal(to_uint8(y[i]).permute(1, 2, 0).numpy(), np.array(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("ratio", [10.0, 30.0])
def test_the_ratio_is_that_of_the_sizes(ratio: float, tmp_path: Path) -> None:
    image = to_uint8(pictures(1, 256, 256)[0]).permute(1, 2, 0).numpy()
    path = tmp_path / "image.jp2"
    Image.fromarray(image).save(path, quality_mode="rates", quality_layers=[ratio], irreversible=True, mct=1)
    # The codec fills the size it is given up to one coding pass; the file adds some 100 bytes of boxes.
    assert image.size / path.stat().st_size == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize(
    ("fine", "coarse"), [(WebP(quality=90), WebP(quality=20)), (JPEG2000(ratio=8.0), JPEG2000(ratio=40.0))]
)
def test_more_compression_is_farther_from_the_image(fine: Purifier, coarse: Purifier) -> None:
    x = pictures(1, 96, 96)
    ratios = [peak_signal_noise_ratio(x.numpy(), d.purify(x).numpy(), data_range=1) for d in (fine, coarse)]
    assert ratios[0] > ratios[1] + 3 > 23  # dB


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (3, 40)])
@pytest.mark.parametrize("defense", [WebP(), JPEG2000()])
def test_takes_small_images(defense: Purifier, size: tuple[int, int]) -> None:
    x = pictures(1, *size)
    assert defense.purify(x).shape == x.shape


@pytest.mark.parametrize("defense", [WebP(), JPEG2000()])
def test_black_and_white_have_a_slope(defense: Purifier) -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[..., 16:] = 1
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(defense.surrogate(x).sum(), x)
    assert bool((slope.sum(dim=(1, 2))[:, [2, 8, 24, 30]] != 0).all())


@pytest.mark.parametrize("quality", [20, 50, 75, 90])
def test_the_slope_of_webp_is_of_what_drops_as_much_as_the_codec(quality: int) -> None:
    x = pictures(4, 192, 192)
    coded = (differentiable_vp8(x, quality), WebP(quality=quality).purify(x))
    lost = [float((y - x).square().mean()) for y in coded]
    # The codec predicts and filters, too; a step twice as wide would lose three times as much.
    assert 0.7 < lost[0] / lost[1] < 1.6


def test_libwebps_index_of_the_quality() -> None:
    # Of libwebp: 38 at quality 50, 26 at 75, 9 at 90; steps of RFC 6386: index + 4 up to index 54.
    assert [quantizer_step(quality) / COARSER * 2 for quality in (50, 75, 90)] == [42, 30, 13]
    assert (len(AC_STEPS), AC_STEPS[54:58], AC_STEPS[-1]) == (128, (58, 60, 62, 64), 284)


class Identity(WebP):
    """Attacked as one attacks what has no better stand-in."""

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_slope_of_webp_moves_scores_further_than_the_identity(direction: str) -> None:
    x, model = pictures(4, 128, 128), create("compact")
    shift = [
        (found.score_adv - found.score_clean).abs().mean()
        for defense in (WebP(), Identity())
        for found in [PGD()(defense.wrap(model), x, goal=direction, budget=Budget(eps_255=2, steps=10))]
    ]
    assert shift[0] > 1.1 * shift[1]


def test_jpeg2000_needs_the_room_of_its_stand_in() -> None:
    assert JPEG2000().wrap(wrap(lambda x: x.mean(dim=(1, 2, 3)))).info.min_size == 5


@pytest.mark.parametrize("quality", [0, 101, 50.0])
def test_webp_refuses(quality: object) -> None:
    with pytest.raises(ContractError, match=r"^WebP: expected quality to be a whole number from 1 to 100, got"):
        WebP(quality=quality)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [0.5, math.inf, "20"])
def test_jpeg2000_refuses(ratio: object) -> None:
    with pytest.raises(ContractError, match=r"^JPEG2000: expected ratio to be a finite number >= 1, got"):
        JPEG2000(ratio=ratio)  # type: ignore[arg-type]
