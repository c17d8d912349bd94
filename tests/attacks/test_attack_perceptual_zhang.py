"""The perceptual attacks of Zhang et al. on a ladder of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import piq
import pytest
import torch
from torch import nn

from iqa_robust import attacks
from iqa_robust.attacks.norms import inside
from iqa_robust.attacks.perceptual import learned
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.perceptual.zhang import LADDER
from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget
from iqa_robust.testing.pictures import pictures

RUNGS = (1.0, 20.0, 300.0)
STEPS = 20


def _released(model: IQAModel, x: torch.Tensor, weight: float, low: float, high: float) -> torch.Tensor:
    """The authors' loop on one image (1, 3, H, W) in a few lines: a new Adam at every step, sign steps in effect."""
    generator = torch.Generator().manual_seed(0)
    z, clean = (x - torch.randint(0, 2, x.shape, generator=generator) / 255).clamp(0, 1), model(x).detach()
    for _ in range(STEPS):
        z = z.detach().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=0.005)
        shift = 10 * (model(z) - clean) / (high - low)
        loss = -(shift.square().sum() + weight * piq.ssim(z, x))
        optimizer.zero_grad()
        loss.backward()
        z.grad /= z.grad.norm() + 1e-12
        optimizer.step()
        z.data.clamp_(0, 1)
    return to_8bit_grid(z.detach())


@pytest.mark.parametrize("budget", [Budget.at("ssim", 0.97, steps=STEPS), Budget.at("psnr", 36, steps=STEPS)])
def test_it_is_no_weaker_than_the_released_ladder(convolutional: IQAModel, budget: Budget) -> None:
    """Theirs: per image, the strongest rung inside the budget, in the direction its start happens to take."""
    x = pictures(3, 24, 24)
    with torch.no_grad():
        clean = convolutional(x)
    best = torch.zeros(3)
    for weight in RUNGS:
        ends = torch.cat([_released(convolutional, image[None], weight, -2, 2) for image in x])
        with torch.no_grad():
            shift = (convolutional(ends) - clean).abs()
        best = torch.where(inside(ends, x, budget.norm, budget.eps), torch.maximum(best, shift), best)
    assert best.max() > 0
    result = attacks.create("zhang-ssim", weights=list(RUNGS))(convolutional, x, goal="away", budget=budget)
    ours = (result.score_adv - result.score_clean).abs()
    assert ours.mean() >= 0.98 * best.mean()  # 2 % is the project's own requirement


def test_the_ladder_is_the_authors() -> None:
    assert len(LADDER) == 33 and LADDER[0] == 0 and LADDER[-1] == 9_000_000
    assert list(LADDER) == sorted(set(LADDER))
    assert attacks.create("zhang-ssim").weights == LADDER


def test_a_heavier_weight_ends_nearer(convolutional: IQAModel) -> None:
    """Within a budget that binds no rung: the more the similarity counts, the more similar and the weaker."""
    x, found = pictures(2, 24, 24), []
    for weight in (0, 100, 1_000_000):
        attack = attacks.create("zhang-ssim", weights=[weight])
        result = attack(convolutional, x, goal="up", budget=Budget.at("ssim", -1, steps=STEPS))
        found.append((piq.ssim(result.images, x).item(), (result.score_adv - result.score_clean).mean().item()))
    assert found[0][0] < found[1][0] < found[2][0]
    assert found[0][1] > found[1][1] > found[2][1]


def test_every_rung_counts(convolutional: IQAModel) -> None:
    """A longer ladder is no weaker on any image, and costs what it says."""
    x, budget = pictures(2, 24, 24), Budget.at("ssim", 0.97, steps=4)
    reached = []
    for weights in ([20], [20, 1], [20, 1, 100]):
        attack = attacks.create("zhang-ssim", weights=weights)
        result = attack(convolutional, x, goal="up", budget=budget)
        assert (int(result.queries[0]), int(result.gradients[0])) == attack.cost(budget, "up")
        reached.append(result.score_adv)
    slack = 0.02 * (reached[0] - result.score_clean)  # the best is chosen before rounding
    assert bool((reached[1] >= reached[0] - slack).all()) and bool((reached[2] >= reached[1] - slack).all())


@pytest.mark.parametrize("weights", [[], [1, -1], ["a"], "12", None, [float("nan")]])
def test_a_wrong_ladder_is_refused(weights: Any) -> None:
    with pytest.raises(ContractError, match=r"ZhangSSIM: expected .*weights to be"):
        attacks.create("zhang-ssim", weights=weights)


def test_images_without_a_window_are_refused(make_linear: type[IQAModel]) -> None:
    x = torch.zeros(1, 3, 10, 16)
    with pytest.raises(ContractError, match="at least 11 pixels"):
        attacks.create("zhang-ssim")(make_linear(torch.ones(3, 10, 16)), x, goal="up", budget=Budget())


def test_adam_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(2, 3, 4, 4, generator=generator) for _ in range(5)]
    ours, adam = torch.zeros(2, 3, 4, 4), Adam()
    for gradient in gradients:
        ours = ours + 0.01 * adam.direction(1e-20 * gradient)  # the scale does not matter
    for i in range(2):
        z = torch.zeros(3, 4, 4, requires_grad=True)
        optimizer = torch.optim.Adam([z], lr=0.01, maximize=True)
        for gradient in gradients:
            z.grad = gradient[i] / gradient[i].norm()
            optimizer.step()
        torch.testing.assert_close(ours[i], z.detach(), rtol=1e-5, atol=1e-7)  # float32 rounding
    assert not Adam().direction(torch.full((1, 3, 2, 2), torch.nan)).any()
    assert not Adam().direction(torch.zeros(1, 3, 2, 2)).any()


@pytest.fixture()
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in place of torch.hub's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    learned._network.cache_clear()
    yield tmp_path / "checkpoints"
    learned._network.cache_clear()


@pytest.fixture()
def stand_in(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with the right names; behind them, VGG-16 with random weights and piq's own LPIPS and DISTS on top."""
    from torchvision.models.vgg import cfgs, make_layers

    for file in {name for names in learned.FILES.values() for name in names}:
        (hub / file).write_bytes(b"")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        features = make_layers(cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)

    def load(url: str, **_: object) -> Any:
        if url.endswith("lpips_weights.pt"):
            return [torch.rand(1, width, 1, 1, generator=generator) for width in (64, 128, 256, 512, 512)]
        return {name: torch.full((1, 1475, 1, 1), 1 / 2950) for name in ("alpha", "beta")}

    monkeypatch.setattr("piq.perceptual.vgg16", lambda **_: SimpleNamespace(features=features))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)


@pytest.mark.parametrize("name", ["LPIPS", "DISTS"])
@pytest.mark.usefixtures("stand_in")
def test_a_learned_distance_is_one_number_per_image(name: str) -> None:
    x = pictures(3, 32, 40)
    z = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    distance = learned.distance_for(name, x)
    torch.testing.assert_close(distance(x, x), torch.zeros(3), rtol=0, atol=1e-4)  # DISTS is 1 less a float32 sum
    leaf = z.clone().requires_grad_(True)
    found = distance(leaf, x)
    assert found.shape == (3,) and bool((found > 0.001).all())
    assert bool(torch.isfinite(torch.autograd.grad(found.sum(), leaf)[0]).all())
    with torch.no_grad():
        halfway = distance((x + z) / 2, x)
        alone = torch.cat([distance(z[i : i + 1], x[i : i + 1]) for i in range(3)])
    assert bool((halfway < found).all())
    torch.testing.assert_close(alone, found.detach(), rtol=1e-3, atol=1e-5)  # convolutions of another batch size


@pytest.mark.parametrize("name", ["zhang-lpips", "zhang-dists"])
@pytest.mark.usefixtures("stand_in")
def test_the_learned_similarities_restrain_the_attack(convolutional: IQAModel, name: str) -> None:
    x, distances, shifts = pictures(2, 32, 32), [], []
    distance = learned.distance_for(name.removeprefix("zhang-").upper(), x)
    for weight in (0, 10_000):
        attack = attacks.create(name, weights=[weight])
        result = attack(convolutional, x, goal="up", budget=Budget.at("psnr", 20, steps=6))
        distances.append(distance(result.images, x).mean().item())
        shifts.append((result.score_adv - result.score_clean).mean().item())
    assert distances[1] < 0.8 * distances[0] and 0 < shifts[1] < shifts[0]


@pytest.mark.parametrize("name", ["LPIPS", "DISTS"])
def test_absent_weights_are_named_and_not_downloaded(
    name: str, hub: Path, monkeypatch: pytest.MonkeyPatch, linear: IQAModel, images: Callable[..., torch.Tensor]
) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("nothing is downloaded during a run")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    attack = attacks.create(f"zhang-{name.lower()}")
    expected = rf"{name}: expected vgg16-397923af.pth and {name.lower()}_weights.pt in .*checkpoints"
    with pytest.raises(CheckpointError, match=expected):
        attack(linear, images(), goal="up", budget=Budget())
    (hub / "vgg16-397923af.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{name}: expected {name.lower()}_weights.pt in"):
        attack(linear, images(), goal="up", budget=Budget())


def test_broken_weights_are_reported(hub: Path, linear: IQAModel, images: Callable[..., torch.Tensor]) -> None:
    for file in learned.FILES["LPIPS"]:
        (hub / file).write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"LPIPS: the weight files in .* cannot be read"):
        attacks.create("zhang-lpips")(linear, images(2, 16), goal="up", budget=Budget())


@pytest.mark.usefixtures("stand_in")
def test_images_too_small_for_the_network_are_refused(linear: IQAModel, images: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(ContractError, match="DISTS: expected images of at least 32 pixels a side, got 16 x 16"):
        attacks.create("zhang-dists")(linear, images(), goal="up", budget=Budget())
