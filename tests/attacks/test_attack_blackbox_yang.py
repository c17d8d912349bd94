"""Yang et al.'s attack: its maps against plain loops, SurFree against a closed form, and the bounds it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from iqa_robust import attacks
from iqa_robust.attacks.blackbox.surfree import SurFree, _cosines
from iqa_robust.attacks.blackbox.visibility import busy_or_salient, just_noticeable
from iqa_robust.attacks.blackbox.yang_query import YangQuery
from iqa_robust.attacks.norms import measure
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class Recorder(IQAModel):
    """Keeps every image it scores."""

    def __init__(self, inner: IQAModel) -> None:
        super().__init__()
        self.inner, self.info = inner, inner.info
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.inner(x)


@pytest.mark.parametrize("level", [0, 60, 127, 128, 255])
def test_a_flat_image_only_adapts_to_luminance(level: int) -> None:
    """No contrast: L - 0 with L = 17 (1 - sqrt(v / 127)) + 3 in the dark, 3 (v - 127) / 128 + 3 in the light."""
    expected = 17 * (1 - math.sqrt(level / 127)) + 3 if level <= 127 else 3 * (level - 127) / 128 + 3
    noticeable = 255 * just_noticeable(torch.full((1, 3, 9, 11), level / 255))
    torch.testing.assert_close(noticeable, torch.full((1, 1, 9, 11), expected), rtol=0, atol=1e-4)  # float32


def test_contrast_masks_by_the_range_of_five_by_five_pixels() -> None:
    """A ramp too gentle for edges, by loops over the pixels."""
    levels = 100 + 2 * np.arange(12)[:, None] + np.arange(10)[None, :]
    x = torch.from_numpy(levels / 255).float().expand(1, 3, -1, -1)
    noticeable = 255 * just_noticeable(x)[0, 0].numpy()
    for i in range(12):
        for j in range(10):
            near = levels[max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            contrast = 0.351 * (near.max() - near.min())
            v = levels[i, j]
            luminance = 17 * (1 - math.sqrt(v / 127)) + 3 if v <= 127 else 3 * (v - 127) / 128 + 3
            expected = luminance + contrast - 0.3 * min(luminance, contrast)
            assert noticeable[i, j] == pytest.approx(expected, abs=1e-3)  # float32


def test_edges_and_what_stands_out_are_busy() -> None:
    x = torch.full((1, 3, 64, 64), 0.4)
    x[:, :, :, 32:] = 0.8
    mask = busy_or_salient(x)[0, 0]
    assert bool(mask[8:-8, 30:34].any(dim=1).all())  # along the whole edge
    spot = torch.full((1, 3, 64, 64), 0.4)
    spot[:, :, 40:46, 12:18] = 0.9
    salient = busy_or_salient(spot)[0, 0]
    assert bool(salient[43, 15]) and salient.float().mean() < 0.5
    assert bool(busy_or_salient(torch.full((1, 3, 20, 20), 0.5)).any())  # somewhere, even where nothing stands out


def test_the_cosine_basis_is_the_transforms() -> None:
    values = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    ours = _cosines(7, values) @ values @ _cosines(12, values).T
    # float32 products against SciPy in float64
    np.testing.assert_allclose(ours.numpy(), dctn(values.double().numpy(), norm="ortho"), atol=1e-5)


def test_surfree_approaches_the_nearest_point_beyond_a_plane() -> None:
    """For <w, z> above a threshold the nearest point to the source is known; the search comes close to it."""
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))
    w = w / w.norm()
    source, found = torch.zeros(3, 4, 4), torch.sign(w)
    threshold = 0.5
    pull = SurFree(source, threshold, lambda z: z, ImageRNG([1]), steps=200, queries=4000)
    search = pull.pull(found, (found * w).sum().item())
    request, asked = next(search), 0
    try:
        while True:
            asked += len(request)
            request = search.send((request * w).flatten(1).sum(dim=1))
    except StopIteration as stop:
        best = stop.value
    assert asked <= 4000
    # No point beyond the plane is nearer than 0.5; the straight way from the start ends at 0.5 / cos = 0.61.
    straight = threshold / ((found * w).sum() / found.norm()).item()
    assert threshold <= best.norm().item() < 0.5 * (threshold + straight)
    assert pull.value == pytest.approx((best * w).sum().item(), abs=1e-6) and pull.value > threshold


@pytest.mark.parametrize("queries", [1, 5, 30])
def test_surfree_keeps_to_its_queries(queries: int) -> None:
    w = torch.ones(3, 4, 4)
    pull = SurFree(torch.zeros(3, 4, 4), 1.0, lambda z: z, ImageRNG([0]), queries=queries)
    search = pull.pull(torch.ones(3, 4, 4), 48.0)
    asked, request = 0, next(search)
    with pytest.raises(StopIteration):
        while True:
            asked += len(request)
            request = search.send((request * w).flatten(1).sum(dim=1))
    assert asked <= queries


@pytest.mark.parametrize("norm,eps_255", [("linf", 6.0), ("l2", 250.0), ("psnr", 5.0), ("linf", 255.0)])
def test_every_candidate_is_hard_to_see_and_inside_the_budget(
    images: Callable[..., torch.Tensor], linear: IQAModel, norm: str, eps_255: float
) -> None:
    x = images(2)
    model = Recorder(linear)
    budget = Budget(norm=norm, eps_255=eps_255, queries=120)
    result = YangQuery()(model, x, goal="up", budget=budget)
    allowed = 0.38 * just_noticeable(x)
    asked = torch.cat([z for z in model.seen[1:] if len(z) == 2][:-1])
    nearest = torch.stack([(asked - image).abs().flatten(1).amax(dim=1) for image in x]).argmin(dim=0)
    for z, i in zip(asked, nearest.tolist(), strict=True):
        assert bool(((z - x[i]).abs() <= allowed[i] + 1e-6).all())  # float32 rounding
        assert measure(z[None], x[i : i + 1], norm).item() <= eps_255 / 255 + 1e-6
    assert bool((result.score_adv > result.score_clean).all())


@pytest.mark.parametrize("goal", ["up", "down", "reflect", "target"])
def test_the_score_moves_toward_the_goal(images: Callable[..., torch.Tensor], linear: IQAModel, goal: str) -> None:
    x = images(2, low=60, high=200)
    clean = linear(x).detach()
    target = clean - 5 if goal == "target" else None
    result = YangQuery()(linear, x, goal=goal, budget=Budget(eps_255=16, queries=150), target=target)
    shift = result.score_adv - result.score_clean
    wanted = {"up": 1, "down": -1, "reflect": (50 - clean).sign(), "target": -1}[goal]
    assert bool((shift * wanted > 0).all())


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(ContractError, match="jnd to be a finite number > 0"):
        attacks.create("yang-query", jnd=0)
    with pytest.raises(ContractError, match="rounds to be a whole number >= 1"):
        attacks.create("yang-query", rounds=0)
