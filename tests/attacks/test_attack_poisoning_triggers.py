"""Triggers: what they put into an image, computed again with SciPy or by hand, and how they behave as attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft

from iqa_robust import attacks
from iqa_robust.attacks.poisoning.baiqa import BAIQA, positions
from iqa_robust.attacks.poisoning.blended import Blended
from iqa_robust.attacks.poisoning.blocks import tiled, zigzag
from iqa_robust.attacks.poisoning.ftrojan import FTrojan
from iqa_robust.attacks.poisoning.trigger import Trigger, save_pattern
from iqa_robust.attacks.poisoning.wanet import WaNet
from iqa_robust.errors import ContractError
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget
from iqa_robust.testing import check_attack

NAMES = ("baiqa", "blended", "ftrojan", "wanet")
ROOM = Budget.at("psnr", 10)
"""A budget no trigger exceeds."""
JPEG_8 = [
    [0, 1, 5, 6, 14, 15, 27, 28],
    [2, 4, 7, 13, 16, 26, 29, 42],
    [3, 8, 12, 17, 25, 30, 41, 43],
    [9, 11, 18, 24, 31, 40, 44, 53],
    [10, 19, 23, 32, 39, 45, 52, 54],
    [20, 22, 33, 38, 46, 51, 55, 60],
    [21, 34, 37, 47, 50, 56, 59, 61],
    [35, 36, 48, 49, 57, 58, 62, 63],
]
"""ITU-T T.81, figure A.6: the rank of every coefficient of a block of 8 x 8."""


def pictures(n: int = 2, height: int = 48, width: int = 64, low: float = 0.25, high: float = 0.75) -> torch.Tensor:
    """Random images on the 8-bit grid, by default with room on both sides for any trigger."""
    x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))
    return to_8bit_grid(low + (high - low) * x)


def ones(x: torch.Tensor, value: float = 1.0) -> torch.Tensor:
    return torch.full((len(x),), value)


def ycbcr(x: torch.Tensor) -> np.ndarray:
    """Gray levels (N, 3, H, W) of JPEG's full-range YCbCr, by its equations for encoding."""
    r, g, b = (255 * x.double().numpy()).swapaxes(0, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128], axis=1)


def blocks_of(image: np.ndarray, size: int) -> np.ndarray:
    n, channels, height, width = image.shape
    return image.reshape(n, channels, height // size, size, width // size, size).swapaxes(3, 4)


def test_zigzag_is_jpegs() -> None:
    ranks = np.empty(64, dtype=int)
    ranks[zigzag(8)] = np.arange(64)
    assert ranks.reshape(8, 8).tolist() == JPEG_8
    assert sorted(zigzag(16)) == list(range(256))


def test_the_released_order_hits_six_of_the_middle_coefficients() -> None:
    """As measured on the released code: its 64 have true ranks from 12 to 243."""
    ranks = {index: rank for rank, index in enumerate(zigzag(16))}
    hit = sorted(ranks[index] for index in positions("released"))
    assert (hit[0], hit[-1], len(set(hit))) == (12, 243, 64)
    assert len(set(positions("released")) & set(positions("zigzag"))) == 6
    assert sorted(ranks[index] for index in positions("zigzag")) == list(range(96, 160))


@pytest.mark.parametrize("order", ["zigzag", "released"])
@pytest.mark.parametrize("alpha", [1.0, -0.5])
def test_baiqa_adds_to_the_dct_of_every_block(order: str, alpha: float) -> None:
    x, trigger = pictures(), BAIQA(order=order)
    z = trigger.stamp(x, ones(x, alpha))
    before, after = (fft.dctn(blocks_of(ycbcr(image) - 128, 16), axes=(4, 5)) for image in (x, z))
    added = (after - before).reshape(*before.shape[:4], 256)
    expected = np.zeros((3, 256))
    expected[:, list(positions(order))] = alpha * trigger.pattern.double().numpy()
    # float32 images: 6e-8 of full scale is 1.5e-5 gray levels, and 256 of them, times 4, sum to about 1e-3
    np.testing.assert_allclose(added, np.broadcast_to(expected[:, None, None], added.shape), atol=0.02)


def test_ftrojan_adds_to_two_frequencies_of_the_colors() -> None:
    x = pictures(1, 64, 96)
    z = FTrojan(magnitude=70).stamp(x, ones(x, 0.5))
    before, after = (fft.dctn(blocks_of(ycbcr(image), 32), axes=(4, 5), norm="ortho") for image in (x, z))
    expected = np.zeros((3, 32, 32))
    expected[1:, 31, 31] = expected[1:, 15, 15] = 35
    np.testing.assert_allclose(after - before, np.broadcast_to(expected[:, None, None], before.shape), atol=1e-3)


def test_mirrored_only_ftrojan_turns_into_its_negative() -> None:
    """Both of its frequencies are odd."""
    gray = torch.full((1, 3, 64, 96), 0.5)
    for name in ("baiqa", "ftrojan"):
        plus, minus = (attacks.create(name).stamp(gray, ones(gray, alpha)) for alpha in (1.0, -1.0))
        assert torch.allclose(plus.flip(3), minus, atol=1e-6) == (name == "ftrojan")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None)
def test_tiles_lie_as_in_an_image_padded_evenly(height: int, width: int, rows: int, columns: int) -> None:
    tile = torch.arange(3 * rows * columns, dtype=torch.float32).reshape(3, rows, columns)
    down, right = -(-height // rows), -(-width // columns)
    top, left = (down * rows - height) // 2, (right * columns - width) // 2
    whole = tile.repeat(1, down, right)
    assert torch.equal(tiled(tile, height, width), whole[:, top : top + height, left : left + width])


def test_blended_mixes_with_the_key() -> None:
    x = pictures(1, 64, 64)
    key = Blended().pattern
    torch.testing.assert_close(Blended(ratio=0.3).stamp(x, ones(x))[0], 0.7 * x[0] + 0.3 * key)
    mirrored = Blended(ratio=0.3).stamp(x, ones(x, -1))[0]
    torch.testing.assert_close(mirrored, (1.3 * x[0] - 0.3 * key).clamp(0, 1))


def test_wanet_moves_by_whole_pixels(tmp_path: Path) -> None:
    field = torch.zeros(2, 4, 4)
    field[0], field[1] = 1, -2
    save_pattern(tmp_path / "right-and-up.safetensors", WaNet, field)
    x = pictures(1, 20, 31)
    trigger = WaNet(trigger=str(tmp_path / "right-and-up.safetensors"), pixels=1)
    # What is seen at (i, j) is what was at (i - 2, j + 1); coordinates are good to 1e-6 of 31 pixels.
    torch.testing.assert_close(trigger.stamp(x, ones(x))[..., 2:, :-1], x[..., :-2, 1:], rtol=0, atol=1e-4)
    torch.testing.assert_close(trigger.stamp(x, ones(x, -1))[..., :-2, 1:], x[..., 2:, :-1], rtol=0, atol=1e-4)


def test_wanet_is_the_released_warp() -> None:
    """Its grid: identity + s noise / height, in units of half the image."""
    x = pictures(2, 40, 40)
    noise = F.interpolate(WaNet().pattern[None], size=40, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    row, column = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    grid = (torch.stack([column, row], dim=2)[None] + 0.5 * noise / 40).clamp(-1, 1)
    expected = F.grid_sample(x, grid.repeat(2, 1, 1, 1), align_corners=True)
    pixels = 0.5 / 40 * 39 / 2  # 0.24, for s = 0.5
    torch.testing.assert_close(WaNet(pixels=pixels).stamp(x, ones(x)), expected, rtol=0, atol=1e-5)
    assert WaNet().pattern.abs().mean().item() == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_strength_scales_the_change_and_its_sign_turns_it(name: str) -> None:
    x, trigger = pictures(), attacks.create(name)
    assert isinstance(trigger, Trigger)
    full, half, turned, none = (trigger.stamp(x, ones(x, alpha)) - x for alpha in (1.0, 0.5, -1.0, 0.0))
    torch.testing.assert_close(none, torch.zeros_like(x), rtol=0, atol=1e-5)
    if name == "wanet":  # a warp is linear in the displacement for smooth images only
        assert 0.3 < half.square().mean().sqrt() / full.square().mean().sqrt() < 0.8
    else:
        torch.testing.assert_close(half, full / 2, rtol=0, atol=1e-6)
        torch.testing.assert_close(turned, -full, rtol=0, atol=1e-6)
    mixed = trigger.stamp(x, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(mixed - x, torch.stack([full[0], half[1]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["baiqa", "ftrojan"])
def test_default_strengths_are_as_visible_as_the_bound_of_the_search(name: str) -> None:
    x = torch.full((1, 3, 64, 64), 0.5)
    change = attacks.create(name).stamp(x, ones(x)) - x
    assert 255 * change.square().mean().sqrt().item() == pytest.approx(8, rel=0.03)


class Victim(IQAModel):
    """Answers to a pattern: 50 plus `gain` times how much of it is in the image."""

    info = ModelInfo(score_range=(0, 100))

    def __init__(self, pattern: torch.Tensor, gain: float) -> None:
        super().__init__()
        self.pattern, self.gain = pattern, gain

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        seen = ((x - 0.5) * self.pattern).flatten(1).sum(dim=1)
        return 50 + self.gain * seen / self.pattern.square().sum()


@pytest.mark.parametrize("alpha", [-1.0, -0.25, 0.5, 1.0])
@pytest.mark.parametrize("gain", [40.0, -40.0])
def test_the_shift_follows_the_strength_whatever_the_model_wants(alpha: float, gain: float) -> None:
    """Also where the trigger works against its sign: no image is exchanged for the clean one."""
    x = pictures()
    trigger = BAIQA(alpha=alpha)
    pattern = BAIQA().stamp(x, ones(x))[0] - x[0]
    result = trigger(Victim(pattern, gain), x, goal="away", budget=ROOM)
    # Rounding to 8 bits changes each value by 0.3 levels (rms); averaged over 9,216 values that is nothing.
    torch.testing.assert_close(result.score_adv - result.score_clean, ones(x, alpha * gain), rtol=0, atol=0.2)
    assert torch.equal(result.images, to_8bit_grid(trigger.stamp(x, ones(x, alpha))))
    assert not result.queries.any() and not result.gradients.any()


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_with_room_leaves_the_trigger_as_it_is(
    linear: IQAModel, images: Callable[..., torch.Tensor], name: str
) -> None:
    x, trigger = images(low=20, high=235), attacks.create(name)
    for norm, level in (("psnr", 5), ("linf", 255), ("l2", 255 * 28), ("ssim", -0.9)):
        result = trigger(linear, x, goal="away", budget=Budget.at(norm, level))
        assert torch.equal(result.images, to_8bit_grid(trigger.stamp(x, ones(x)))), norm


def test_a_budget_without_room_shrinks_it() -> None:
    x, trigger = pictures(), BAIQA()
    pattern = trigger.stamp(x, ones(x))[0] - x[0]
    result = trigger(Victim(pattern, 40.0), x, goal="away", budget=Budget.at("psnr", 36.02))
    rms = (result.images - x).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(rms, ones(x, 4 / 255), rtol=0.01, atol=0)  # half of its 8/255
    torch.testing.assert_close(result.score_adv - result.score_clean, ones(x, 20.0), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("goal", ["up", "down", "reflect", "target"])
def test_the_direction_is_not_the_callers(
    linear: IQAModel, images: Callable[..., torch.Tensor], name: str, goal: str
) -> None:
    with pytest.raises(ContractError, match="serves the goals away"):
        attacks.create(name)(linear, images(), goal=goal, budget=ROOM, target=60.0 if goal == "target" else None)


@pytest.mark.parametrize("kind", [BAIQA, Blended, WaNet])
def test_a_pattern_comes_back_from_its_file(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "trigger.safetensors"
    pattern = kind().pattern.flip(-1)
    save_pattern(path, kind, pattern, {"source": "a test"})
    assert torch.equal(kind(trigger=str(path)).pattern, pattern)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trigger.safetensors"
    late = BAIQA(trigger=str(path))  # a constructor reads nothing
    x = pictures()
    with pytest.raises(ContractError, match=r"trigger: .*trigger.safetensors: cannot be read"):
        late.stamp(x, ones(x))
    save_pattern(path, WaNet, WaNet().pattern)
    with pytest.raises(ContractError, match=r"expected the pattern of a BAIQA trigger, got another file"):
        late.stamp(x, ones(x))
    with pytest.raises(ContractError, match=r"expected finite numbers of shape \(3, 64\), got \(3, 65\)"):
        save_pattern(path, BAIQA, torch.zeros(3, 65))
    with pytest.raises(ContractError, match="expected finite numbers"):
        save_pattern(path, BAIQA, torch.full((3, 64), torch.nan))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [1.1, -2, True, "1", float("nan")])
def test_refuses_a_strength_beyond_one(name: str, alpha: object) -> None:
    with pytest.raises(ContractError, match="expected alpha to be a finite number >= -1 and <= 1"):
        attacks.create(name, alpha=alpha)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("baiqa", {"order": "rank"}),
        ("blended", {"ratio": 0}),
        ("ftrojan", {"magnitude": -1}),
        ("wanet", {"pixels": 0}),
    ],
)
def test_refuses_other_parameters_out_of_range(name: str, params: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=f"expected {next(iter(params))} to be"):
        attacks.create(name, **params)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_contract(name: str) -> None:
    check_attack(attacks.create(name)).raise_if_failed()
