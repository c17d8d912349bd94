"""Random crop: one window per image, from that image's own generator."""

from __future__ import annotations

import pytest
import torch

from iqa_robust.defenses.geometry.random_crop import RandomCrop
from iqa_robust.errors import ContractError
from iqa_robust.models.base import ModelInfo, score, wrap
from iqa_robust.models.randomness import seeded


def numbered(n: int, height: int, width: int) -> torch.Tensor:
    """Images (n, 3, H, W) without two equal pixels, so that a window can be found again."""
    pixels = n * height * width
    return torch.arange(pixels).div(pixels).reshape(n, 1, height, width).expand(n, 3, height, width).contiguous()


def corner(window: torch.Tensor, image: torch.Tensor) -> tuple[int, int]:
    """Where the top left pixel of `window` lies in `image`, both (3, H, W)."""
    ((row, column),) = (image[0] == window[0, 0, 0]).nonzero().tolist()
    return row, column


def test_a_window_is_a_part_of_its_image() -> None:
    x = numbered(5, 40, 30)
    windows = RandomCrop(fraction=0.7).purify(x)
    assert windows.shape == (5, 3, 28, 21)
    for window, image in zip(windows, x, strict=True):
        top, left = corner(window, image)
        assert torch.equal(window, image[:, top : top + 28, left : left + 21])


def test_every_place_is_equally_likely() -> None:
    x = numbered(1, 4, 6).expand(600, 3, 4, 6)
    with seeded(range(600)):
        windows = RandomCrop(fraction=0.5).purify(x)
    places = [corner(window, x[0]) for window in windows]
    counts = [places.count((top, left)) for top in range(3) for left in range(4)]
    assert sum(counts) == 600
    # 12 places, 50 expected at each: chi-square with 11 degrees of freedom lies above 31.3 once in a thousand
    assert sum((count - 50) ** 2 / 50 for count in counts) < 31.3


def test_seeded_repeats_and_unseeded_varies() -> None:
    x = numbered(2, 64, 64)
    crop = RandomCrop(fraction=0.5)
    with seeded([7, 8]):
        first, second = crop.purify(x), crop.purify(x)
    with seeded([7, 8]):
        again = crop.purify(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)  # the generators go on: two stages in a row see different windows
    assert len({corner(crop.purify(x)[0], x[0]) for _ in range(20)}) > 1  # 33 * 33 places: 1e-58 to be wrong


def test_draws_belong_to_the_image_not_to_the_batch() -> None:
    x = numbered(4, 30, 30)
    with seeded([1, 2, 3, 4]):
        together = RandomCrop().purify(x)
    for i in range(4):
        with seeded([i + 1]):
            assert torch.equal(RandomCrop().purify(x[i : i + 1])[0], together[i])


def test_the_wrapped_model_says_it_is_random_and_is_scored_over_seeds() -> None:
    model = wrap(lambda x: x[:, 0].mean(dim=(1, 2)))
    defended = RandomCrop(fraction=0.5).wrap(model)
    assert not defended.info.deterministic
    x = numbered(2, 16, 16)
    assert torch.equal(score(defended, x, seeds=[1, 2]), score(defended, x, seeds=[1, 2]))
    assert not torch.equal(score(defended, x, seeds=[1, 2]), score(defended, x, seeds=[3, 4]))


@pytest.mark.parametrize("fraction", [0.1, 0.37, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("least", [1, 2, 7, 32, 224])
def test_the_wrapped_model_needs_images_whose_window_is_large_enough(fraction: float, least: int) -> None:
    seen: list[int] = []

    def module(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[-1])
        return x.mean(dim=(1, 2, 3))

    defended = RandomCrop(fraction=fraction).wrap(wrap(module, ModelInfo(min_size=least)))
    side = defended.info.min_size
    defended(torch.zeros(1, 3, side, side))
    assert seen == [least] or (seen[0] >= least and side == least)
    if side > 1:
        defended(torch.zeros(1, 3, side - 1, side - 1))
        assert seen[1] < least or least == 1


def test_refuses_a_full_reference_model() -> None:
    model = wrap(lambda x, ref: (x - ref).mean(dim=(1, 2, 3)), ModelInfo(full_reference=True))
    sentence = r"RandomCrop changes the frame of the image, so it cannot defend a full-reference model\."
    with pytest.raises(ContractError, match=sentence):
        RandomCrop().wrap(model)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan"), True, "0.9"])
def test_refuses_a_fraction_that_is_none(fraction: object) -> None:
    with pytest.raises(ContractError, match=r"RandomCrop: expected fraction to be a number between 0 and 1, got"):
        RandomCrop(fraction=fraction)  # type: ignore[arg-type]
