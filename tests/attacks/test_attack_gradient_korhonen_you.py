"""Korhonen and You: the activity map by SciPy, the updates by PyTorch's Adam, and when images leave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import grey_dilation, sobel

from iqa_robust import attacks
from iqa_robust.attacks.gradient.korhonen_you import FIRST_SLOPE, activity_map
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG, content_seeds
from iqa_robust.records import Budget
from iqa_robust.testing.pictures import pictures


def _map(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one image (3, H, W) in [0, 1], as in the authors' MATLAB code."""
    red, green, blue = image
    luma = (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255
    energy = (sobel(luma, axis=0) / 8) ** 2 + (sobel(luma, axis=1) / 8) ** 2
    inner = np.zeros_like(energy)
    inner[1:-1, 1:-1] = energy[1:-1, 1:-1]
    inner = inner / inner.max() if inner.max() > 0 else np.ones_like(inner)
    disk = np.ones((5, 5), dtype=bool)
    disk[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    return grey_dilation(inner, footprint=disk, mode="constant", cval=0)


def test_the_map_is_the_authors() -> None:
    x = torch.cat([pictures(2, 40, 33), torch.full((1, 3, 40, 33), 0.5)])
    found = activity_map(x)
    assert found.shape == (3, 1, 40, 33)
    for i in range(3):
        # Sobel filters of nearly equal values lose float32 digits: squares of 1e-6 of the luma.
        np.testing.assert_allclose(found[i, 0].numpy(), _map(x[i].double().numpy()), rtol=0, atol=1e-5)
    assert bool((found[2] == 1).all())  # nothing is active in a flat image, so everything may change


def _climb(
    model: IQAModel, x: torch.Tensor, rate: float, steps: int, released: bool, eps: float | None = None
) -> torch.Tensor:
    """PyTorch's Adam, the map on the gradient (released) or on the update."""
    ends = []
    for image in x:
        z = image[None].clone().requires_grad_(True)
        weight = torch.from_numpy(_map(image.double().numpy())).float()
        optimizer = torch.optim.Adam([z], lr=rate / 255, maximize=True)
        scale = None
        for _ in range(steps):
            before = z.detach().clone()
            optimizer.zero_grad()
            model(z).sum().backward()
            assert z.grad is not None
            scale = scale if scale is not None else FIRST_SLOPE / z.grad.abs().mean()
            z.grad *= scale * (weight if released else 1)
            optimizer.step()
            with torch.no_grad():
                if not released:
                    z.copy_(before + weight * (z - before))
                if eps is not None:
                    z.copy_(torch.minimum(torch.maximum(z, image - eps), image + eps))
                z.clamp_(0, 1)
        ends.append(z.detach())
    return torch.cat(ends)


def _objective(model: IQAModel, x: torch.Tensor, budget: Budget) -> Objective:
    return Objective(
        model,
        x,
        None,
        goal=Goal(sign=torch.ones(len(x))),
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=True,
    )


@pytest.mark.parametrize("map_on", ["update", "gradient"])
@pytest.mark.parametrize("eps_255", [255, 3])
def test_the_updates_are_adams(convolutional: IQAModel, map_on: str, eps_255: int) -> None:
    x = pictures(2, 24, 24)
    budget = Budget(eps_255=eps_255, steps=7)
    attack = attacks.create("korhonen-you", learning_rate=2, map_on=map_on)
    end = attack.perturb(_objective(convolutional, x, budget), x, budget, ImageRNG([0, 1])).detach()
    expected = _climb(convolutional, x, 2, 7, released=map_on == "gradient", eps=eps_255 / 255)
    # Rounding of the map and of the network moves single updates of 2/255 a little.
    assert ((end - expected).abs() > 1e-5).float().mean() < 0.01
    torch.testing.assert_close(end, expected, rtol=0, atol=2e-3)


def test_the_map_on_the_update_keeps_changes_where_the_image_is_active(convolutional: IQAModel) -> None:
    x = pictures(3, 48, 48)
    activity = activity_map(x).expand_as(x)
    followed = {}
    for map_on in ("update", "gradient"):
        attack = attacks.create("korhonen-you", learning_rate=1, map_on=map_on)
        result = attack(convolutional, x, goal="up", budget=Budget(eps_255=16, steps=8))
        moved = (result.images - x).abs()
        followed[map_on] = np.corrcoef(moved.flatten().numpy(), activity.flatten().numpy())[0, 1]
    # Adam divides most of the map on the gradient out again; what is left is its epsilon's doing.
    assert followed["update"] > followed["gradient"] + 0.1


def test_images_whose_score_stops_rising_leave(make_model: type[IQAModel]) -> None:
    """The first picture can rise for ever, the second is at its peak from the start, the third reaches one."""
    x = pictures(3, 16, 16)
    floor = x.flatten(1).mean(dim=1)

    def score(z: torch.Tensor) -> torch.Tensor:
        moved = (z - x[:1]).flatten(1).mean(dim=1)
        kind = torch.stack([(z - image).abs().flatten(1).amax(dim=1) for image in x]).argmin(dim=0)
        way = z.flatten(1).mean(dim=1) - floor[kind]
        values = torch.stack([moved, -way.abs(), torch.minimum(way, torch.tensor(2e-4))])
        return values.gather(0, kind[None])[0]

    budget = Budget(norm="psnr", eps_255=8, steps=40)
    attack = attacks.create("korhonen-you", learning_rate=0.05)
    result = attack(make_model(score), x, goal="up", budget=budget)
    assert result.gradients[0] == 40
    # Twenty steps are made in any case; the two that did not improve are among them.
    assert result.gradients[1] == 21
    assert 21 <= result.gradients[2] < 40
    assert result.queries.tolist() == result.gradients.tolist()


@pytest.mark.parametrize("queries", [30, 42, 45])
def test_an_image_without_queries_does_not_end_the_search_of_its_neighbors(make_model: Callable, queries: int) -> None:
    """Images leave after different numbers of steps, so one has queries left for the other side and one has not."""
    bumpy = torch.randint(0, 2, (1, 3, 48, 48), generator=torch.Generator().manual_seed(1)).float() * 128 / 255 + 0.25
    bumpy = (bumpy * 255).round() / 255
    x = torch.cat([bumpy, pictures(1, 48, 48)])

    def score(z: torch.Tensor) -> torch.Tensor:
        values = z.flatten(1) @ torch.linspace(-1, 1, 3 * 48 * 48)
        return torch.where(values < 0, values, 0.2 * values)

    attack, budget = attacks.create("korhonen-you"), Budget(eps_255=4, steps=40, queries=queries)
    together = attack(make_model(score), x, goal="away", budget=budget)
    for i in range(2):
        alone = attack(make_model(score), x[i : i + 1], goal="away", budget=budget)
        assert torch.equal(alone.images[0], together.images[i])
        assert alone.queries[0] == together.queries[i]


def test_up_to_the_optimum_of_a_linear_model(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    """Where the map is not zero every value reaches the corner, if the rate is high enough."""
    x = images(3, low=30, high=220)
    reachable = (activity_map(x) > 0).expand_as(x)
    result = attacks.create("korhonen-you", learning_rate=1e6)(
        linear, x, goal="down", budget=Budget(eps_255=4, steps=3)
    )
    moved = torch.round((result.images - x) * 255)
    assert torch.equal(moved, torch.where(reachable, -4 * linear.w.sign(), 0.0))


@pytest.mark.parametrize("parameters", [{"learning_rate": 0}, {"map_on": "loss"}])
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(parameters))):
        attacks.create("korhonen-you", **parameters)
